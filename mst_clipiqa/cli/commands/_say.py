"""What commands say on stderr: notes, warnings, and what was written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from mst_clipiqa.analysis.rows import Row, numbers, split_failed, text
from mst_clipiqa.cli.commands._screen import for_screen
from mst_clipiqa.errors import are, counted, shown, some_of


def say_notes(notes: Sequence[str], without_prompt: int = 0, scored: int = 0) -> None:
    """Say on stderr what was noted, and how many of the scored rows a model that reads prompts scored without one."""
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    if without_prompt and not any("prompt" in note for note in notes):
        click.echo(_no_prompt(without_prompt, scored), err=True)


def _no_prompt(without: int, scored: int) -> str:
    """Return how many images have no prompt, and what to do."""
    if without < scored:
        which = f"{without:,} of {counted(scored, 'scored image')} had no prompt"
        return f"{which}, so correspondence is empty there: give --prompt or --prompts."
    which = "The image has no prompt" if scored == 1 else f"The {scored:,} scored images have no prompt"
    return f"{which}, so correspondence is not scored: give --prompt or --prompts."


def say_data_notes(notes: Iterable[str]) -> None:
    """Say on stderr what the readers of a rated set, a split or pairs noted; their notes are without a period."""
    for note in notes:
        click.echo(f"Note: {note}.", err=True)


def say_written(output: Path, what: str, *, replaced: bool) -> None:
    """Say on stderr that a file was written, and whether it replaced an older one."""
    older = ", which replaces an older file" if replaced else ""
    click.echo(f"Wrote {for_screen(output)}{older}: {what}.", err=True)


def warn_of_models(models: Sequence[str]) -> None:
    """Warn on stderr that scores come from several models, if they do."""
    if len(models) > 1:
        click.echo(
            f"Warning: the scores come from different models ({', '.join(map(shown, models))}), so a difference may be "
            "theirs and not the images'.",
            err=True,
        )


def say_without_value(targets: Iterable[str], tables: Mapping[str, Sequence[Row]]) -> None:
    """Say on stderr how many scored rows lack a score that was compared; they count for the other scores alone.

    A score that no row of a table has cannot be compared, which the command says itself.

    Args:
        targets: the scores that were compared; they may repeat.
        tables: which table -> its rows: "old" and "new", or "" for the only one.
    """
    for target in dict.fromkeys(targets):
        for which, rows in tables.items():
            good = split_failed(rows)[0]
            without = [place for place, value in enumerate(numbers(good, target)) if math.isnan(value)]
            if 0 < len(without) < len(good):
                whose = f" of the {which} table" if which else ""
                what = f"{counted(len(without), 'row')}{whose} {are(len(without))}"
                files = some_of([text(good[place], "file") for place in without])
                click.echo(f"{what} compared without {target}, as there is no value: {files}", err=True)
