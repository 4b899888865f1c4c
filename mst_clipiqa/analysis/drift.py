"""drift: two tables of scores paired by prompt; is the new one better, worse, or no different?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mst_clipiqa.analysis.rank import WITHOUT_PROMPT
from mst_clipiqa.analysis.rows import LeftOut, Row, need_columns, number, split_failed, text
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.familiarity import UNFAMILIAR
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling, mean_interval


@dataclass(frozen=True)
class Change:
    """How one score changed over the prompts that both tables have.

    Attributes:
        target: which score.
        group: the generator or category; empty for all rows.
        prompts: paired prompts; each counts once, however many images it has.
        old, new: mean score over these prompts.
        difference: new - old.
        low, high: interval of the difference over resampled prompts; NaN with fewer than two prompts.
        level: the confidence level, such as 0.95.
    """

    target: str
    group: str
    prompts: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    level: float

    @property
    def verdict(self) -> str:
        """Return "better", "worse", "no difference", or "unknown" if there is no interval."""
        if math.isnan(self.low):
            return "unknown"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference"

    def sentence(self) -> str:
        """Return the change in words."""
        who = f"{self.group}: new" if self.group else "New"
        over = f"over {self.prompts:,} prompt{'' if self.prompts == 1 else 's'}"
        if self.verdict == "unknown":
            value = f"{who} minus old is {self.difference:.2f} in {self.target} {over}"
            return f"{value}, too few for an interval."
        bounds = f"({100 * self.level:g} % {self.low:.2f} to {self.high:.2f})"
        if self.verdict == "no difference":
            return f"{who} and old do not differ measurably in {self.target}: {self.difference:.2f} {bounds} {over}."
        return f"{who} is {self.verdict} in {self.target} by {abs(self.difference):.2f} {self._size(bounds)} {over}."

    def _size(self, bounds: str) -> str:
        """Return the bounds of the absolute difference."""
        if self.difference > 0:
            return bounds
        return f"({100 * self.level:g} % {-self.high:.2f} to {-self.low:.2f})"

    def to_row(self) -> dict[str, Any]:
        """Return the change as a row of a table; an undefined interval is empty."""
        known = not math.isnan(self.low)
        return {
            "target": self.target,
            "group": self.group,
            "prompts": self.prompts,
            "old": self.old,
            "new": self.new,
            "difference": self.difference,
            "low": self.low if known else None,
            "high": self.high if known else None,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Drift:
    """All changes, and what could not be paired.

    Attributes:
        changes: overall first, then group by group.
        only_old, only_new: prompts that the other table does not have, in order.
        lone_groups: generators or categories without a paired prompt.
        left_out: failed rows and rows without a prompt, of both tables.
        models: the models named in the two tables; scores of different models do not compare.
        unfamiliar_old, unfamiliar_new: share of images below the 5th percentile of familiarity, 0..1; 0 if unknown.
    """

    changes: list[Change]
    only_old: list[str]
    only_new: list[str]
    lone_groups: list[str]
    left_out: list[LeftOut]
    models: list[str]
    unfamiliar_old: float = 0.0
    unfamiliar_new: float = 0.0


def drift(
    old: Sequence[Row],
    new: Sequence[Row],
    targets: Sequence[str] = ("quality", "correspondence"),
    by: Sequence[str] = (),
    how: Resampling = DEFAULT,
) -> Drift:
    """Compare two tables of scores prompt by prompt.

    A prompt's score is the mean over its images; the difference is the mean over prompts; the interval resamples
    prompts (percentile bootstrap).

    Args:
        old, new: rows of the two tables of scores.
        targets: scores to compare; one that is missing from either table is left out.
        by: columns that divide the rows into groups ("generator"); each group is also compared on its own.
        how: level, resamples and seed.

    Raises:
        UsageError: a table has no prompts, or lacks a column of ``by``.
        DataError: the tables share no prompt, or a cell is not a number where one is needed.
    """
    for rows in (old, new):
        need_columns(rows, ["prompt", *by])
    good_old, left_old = _usable(old)
    good_new, left_new = _usable(new)
    before, after = (_in_order(_prompt(row) for row in rows) for rows in (good_old, good_new))
    changes = _changes(good_old, good_new, targets, "", how)
    if not changes:
        raise _nothing_to_pair(before, after, targets)
    lone = []
    for column in by:
        for group in _in_order(text(row, column) for row in (*good_old, *good_new)):
            pair = [[row for row in rows if text(row, column) == group] for rows in (good_old, good_new)]
            found = _changes(pair[0], pair[1], targets, group or f"no {column}", how)
            changes += found
            lone += [] if found else [group or f"no {column}"]
    return Drift(
        changes,
        _without(before, after),
        _without(after, before),
        lone,
        left_old + left_new,
        sorted({model for row in (*good_old, *good_new) if (model := text(row, "model"))}),
        _unfamiliar(good_old),
        _unfamiliar(good_new),
    )


def _unfamiliar(rows: Sequence[Row]) -> float:
    known = [value for row in rows if (value := number(row, "familiarity")) is not None]
    return sum(value < UNFAMILIAR for value in known) / len(known) if known else 0.0


def _nothing_to_pair(before: Sequence[str], after: Sequence[str], targets: Sequence[str]) -> DataError:
    """Return the error that says why no prompt can be compared."""
    shared = len(before) - len(_without(before, after))
    if shared:
        return DataError(
            f"Expected prompts with a value of {' or '.join(targets)} in both tables, got {shared:,} "
            f"prompt{'' if shared == 1 else 's'} in both and none with one: give two tables with the same scores."
        )
    return DataError(
        f"Expected two tables with scored prompts in common, got {len(before):,} and {len(after):,} prompts "
        "and none in both: give two tables with the same prompts."
    )


def _usable(rows: Sequence[Row]) -> tuple[list[Row], list[LeftOut]]:
    good, left = split_failed(rows)
    left += [LeftOut(row, WITHOUT_PROMPT) for row in good if not _prompt(row)]
    return [row for row in good if _prompt(row)], left


def _prompt(row: Row) -> str:
    return text(row, "prompt").strip()


def _in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _without(values: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [value for value in values if value not in known]


def _changes(
    old: Sequence[Row], new: Sequence[Row], targets: Sequence[str], group: str, how: Resampling
) -> list[Change]:
    found = []
    for target in targets:
        before, after = _by_prompt(old, target), _by_prompt(new, target)
        shared = [prompt for prompt in before if prompt in after]
        if not shared:
            continue
        pairs = [(before[prompt], after[prompt]) for prompt in shared]
        result = mean_interval([b - a for a, b in pairs], how=how)
        was, now = (math.fsum(side) / len(shared) for side in zip(*pairs, strict=True))
        change = Change(target, group, len(shared), was, now, result.value, result.low, result.high, result.level)
        found.append(change)
    return found


def _by_prompt(rows: Sequence[Row], target: str) -> dict[str, float]:
    """Return the mean score of each prompt that has one."""
    values: dict[str, list[float]] = {}
    for row in rows:
        value = number(row, target)
        if value is not None:
            values.setdefault(_prompt(row), []).append(value)
    return {prompt: math.fsum(some) / len(some) for prompt, some in values.items()}
