"""gate: conditions on the scores of a table: a mean, a quantile, or the share of images that reach a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.gate import Checked
from mst_clipiqa.analysis.pairing import plural_of, unit_of
from mst_clipiqa.analysis.rows import Row, need_columns, need_one_model, number, prompt_of, split_failed
from mst_clipiqa.errors import UsageError, shown
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
    rows: Sequence[Row], thresholds: Iterable[Threshold], resampling: Resampling = DEFAULT, *, confident: bool = False
) -> list[Checked]:
    """Check conditions on the scored rows of a table, with intervals over prompts.

    Args:
        rows: the table; rows without a score are left out. Frames of one image count once, with their mean.
        thresholds: the conditions.
        resampling: level, resamples and seed of the intervals.
        confident: require the limit of the lower end of the interval, not of the value itself. A condition without an
            interval, for which there are too few images or prompts, then fails.

    Raises:
        UsageError: a column is missing, or the rows are of several models.
        DataError: a cell is not a number where one is needed.
    """
    wanted = list(thresholds)
    columns = list(dict.fromkeys(threshold.column for threshold in wanted))
    need_columns(rows, columns)
    if wanted:
        need_one_model(rows)
    good = mean_of_frames(split_failed(rows)[0], columns)
    return [_threshold(good, threshold, resampling, confident) for threshold in wanted]


def _threshold(rows: Sequence[Row], threshold: Threshold, resampling: Resampling, confident: bool) -> Checked:
    flag = f"--min-{threshold.measure}"
    pairs = [(value, prompt_of(row)) for row in rows if (value := number(row, threshold.column)) is not None]
    if not pairs:
        return Checked(flag, False, f"no row has a value of {threshold.column}", limit=threshold.limit)
    values = [value for value, _ in pairs]
    prompts = [prompt or place for place, (_, prompt) in enumerate(pairs)]
    match threshold.measure:
        case "mean":
            interval = mean_interval(values, prompts, resampling)
        case "quantile":
            interval = quantile_interval(values, threshold.at, prompts, resampling)
        case "share":
            interval = share_interval([value >= threshold.at for value in values], prompts, resampling)
    known = interval.undefined is None
    least = interval.low if confident else interval.value
    passed = least >= threshold.limit and (known or not confident)
    unit = unit_of(sum(bool(prompt) for _, prompt in pairs), len(pairs))
    words = f"{_measured(threshold, interval, unit, len(rows) - len(pairs))}, {_compared(threshold, interval, passed)}"
    low, high = (interval.low, interval.high) if known else (None, None)
    return Checked(flag, passed, words, interval.value, low, high, threshold.limit)


def _measured(threshold: Threshold, interval: Interval, unit: str, without: int) -> str:
    is_share = threshold.measure == "share"

    def form(value: float) -> str:
        return _percent(value, threshold.limit) if is_share else _plain(value, threshold.limit)

    over = f"over {interval.groups:,} {plural_of(unit) if interval.groups != 1 else unit}"
    ends = f"{100 * interval.level:g} % {form(interval.low)} to {form(interval.high)} {over}"
    evidence = ends if interval.undefined is None else f"{over}, too few for an interval"
    left = f"; {without:,} without it left out" if without else ""
    match threshold.measure:
        case "mean":
            start = f"mean {threshold.column} is {form(interval.value)}"
        case "quantile":
            start = f"the {100 * threshold.at:g} % quantile of {threshold.column} is {form(interval.value)}"
        case "share":
            start = f"{form(interval.value)} of the images reach {threshold.column} {threshold.at:g}"
    return f"{start} ({evidence}{left})"


def _compared(threshold: Threshold, interval: Interval, passed: bool) -> str:
    limit = f"{100 * threshold.limit:g} %" if threshold.measure == "share" else f"{threshold.limit:g}"
    if passed:
        return f"at least {limit}"
    if interval.value < threshold.limit:
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
