"""``mst-clipiqa gate``: are the images good enough to go on?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.read import is_parts
from mst_clipiqa.analysis.rows import Row, say_left_out, split_failed
from mst_clipiqa.analysis.unfamiliar import count_unfamiliar, say_many_unfamiliar
from mst_clipiqa.cli.commands._deliver import write_rows
from mst_clipiqa.cli.commands._from_flags import resampling_of
from mst_clipiqa.cli.commands._options import FAILED_GATE
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._say import say_without_value
from mst_clipiqa.cli.commands._scores import (
    json_option,
    output_option,
    pair_by_option,
    read_source,
    resampling_options,
    source_options,
)
from mst_clipiqa.cli.commands._types import NumberRange
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, shown

if TYPE_CHECKING:
    from mst_clipiqa.analysis.gate import Checked


@click.command("gate", cls=SectionedCommand)
@click.argument("source")
@click.option("--min-mean", multiple=True, metavar="COLUMN=VALUE", help="Lowest mean, such as quality=2.8; repeatable.")
@click.option(
    "--min-quantile",
    multiple=True,
    metavar="COLUMN:Q=VALUE",
    help="Lowest quantile: quality:0.1=2 lets 10 % of the images score below 2; repeatable.",
)
@click.option(
    "--min-share",
    multiple=True,
    metavar="COLUMN:VALUE=SHARE",
    help="Lowest share of images that reach a value: quality:2.5=0.9 wants 90 % at 2.5 or more; repeatable.",
)
@click.option("--max-failed", metavar="N", help="Most rows that may have failed: a number, or a percentage such as 2%.")
@click.option("--min-count", type=click.IntRange(1), metavar="N", help="Fewest rows that must have a score.")
@click.option("--not-worse-than", "old", metavar="OLD", help="Older scores; fail if SOURCE is measurably worse.")
@click.option(
    "--margin",
    type=NumberRange(0),
    help="With --not-worse-than: fail unless a loss larger than this, in units of the score, can be excluded; a "
    "smaller one passes. Default: fail if any loss is measurable.",
)
@pair_by_option
@click.option(
    "--confident", is_flag=True, help="Compare limits with the lower end of the interval, not with the measured value."
)
@resampling_options
@output_option
@json_option
@source_options
def command(source: str, old: str | None, **flags: Any) -> int:
    """Check the scores of SOURCE against conditions: exit code 0 if all hold, 3 if one does not.

    SOURCE and OLD are tables of scores (.csv, .jsonl, .parquet), - for a table on stdin, or folders of images, which
    are scored first. One line on stdout says why. With --json or -o, every condition is a row, and the line goes to
    stderr.

    Failed rows count only for --max-failed. Intervals come from resampled prompts, or from resampled images if there
    are no prompts. OLD is compared prompt by prompt if it shares prompts with SOURCE; if there are no prompts, by file
    name; otherwise by its mean.
    """
    names = ("min_mean", "min_quantile", "min_share", "max_failed", "min_count")
    if flags["margin"] is not None and old is None:
        raise UsageError("--margin needs --not-worse-than: name the older scores, or omit it.")
    if flags["pair_by"] and old is None:
        raise UsageError("--pair-by needs --not-worse-than: name the older scores, or omit it.")
    if old is None and not any(flags[name] for name in names):
        raise UsageError(
            "Expected a condition, got none: give one such as --min-mean quality=2.8, or --not-worse-than OLD."
        )
    check_outputs([source, old, flags["prompts"]], flags["output"])
    checked = _checked(source, old, flags)
    failed = [condition for condition in checked if not condition.passed]
    as_rows = flags["output"] is not None or flags["as_json"]
    if as_rows:
        write_rows([condition.to_row() for condition in checked], flags["output"], flags["as_json"])
    reasons = "; ".join(condition.sentence for condition in failed or checked)
    click.echo(f"{'Failed' if failed else 'Passed'}: {reasons}.", err=as_rows)
    return FAILED_GATE if failed else 0


def _checked(source: str, old: str | None, flags: dict[str, Any]) -> Sequence[Checked]:
    from mst_clipiqa.analysis.gate import check_failures, check_not_worse, check_scored
    from mst_clipiqa.analysis.thresholds import check_thresholds, parse_threshold

    resampling = resampling_of(flags)
    thresholds = [
        *(parse_threshold("mean", words) for words in flags["min_mean"]),
        *(parse_threshold("quantile", words) for words in flags["min_quantile"]),
        *(parse_threshold("share", words) for words in flags["min_share"]),
    ]
    rows = read_source(source, flags)
    _warn(rows, source)
    checked = check_thresholds(rows, thresholds, resampling, confident=flags["confident"])
    if flags["max_failed"] is not None:
        checked.append(check_failures(rows, flags["max_failed"]))
    if flags["min_count"] is not None:
        checked.append(check_scored(rows, flags["min_count"], [threshold.column for threshold in thresholds]))
    if old is not None:
        older = read_source(old, flags)
        _warn(older, old)
        checked += check_not_worse(older, rows, old, resampling, margin=flags["margin"], also=flags["pair_by"])
        say_without_value(TARGETS, {"old": older, "new": rows})
    return checked


def _warn(rows: Sequence[Row], name: str) -> None:
    good, failed = split_failed(rows)
    is_table = is_parts(Path(name)) or not Path(name).is_dir()  # which keeps the reasons
    for line in () if is_table else say_left_out(failed):
        click.echo(line, err=True)
    if warning := say_many_unfamiliar({"": count_unfamiliar(good)}, shown(name)):
        click.echo(f"Warning: {warning}", err=True)
