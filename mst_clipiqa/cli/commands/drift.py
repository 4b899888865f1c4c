"""``mst-clipiqa drift``: has a generator become better or worse?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.rows import LeftOut, split_failed
from mst_clipiqa.analysis.unfamiliar import say_many_unfamiliar
from mst_clipiqa.analysis.verdict import say_by_chance
from mst_clipiqa.cli.commands._deliver import finish, write_rows
from mst_clipiqa.cli.commands._from_flags import resampling_of
from mst_clipiqa.cli.commands._options import FAILED_GATE
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._say import say_without_value, warn_of_models
from mst_clipiqa.cli.commands._scores import (
    generator_option,
    pair_by_option,
    read_source,
    resampling_options,
    table_options,
)
from mst_clipiqa.cli.commands._screen import for_screen
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import DataError, are, counted, shown, some_of
from mst_clipiqa.tables.columns import Table

if TYPE_CHECKING:
    from mst_clipiqa.analysis.drift import Drift


@click.command("drift", cls=SectionedCommand)
@click.argument("old")
@click.argument("new")
@click.option("--by", multiple=True, metavar="COLUMN", help="Also compare each group in this column; repeatable.")
@pair_by_option
@resampling_options
@click.option("--unpaired", is_flag=True, help="Compare the means of all prompts, even if the tables share none.")
@click.option(
    "--fail-if-worse",
    is_flag=True,
    help="Exit with 3 if NEW is measurably worse overall, lacks a score of OLD, or has too little evidence to tell.",
)
@generator_option
@table_options
def command(
    old: str,
    new: str,
    by: tuple[str, ...],
    pair_by: tuple[str, ...],
    unpaired: bool,
    fail_if_worse: bool,
    output: Path | None,
    as_json: bool,
    left_out: Path | None,
    **flags: Any,
) -> int:
    """Compare the scores OLD and NEW prompt by prompt, with an interval from resampled prompts.

    OLD and NEW are tables of scores (.csv, .jsonl, .parquet) or folders of images. Each prompt counts once, with the
    mean score of its images. Tables without prompts are paired by file name. If both tables have a column generator,
    each generator is also compared on its own. With --pair-by seed, images are compared only with those of the same
    prompt and seed.

    With --unpaired, the two means are compared, so a difference may also come from different prompts.

    Exit code 1 means that rows were left out, such as one of an image that could not be read; the others were compared
    all the same. stderr says which and why.
    """
    from mst_clipiqa.analysis.change import CHANGE_COLUMNS
    from mst_clipiqa.analysis.drift import drift
    from mst_clipiqa.analysis.gate import is_worse
    from mst_clipiqa.analysis.pairing import PairBy

    check_outputs([old, new, flags["prompts"]], output, left_out)
    before, after = (read_source(source, flags) for source in (old, new))
    if not by and all("generator" in rows.head for rows in (before, after)):
        by = ("generator",)
    pairing = PairBy("none" if unpaired else None, pair_by)
    try:
        found = drift(before, after, by=by, resampling=resampling_of(flags), pair_by=pairing)
    except DataError:  # perhaps because so many images failed
        failed = [one for rows in (before, after) for one in split_failed(rows)[1]]
        _finish(before, after, failed, left_out)
        raise
    if not (found.changes or fail_if_worse):
        _finish(before, after, found.left_out, left_out)
        raise DataError("Expected a scored row in the new table, got none: score images that can be read.")
    if output is None and not as_json:
        is_one = _is_one_group(found)
        for change in found.changes:
            if not (is_one and change.group):
                click.echo(for_screen(change.sentence()))
    else:
        write_rows([change.to_row() for change in found.changes], output, as_json, CHANGE_COLUMNS)
    _say(found, pair_by)
    say_without_value(_targets(found), {"old": _used(before, found), "new": _used(after, found)})
    code = _finish(before, after, found.left_out, left_out)
    is_bad = found.lost or any(is_worse(change) for change in found.changes if not change.group)
    return FAILED_GATE if fail_if_worse and is_bad else code


def _finish(before: Table, after: Table, left: Sequence[LeftOut], left_file: Path | None) -> int:
    columns = dict.fromkeys(name for rows in (before, after) if rows for name in rows.head)
    return finish(left, left_file, columns=list(columns))


def _is_one_group(found: Drift) -> bool:
    """Return whether all rows are of one group, which then says what the whole does."""
    return len({change.group for change in found.changes if change.group}) == 1 and not found.lone_groups


def _used(rows: Table, found: Drift) -> Table:
    """Return the rows that count; the others are among those left out."""
    from mst_clipiqa.analysis.drift import split_unused

    needs_prompt = any(change.pairing == "prompt" for change in found.changes)
    return split_unused(split_failed(rows)[0], _targets(found), needs_prompt=needs_prompt)[0]


def _targets(found: Drift) -> list[str]:
    return list(dict.fromkeys(change.target for change in found.changes))


def _say(found: Drift, pair_by: tuple[str, ...]) -> None:
    """Say on stderr what could not be paired, and what makes the comparison doubtful."""
    warn_of_models(found.models)
    for target in found.lost:
        click.echo(f"Warning: nothing in the new table can be compared with the {target} in the old one.", err=True)
    for which, prompts in (("old", found.only_old), ("new", found.only_new)):
        if prompts:
            what = counted(len(prompts), "combination" if pair_by else "prompt")
            what += f" of {' and '.join(('prompt', *pair_by))}" if pair_by else ""
            click.echo(
                f"{what} {are(len(prompts))} only in the {which} table and left out: {some_of(prompts)}", err=True
            )
    for which in ("old", "new"):
        counts = {change.group: getattr(change, f"{which}_unfamiliar") for change in found.changes}
        if warning := say_many_unfamiliar(counts, f"the {which} table"):
            click.echo(f"Warning: {warning}", err=True)
    verdicts = [] if _is_one_group(found) else [change.verdict for change in found.changes if change.group]
    if verdicts and (caution := say_by_chance(verdicts, found.changes[0].level, " of groups")):
        click.echo(caution, err=True)
    if found.lone_groups:
        names = ", ".join(shown(group, 60) for group in found.lone_groups)
        click.echo(f"Left out, as nothing in the other table matches: {names}", err=True)
