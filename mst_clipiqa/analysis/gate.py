"""gate: conditions on a whole table of scores: failures, scored rows, and not worse than an older table.

Those on means, quantiles and shares are in ``thresholds.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.drift import drift
from mst_clipiqa.analysis.pairing import PairBy, choose_pairing, folders_of
from mst_clipiqa.analysis.rows import Row, models_of, need_one_model, number, split_failed
from mst_clipiqa.data.sets import RATED_TARGETS
from mst_clipiqa.errors import UsageError, counted, shown
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling


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


def check_scored(rows: Sequence[Row], least: int, columns: Sequence[str] = ()) -> Checked:
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
    resampling: Resampling = DEFAULT,
    *,
    margin: float | None = None,
    also: Sequence[str] = (),
) -> list[Checked]:
    """Check that a table is not worse than an older one, score by score.

    Prompts that are in both are compared; without prompts, files of the same name; else the means of both tables. A
    score that only the older table has fails, as do all of them if nothing in the new one is scored.

    Args:
        old, new: rows of the two tables.
        name: what to call the older table.
        resampling: level, resamples and seed of the interval of the difference.
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
    first = None if also else choose_pairing(*good, folders_of(old, new))
    compared = drift(old, new, TARGETS, resampling=resampling, pair_by=PairBy(first, tuple(also)))
    sentences = [f"nothing can be compared with the {target} in {name}" for target in compared.lost]
    return [
        *(_not_worse(change, name, margin) for change in compared.changes),
        *(Checked("--not-worse-than", False, sentence, limit=_lowest(margin)) for sentence in sentences),
    ]


def is_worse(change: Change) -> bool:
    """Return whether a change is measurably for the worse, or there is too little to know that it is not."""
    return change.verdict in ("worse", "unknown")


def _not_worse(change: Change, name: str, margin: float | None) -> Checked:
    low, high = (None, None) if math.isnan(change.low) else (change.low, change.high)
    if change.verdict == "unknown":
        passed = False
        words = f"unknown whether {change.target} is worse than in {name}: {change.over}, too few for an interval"
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
