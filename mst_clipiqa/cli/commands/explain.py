"""``mst-clipiqa explain``: why one image got its score."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import (
    color_option,
    device_options,
    merge_option,
    model_options,
    prompt_option,
    size_option,
)
from mst_clipiqa.cli.commands._types import FOLDER
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, shown

if TYPE_CHECKING:
    from mst_clipiqa.explain import Explanation


@click.command("explain", cls=SectionedCommand)
@click.argument("image", type=click.Path())
@prompt_option("--prompt", "Prompt of the image; without it, only quality is explained.")
@model_options
@click.option("-o", "--output", type=FOLDER, help="Folder for explanation.json and explanation.png.")
@click.option("--target", default="quality", show_default=True, help="Score to draw maps for.")
@click.option("--json", "as_json", is_flag=True, help="Write everything to stdout as JSON.")
@device_options
@merge_option
@color_option
@size_option
def command(image: str, prompt: str | None, output: Path | None, target: str, as_json: bool, **flags: Any) -> None:
    """Explain why IMAGE got its score: streams, levels, words, and where in the image quality is lost.

    Prints a few sentences, or everything with --json. Takes about 60 times as long as a score with mini, or 193 times
    with a CLIP pair.
    """
    from mst_clipiqa.explain import explain
    from mst_clipiqa.scoring.score import check_target

    scorer = load_scorer(flags)
    check_target(target, scorer.ranges)
    if prompt is None and scorer.model.config.targets[target].head != "template":
        raise _not_scored(target, "no prompt", "give --prompt")
    if output is not None:
        _require_place(output)
    found = explain(scorer, image, prompt)
    if target not in found.maps:
        raise _not_scored(target, found.score.reason, "try another --prompt or --target")
    if output is not None:
        _write(found, output, target)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        for line in _sentences(found, target):
            click.echo(line)


def _not_scored(target: str, why: str, what_to_do: str) -> UsageError:
    return UsageError(f"Expected {target} to be scored, got none ({why}): {what_to_do}.")


def _require_place(folder: Path) -> None:
    """Refuse a folder that cannot be made, before the work that it is for."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise _not_writable(folder, f"{shown(there)} is {'read-only' if there.is_dir() else 'a file'}")


def _not_writable(folder: Path, why: str) -> UsageError:
    return UsageError(f"Expected a writable folder, got {shown(folder)} ({why}): name another folder.")


def _write(found: Explanation, folder: Path, target: str) -> None:
    from mst_clipiqa.explain.sheet import draw_sheet

    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found.to_json(), indent=1) + "\n"
        (folder / "explanation.json").write_text(text, encoding="utf-8", newline="\n")
        draw_sheet(found, target).save(folder / "explanation.png", optimize=True)
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from error


def _sentences(found: Explanation, target: str) -> list[str]:
    """Return the results in sentences."""
    from mst_clipiqa.explain.results import STREAMS, words_sentence

    lines = []
    for name, value in found.score.targets.items():
        if value is not None:
            low, high = found.score.ranges[name]
            lines.append(found.fusion[name].sentence(f"{name} {value:.2f} ({low:g} to {high:g})"))
    lines += [found.maps[target].sentence(stream, target) for stream in STREAMS]
    lines += [words_sentence(name, words) for name, words in found.words.items() if words]
    if found.score.reason:
        lines.append(f"Note: {found.score.reason}.")
    return lines
