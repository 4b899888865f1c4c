"""What ``score`` says on a terminal: the first rows, every failed one, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from mst_clipiqa.cli.commands._screen import apart, columns_of, common_folder, for_screen

if TYPE_CHECKING:
    from rich.text import Text

    from mst_clipiqa.scoring.score_rows import ScoreRow
    from mst_clipiqa.scoring.scorer import Scorer

SHOWN_ROWS = 40
"""Rows of the table on a terminal; the file has them all."""
SHOWN_FAILURES = 1000
"""Failed rows that are listed after them."""


@dataclass
class Seen:
    """Rows that went by, as far as the terminal needs them.

    Attributes:
        rows: how many.
        failed: how many of them failed.
        without_prompt: how many were scored without a prompt.
        first: the first rows.
        failures: failed rows after these.
    """

    rows: int = 0
    failed: int = 0
    without_prompt: int = 0
    first: list[ScoreRow] = field(default_factory=list)
    failures: list[ScoreRow] = field(default_factory=list)
    _began: float = field(default_factory=monotonic)

    def add(self, row: ScoreRow) -> None:
        """Count a row, and keep it if it will be shown."""
        is_failed = row["status"] == "error"
        self.rows += 1
        self.failed += is_failed
        self.without_prompt += not is_failed and row["prompt"] is None
        if len(self.first) < SHOWN_ROWS:
            self.first.append(row)
        elif is_failed and len(self.failures) < SHOWN_FAILURES:
            self.failures.append(row)

    def summary(self) -> str:
        """Return "2,382 images, 3 failed, 41 s"."""
        seconds = monotonic() - self._began
        time = (
            f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
        )
        return f"{counted(self.rows, 'image')}, {self.failed:,} failed, {time}"


def counted(number: int, noun: str) -> str:
    """Return "1 row" or "2,342 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def say_notes(notes: Sequence[str], without_prompt: int, rows: int) -> None:
    """Say on stderr what was noted, and how many images a model that reads prompts scored without one."""
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    if without_prompt and not any("prompt" in note for note in notes):
        which = f"{without_prompt:,} of {counted(rows, 'image')} had"
        click.echo(f"{which} no prompt, so correspondence is empty there: give --prompt or --prompts.", err=True)


def say_written(output: Path, what: str, *, replaced: bool) -> None:
    """Say on stderr that a file was written, and whether it replaced an older one."""
    older = ", which replaces an older file" if replaced else ""
    click.echo(f"Wrote {for_screen(output)}{older}: {what}.", err=True)


def print_table(seen: Seen, scorer: Scorer, output: Path | None = None) -> None:
    """Print the first rows and every failed one as a table, with the scale of each score."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = seen.first + seen.failures
    targets = [name for name in scorer.model.config.targets if any(row.get(name) is not None for row in rows)]
    console = Console()
    files = [for_screen(row["file"]) for row in rows]
    folder = common_folder(files)
    is_reason = [row["status"] == "error" or not row["prompt"] for row in rows]
    words = [for_screen(row["reason" if why else "prompt"]) for row, why in zip(rows, is_reason, strict=True)]
    free = console.width - sum(max(len(name), 7) + 2 for name in targets) - len("gate") - 4
    widest = max(map(columns_of, words), default=0)
    names = apart([file[len(folder) :] for file in files], max(16, free // 2, free - widest - 1))

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", no_wrap=True)
    for name in targets:
        table.add_column("{}\n{:g}..{:g}".format(name, *scorer.ranges[name]), justify="right", no_wrap=True)
    table.add_column("gate", justify="right", no_wrap=True)
    if widest:
        table.add_column("prompt or reason", overflow="fold")
    for at, row in enumerate(rows):
        if at == len(seen.first):
            table.add_section()
        numbers = ["" if (value := row.get(name)) is None else f"{value:z.2f}" for name in (*targets, "gate")]
        table.add_row(Text(names[at]), *numbers, *([_last(words[at], is_reason[at])] if widest else []))
    if folder:
        console.print(f"In {folder}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    if more := seen.rows - len(rows):
        where = f"{for_screen(output)} has them" if output else "-o FILE keeps them"
        console.print(f"{more:,} more; {where}.", highlight=False, markup=False, soft_wrap=True)
    uncalibrated = "" if all(t.calibrated for t in scorer.model.config.targets.values()) else "; uncalibrated"
    console.print(f"Model {scorer.predictor.name}; higher is better{uncalibrated}.", highlight=False, markup=False)


def _last(words: str, is_reason: bool) -> Text:
    """Return a prompt on one line, cut if it is too long, or a whole reason."""
    from rich.text import Text

    return Text(words) if is_reason else Text(words, no_wrap=True, overflow="ellipsis")
