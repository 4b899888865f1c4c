"""gate: conditions on a table of scores: means, quantiles, shares, failures, and not worse than an older table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.drift import Change, drift
from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.pairing import PairBy, choose_pairing, folder_of, plural_of, unit_of
from mst_clipiqa.analysis.rows import Row, models_of, need_columns, need_one_model, number, prompt_of, split_failed
from mst_clipiqa.data.sets import RATED_TARGETS
from mst_clipiqa.errors import UsageError, counted, shown
from mst_clipiqa.evaluate.means import mean_interval, quantile_interval, share_interval
from mst_clipiqa.evaluate.resampling import DEFAULT, Interval, Resampling

Measure = Literal["mean", "quantile", "share"]
_FORMS = {"mean": "COLUMN=VALUE", "quantile": "COLUMN:Q=VALUE", "share": "COLUMN:VALUE=SHARE"}
_EXAMPLES = {"mean": "quality=2.8", "quantile": "quality:0.1=2", "share": "quality:2.5=0.9"}


@dataclass(frozen=True)
class Threshold:
    """A condition on one column.

    Attributes:
        measure: "mean", "quantile", or "share" of the images that reach a value.
        column: the score.
        limit: the lowest value of the measure that passes.
        at: which quantile, 0..1, or the value to reach; unused for a mean.
    """

    measure: Measure
    column: str
    limit: float
    at: float = 0.0


@dataclass(frozen=True)
class Checked:
    """The result of one condition.

    Attributes:
        condition: its flag.
        passed: whether it holds.
        sentence: the evidence in words, without capital and period.
        value: what was compared with the limit; None if undefined.
        low, high: its interval over prompts; None if there is none.
        limit: the limit.
    """

    condition: str
    passed: bool
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the result as a row of a table."""
        return dict(vars(self))


def parse_threshold(measure: Measure, words: str) -> Threshold:
    """Return the condition that a flag describes.

    Raises:
        UsageError: it is not of the form of its flag, or a share or quantile is not within 0 to 1.

    Example:
        >>> parse_threshold("share", "quality:2.5=0.9")
        Threshold(measure='share', column='quality', limit=0.9, at=2.5)
    """
    column, _, limit = words.rpartition("=")
    at = "0"
    if measure != "mean":
        column, _, at = column.rpartition(":")
    values = [_finite(at), _finite(limit)]
    bounded = {"mean": [], "quantile": values[:1], "share": values[1:]}[measure]
    if not column.strip() or None in values or not all(0 <= (value or 0) <= 1 for value in bounded):
        hint = "" if measure == "mean" else f" with {'Q' if measure == 'quantile' else 'SHARE'} between 0 and 1"
        raise UsageError(
            f"Expected --min-{measure} {_FORMS[measure]}{hint}, such as {_EXAMPLES[measure]}, got {shown(words)}."
        )
    return Threshold(measure, column.strip(), values[1] or 0.0, values[0] or 0.0)


def check_thresholds(
    rows: Sequence[Row], thresholds: Iterable[Threshold], how: Resampling = DEFAULT, *, confident: bool = False
) -> list[Checked]:
    """Check conditions on the scored rows of a table, with intervals over prompts.

    Args:
        rows: the table; rows without a score are left out. Frames of one image count once, with their mean.
        thresholds: the conditions.
        how: level, resamples and seed of the intervals.
        confident: require the limit of the lower end of the interval, not of the value itself. A condition without an
            interval, for which there are too few images or prompts, then fails.

    Raises:
        UsageError: a column is missing, or the rows are of several models.
        DataError: a cell is not a number where one is needed.
    """
    wanted = list(thresholds)
    columns = list(dict.fromkeys(one.column for one in wanted))
    need_columns(rows, columns)
    if wanted:
        need_one_model(rows)
    good = mean_of_frames(split_failed(rows)[0], columns)
    return [_threshold(good, one, how, confident) for one in wanted]


def check_failures(rows: Sequence[Row], most: str) -> Checked:
    """Check how many rows have failed; ``most`` is a number of rows, or a percentage such as "2%".

    Raises:
        UsageError: it is neither, or more than 100%.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%|(\d+)", most.strip())
    if match is None:
        raise UsageError(f"Expected --max-failed as a number or a percentage, such as 0 or 2%, got {shown(most)}.")
    if Decimal(match[1] or 0) > 100:
        raise UsageError(f"Expected at most 100% for --max-failed, got {shown(most)}: give a share of the rows.")
    failed = len(split_failed(rows)[1])
    limit = Decimal(match[2]) if match[2] else Decimal(match[1]) * len(rows) / 100  # as float, 29 % of 100 is below 29
    passed = bool(rows) and failed <= limit
    counts = f"{failed:,} of {len(rows):,} rows failed" if rows else "the table has no rows"
    return Checked("--max-failed", passed, f"{counts}, at most {most.strip()} allowed", failed, limit=float(limit))


def check_count(rows: Sequence[Row], least: int, columns: Sequence[str] = ()) -> Checked:
    """Check how many rows have been scored.

    Args:
        rows: the table.
        least: the lowest number that passes.
        columns: what the other conditions are about: a row counts if it has a value, and the column with the fewest
            decides. Without any, a row counts if it has any score, or if the table has no column of scores.

    Raises:
        DataError: a cell is not a number where one is needed.
    """
    good = split_failed(rows)[0]
    if columns:
        counts = {column: sum(number(row, column) is not None for row in good) for column in columns}
        column = min(counts, key=lambda name: counts[name])
        scored, what = counts[column], f" {'has' if counts[column] == 1 else 'have'} a value of {column}"
    else:
        scores = [target for target in RATED_TARGETS if any(target in row for row in good)]
        scored = sum(not scores or any(number(row, target) is not None for target in scores) for row in good)
        what = f" {'is' if scored == 1 else 'are'} scored"
    words = f"{counted(scored, 'row')}{what}, at least {least:,} required"
    return Checked("--min-count", scored >= least, words, scored, limit=least)


def check_not_worse(
    old: Sequence[Row],
    new: Sequence[Row],
    name: str,
    how: Resampling = DEFAULT,
    margin: float | None = None,
    also: Sequence[str] = (),
) -> list[Checked]:
    """Check that a table is not worse than an older one, score by score.

    Prompts that are in both are compared; without prompts, files of the same name; else the means of both tables. A
    score that only the older table has fails, as do all of them if nothing in the new one is scored.

    Args:
        old, new: rows of the two tables.
        name: what to call the older table.
        how: level, resamples and seed of the interval of the difference.
        margin: None fails a score if it is measurably worse. With a margin, it fails if its interval does not exclude
            a loss larger than that.
        also: further columns that a pair must share, such as ("seed",).

    Raises:
        UsageError: the tables name several models, or one lacks a column of ``also``.
        DataError: they share no score or, with ``also``, no pair.
    """
    good = split_failed(old)[0], split_failed(new)[0]
    for rows in good:
        need_one_model(rows)
    before, after = map(models_of, good)
    if before and after and before != after:
        raise UsageError(
            f"Expected tables scored by one model, got {shown(before[0])} in {shown(name)} and {shown(after[0])}: "
            "score both with the same one."
        )
    first = None if also else choose_pairing(*good, (folder_of(old), folder_of(new)))
    found = drift(old, new, TARGETS, how=how, pair_by=PairBy(first, tuple(also)))
    words = [f"nothing can be compared with the {target} in {name}" for target in found.lost]
    return [
        *(_not_worse(change, name, margin) for change in found.changes),
        *(Checked("--not-worse-than", False, one, limit=_lowest(margin)) for one in words),
    ]


def is_worse(change: Change) -> bool:
    """Return whether a change is measurably for the worse, or there is too little to know that it is not."""
    return change.verdict in ("worse", "unknown")


def _not_worse(change: Change, name: str, margin: float | None) -> Checked:
    low, high = (None, None) if math.isnan(change.low) else (change.low, change.high)
    if change.verdict == "unknown":
        passed, words = False, f"too few to tell whether {change.target} is worse than in {name} {change.over}"
    elif is_worse(change) and (margin is None or change.low < -margin):
        passed, words = False, f"{change.target} is worse than in {name} by {change.size}"
    elif margin is not None:
        passed = change.low >= -margin
        known = "is not" if passed else "may be"
        words = f"{change.target} {known} worse than in {name} by more than {margin:g}: {change.evidence}"
    else:
        passed, words = True, f"{change.target} is not measurably worse than in {name}: {change.evidence}"
    return Checked("--not-worse-than", passed, words, change.difference, low, high, _lowest(margin))


def _lowest(margin: float | None) -> float:
    """Return the lowest difference that passes; 0.0 and not -0.0."""
    return -margin if margin else 0.0


def _threshold(rows: Sequence[Row], one: Threshold, how: Resampling, confident: bool) -> Checked:
    flag = f"--min-{one.measure}"
    pairs = [(value, prompt_of(row)) for row in rows if (value := number(row, one.column)) is not None]
    if not pairs:
        return Checked(flag, False, f"no row has a value of {one.column}", limit=one.limit)
    values = [value for value, _ in pairs]
    prompts = [prompt or place for place, (_, prompt) in enumerate(pairs)]
    match one.measure:
        case "mean":
            found = mean_interval(values, prompts, how)
        case "quantile":
            found = quantile_interval(values, one.at, prompts, how)
        case "share":
            found = share_interval([value >= one.at for value in values], prompts, how)
    known = found.undefined is None
    passed = found.low >= one.limit if confident and known else found.value >= one.limit and not confident
    unit = unit_of(sum(bool(prompt) for _, prompt in pairs), len(pairs))
    words = f"{_measured(one, found, unit, len(rows) - len(pairs))}, {_compared(one, found, passed)}"
    low, high = (found.low, found.high) if known else (None, None)
    return Checked(flag, passed, words, found.value, low, high, one.limit)


def _measured(one: Threshold, found: Interval, unit: str, without: int) -> str:
    is_share = one.measure == "share"

    def form(value: float) -> str:
        return _percent(value, one.limit) if is_share else _plain(value, one.limit)

    over = f"over {found.groups:,} {plural_of(unit) if found.groups != 1 else unit}"
    ends = f"{100 * found.level:g} % {form(found.low)} to {form(found.high)} {over}"
    evidence = ends if found.undefined is None else f"{over}, too few for an interval"
    left = f"; {without:,} without it left out" if without else ""
    match one.measure:
        case "mean":
            start = f"mean {one.column} is {form(found.value)}"
        case "quantile":
            start = f"the {100 * one.at:g} % quantile of {one.column} is {form(found.value)}"
        case "share":
            start = f"{form(found.value)} of the images reach {one.column} {one.at:g}"
    return f"{start} ({evidence}{left})"


def _compared(one: Threshold, found: Interval, passed: bool) -> str:
    limit = f"{100 * one.limit:g} %" if one.measure == "share" else f"{one.limit:g}"
    if passed:
        return f"at least {limit}"
    if found.value < one.limit:
        return f"below {limit}"
    return f"but not certainly at least {limit}"


def _plain(value: float, limit: float) -> str:
    """Return a number with two decimals, or with as many as show on which side of the limit it is."""
    forms = [f"{value:z.{digits}f}" for digits in (2, 3, 4, 6)]
    return next((words for words in forms if (float(words) >= limit) == (value >= limit)), repr(value))


def _percent(share: float, limit: float) -> str:
    return f"{_plain(100 * share, 100 * limit).removesuffix('.00')} %"


def _finite(words: str) -> float | None:
    try:
        value = float(words)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
