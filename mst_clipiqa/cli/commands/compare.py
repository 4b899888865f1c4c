"""``mst-clipiqa compare``: which of two images is better, by how much, how sure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.analysis.compare import compare_rows, compare_scores, row_of
from mst_clipiqa.analysis.read import read_scores
from mst_clipiqa.analysis.rows import Row, need_one_model, text
from mst_clipiqa.cli.commands._deliver import write_rows
from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import encoding_options, prompt_option
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._scores import json_option, output_option
from mst_clipiqa.cli.commands._screen import common_folder, for_screen
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import shown
from mst_clipiqa.scoring.score import Score, ScoreRequest, checked


@click.command("compare", cls=SectionedCommand)
@click.argument("a")
@click.argument("b")
@prompt_option("--prompt", "Prompt of both images; without it, only quality is compared.")
@click.option(
    "--scores", "table", metavar="FILE", help="Take the scores of A and B from this table instead of scoring them."
)
@click.option("--model", default="mini", show_default=True, help="Model that scores the images.")
@encoding_options
@output_option
@json_option
def command(
    a: str, b: str, prompt: str | None, table: str | None, output: Path | None, as_json: bool, **flags: Any
) -> None:
    """Tell which of the images A and B is better, by how much, and how certain that is.

    With --scores, A and B are file names in a table of scores. The certainty comes from the calibrated intervals of the
    two scores; below 95 % the result is "too close to call".
    """
    names = (a, b)
    check_outputs([a, b, table], output)
    if table:
        compared = compare_rows(*_from_table(table, names, prompt))
    else:
        compared = compare_scores(*_scored(names, prompt, flags))
    asked = {"quality"} | ({"correspondence"} if prompt else set())
    found = [one for one in compared if one.target in asked or one.verdict != "not compared"]
    if output is None and not as_json:
        for one in found:
            click.echo(one.sentence(_called(names)))
    else:
        write_rows([one.to_row() for one in found], output, as_json)


def _called(names: tuple[str, str]) -> tuple[str, str]:
    """Return short names of the images: the ends of their paths from the first part that differs."""
    paths = [for_screen(name.replace("\\", "/")) for name in names]
    bases = [path.rsplit("/", 1)[-1] for path in paths]
    if bases[0] != bases[1]:
        return bases[0], bases[1]
    folder = common_folder(paths)
    return (paths[0][len(folder) :], paths[1][len(folder) :]) if paths[0] != paths[1] else ("A", "B")


def _from_table(table: str, names: tuple[str, str], prompt: str | None) -> tuple[Row, Row]:
    rows = read_scores(table)
    found = row_of(rows, names[0], prompt), row_of(rows, names[1], prompt)
    need_one_model(found)
    for row in found:
        if text(row, "reason"):
            _note(text(row, "file"), text(row, "reason"))
    return found


def _note(name: str, reason: str) -> None:
    click.echo(f"Note on {shown(name)}: {reason}", err=True)


def _scored(names: tuple[str, str], prompt: str | None, flags: Mapping[str, Any]) -> tuple[Score, Score]:
    scores: list[Score] = []
    for request, score in load_scorer(flags).stream(ScoreRequest[None](name, prompt) for name in names):
        scores.append(checked(score, request.image))
        if score.reason:
            _note(str(request.image), score.reason)
    return scores[0], scores[1]
