"""``mst-clipiqa filter``: keep what is good enough; list it, copy it or move it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mst_clipiqa.analysis.filter import TransferPlan, keep, plan
from mst_clipiqa.analysis.read import image_folders
from mst_clipiqa.analysis.rows import LeftOut, Row
from mst_clipiqa.analysis.transfer import foresee, transfer
from mst_clipiqa.cli.commands._deliver import deliver
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._scores import read_source, table_options
from mst_clipiqa.cli.commands._types import FOLDER, NumberRange
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, counted
from mst_clipiqa.scoring.stop import Stop
from mst_clipiqa.tables.spelling import slashed


@click.command("filter", cls=SectionedCommand)
@click.argument("source")
@click.option("--min-quality", type=NumberRange(), help="Lowest quality to keep, on the model's scale, such as 2.5.")
@click.option("--min-correspondence", type=NumberRange(), help="Lowest correspondence to keep, on the same scale.")
@click.option("--invert", is_flag=True, help="Keep the other rows instead: those that score too low.")
@click.option("--list", "only_list", is_flag=True, help="Only write the rows (the default).")
@click.option("--copy-to", type=FOLDER, help="Copy the images of the kept rows to this folder.")
@click.option("--move-to", type=FOLDER, help="Move the images of the kept rows to this folder.")
@click.option("--yes", is_flag=True, help="Copy or move now; without this flag, only show what would happen.")
@click.option("--images", type=FOLDER, help="Folder to look for the images in; by default here and beside the table.")
@table_options
def command(
    source: str,
    min_quality: float | None,
    min_correspondence: float | None,
    invert: bool,
    only_list: bool,
    copy_to: Path | None,
    move_to: Path | None,
    yes: bool,
    images: Path | None,
    **flags: Any,
) -> int:
    """Keep the rows of SOURCE with high enough scores, and copy or move their images on request.

    SOURCE is a table of scores (.csv, .jsonl, .parquet), - for a table on stdin, or a folder of images, which is scored
    first. Rows without a score are never kept, copied or moved, not even with --invert.

    Images keep their subfolders. Nothing is ever overwritten: if a name is taken, the new file gets a number
    (cat-2.png). The column "to" says where each image went, or would go without --yes. Images inside tar and Parquet
    files can be copied. Ctrl-C finishes the current image and writes the rows so far (exit code 130).
    """
    if sum([only_list, copy_to is not None, move_to is not None]) > 1:
        raise UsageError("Expected one of --list, --copy-to and --move-to, got several: choose one.")
    check_outputs([source, flags["prompts"]], flags["output"], flags["left_out"])
    minimum = {"quality": min_quality, "correspondence": min_correspondence}
    rows = read_source(source, flags)
    kept = keep(rows, {name: value for name, value in minimum.items() if value is not None}, invert=invert)
    found = f"{counted(len(kept.rows), 'row')} kept, {kept.rejected:,} not."
    target = copy_to or move_to
    if target is None:
        _say(found)
        return deliver(kept.rows, kept.left_out, flags, rows)
    places = image_folders(source, images)
    planned = plan(kept.rows, rows, places, target, move=move_to is not None, by_name=images is not None)
    with Stop.listening(yes) as stop:
        results, failed = _do(planned, move_to is not None, yes, stop)
    _say(f"{found} {_summary(len(results), move_to is not None, yes)}")
    if rest := len(planned.moves) - len(results) - len(failed):
        _say(f"Stopped. {counted(rest, 'image')} not {'moved' if move_to else 'copied'}: repeat the command to go on.")
    code = deliver(results, [*kept.left_out, *planned.left_out, *failed], flags, rows)
    return 128 + stop.asked if rest else code


def _do(planned: TransferPlan, move: bool, yes: bool, stop: Stop) -> tuple[list[Row], list[LeftOut]]:
    """Carry out a plan until asked to stop, or only say where things would go."""
    pairs = [(source, target) for _, source, target in planned.moves]
    if not yes:
        ahead = foresee(pairs, move=move)
        return [{**row, "to": slashed(to)} for (row, _, _), to in zip(planned.moves, ahead, strict=True)], []
    done: list[Row] = []
    failed: list[LeftOut] = []
    with progress("moving" if move else "copying", len(pairs)) as advance:
        for (row, _, _), outcome in zip(planned.moves, transfer(pairs, move=move), strict=True):
            advance(1)
            if outcome.to is None:
                failed.append(LeftOut(row, f"not {'moved' if move else 'copied'}: {outcome.reason}"))
            else:
                done.append({**row, "to": slashed(outcome.to)})
            if stop.asked:
                break
    return done, failed


def _summary(count: int, move: bool, yes: bool) -> str:
    command = "moved" if move else "copied"
    images = counted(count, "image")
    return f"{images} {command}." if yes else f"{images} would be {command}; nothing was touched: add --yes to do it."


def _say(line: str) -> None:
    click.echo(line, err=True)
