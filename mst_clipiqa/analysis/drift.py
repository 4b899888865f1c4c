"""drift: two tables of scores; is the new one better, worse, or no different?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.pairing import (
    WHAT_THEY_SHARE,
    PairBy,
    Pairing,
    choose_pairing,
    difference_of_sides,
    folder_of,
    plural_of,
    shared_by,
    side_of,
    unit_of,
)
from mst_clipiqa.analysis.rank import WITHOUT_PROMPT
from mst_clipiqa.analysis.rows import LeftOut, Row, models_of, need_columns, number, prompt_of, split_failed, text
from mst_clipiqa.analysis.unfamiliar import Unfamiliar, count_unfamiliar
from mst_clipiqa.analysis.verdict import decimals, interval_cells, verdict_of, written
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling


@dataclass(frozen=True)
class Change:
    """How one score changed from one table to the other.

    Attributes:
        target: which score.
        group: the generator or category; empty for all rows.
        pairing: how the tables were paired: by "prompt", by "file", or "none".
        unit: what counts once: "prompt", however many images it has, "image", or "prompt or image" if only some images
            have a prompt.
        old_count, new_count: how many of these were compared; the same number if they are paired.
        old, new: mean score over them.
        difference: new - old.
        low, high: interval of the difference over resampled prompts or images; NaN with fewer than two.
        level: the confidence level, such as 0.95.
        also: further columns that a pair shares, such as ("seed",).
        old_unfamiliar, new_unfamiliar: how many of the images are unlike the training images; a share of about 0.05
            is to be expected. None if unknown.
    """

    target: str
    group: str
    pairing: Pairing
    unit: str
    old_count: int
    new_count: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    level: float
    also: tuple[str, ...] = ()
    old_unfamiliar: Unfamiliar | None = None
    new_unfamiliar: Unfamiliar | None = None

    @property
    def verdict(self) -> str:
        """Return "better", "worse", "no difference", or "unknown" if there is no interval."""
        return verdict_of(self.low, self.high)

    @property
    def over(self) -> str:
        """Return in words what was compared: "over 48 prompts"."""
        if self.pairing == "none":
            units = plural_of(self.unit)
            return f"over {self.old_count:,} old and {self.new_count:,} new {units} that are not paired"
        name = plural_of(self.unit) if self.new_count != 1 else self.unit
        found = f"over {self.new_count:,} {name}" + (" of the same name" if self.unit == "image" else "")
        return found + (f", paired by {' and '.join(self.also)}" if self.also else "")

    @property
    def evidence(self) -> str:
        """Return the difference in words, with its interval and what was compared."""
        return f"{written(self.difference, self.low, self.high, self.level)} {self.over}"

    def sentence(self) -> str:
        """Return the change in words."""
        who = f"{self.group}: new" if self.group else "New"
        if self.verdict == "unknown":
            minus = f"{self.difference:z.{decimals(self.difference)}f}"
            return f"{who} minus old is {minus} in {self.target} {self.over}, too few for an interval."
        if self.verdict == "no difference":
            return f"{who} and old do not differ measurably in {self.target}: {self.evidence}."
        return f"{who} is {self.verdict} in {self.target} by {self.size}."

    @property
    def size(self) -> str:
        """Return the absolute difference in words, as ``evidence`` does."""
        low, high = (self.low, self.high) if self.difference > 0 else (-self.high, -self.low)
        return f"{written(abs(self.difference), low, high, self.level)} {self.over}"

    def to_row(self) -> dict[str, Any]:
        """Return the change as a row of a table; an undefined interval is empty."""
        return {
            "target": self.target,
            "group": self.group or None,
            "paired_by": ",".join((self.pairing, *self.also)),
            "unit": self.unit,
            "old_count": self.old_count,
            "new_count": self.new_count,
            "old": self.old,
            "new": self.new,
            "difference": self.difference,
            **interval_cells(self.low, self.high, self.verdict),
            "old_unfamiliar_share": self.old_unfamiliar and self.old_unfamiliar.share,
            "new_unfamiliar_share": self.new_unfamiliar and self.new_unfamiliar.share,
        }


@dataclass(frozen=True)
class Drift:
    """All changes, and what was not compared.

    Attributes:
        changes: overall first, then group by group.
        only_old, only_new: prompts that the other table does not have, with what else a pair shares, in order; empty
            unless prompts are paired.
        lone_groups: generators or categories that only one table has, or without anything to compare.
        lost: scores that the old table has and nothing in the new one can be compared with.
        left_out: failed rows of both tables and, if prompts are paired, rows without one.
        models: the models named in the two tables; scores of different models do not compare.
    """

    changes: list[Change]
    only_old: list[str]
    only_new: list[str]
    lone_groups: list[str]
    lost: list[str]
    left_out: list[LeftOut]
    models: list[str]


def drift(
    old: Sequence[Row],
    new: Sequence[Row],
    targets: Sequence[str] = TARGETS,
    by: Sequence[str] = (),
    how: Resampling = DEFAULT,
    pair_by: PairBy = WHAT_THEY_SHARE,
) -> Drift:
    """Compare two tables of scores.

    Tables with prompts in common are paired by prompt: the score of a prompt is the mean over its images, the
    difference is the mean over prompts, and the interval resamples prompts (``means.py``). Without prompts, tables are
    paired by file in the same way. Frames of one image count once. If ``pair_by`` is "none", the means over each
    table's prompts are compared, and the prompts of both tables are resampled independently.

    Args:
        old, new: rows of the two tables of scores.
        targets: scores to compare; one that is missing from either table is left out, and named if only the old one
            has it.
        by: columns that divide the rows into groups ("generator"); each group is also compared on its own.
        how: level, resamples and seed.
        pair_by: what makes a pair.

    Raises:
        UsageError: a table lacks a column of ``by`` or ``pair_by``, or there are such columns but no pairs.
        DataError: there is nothing to compare, or a cell is not a number where one is needed.
    """
    also = pair_by.also
    _check(old, new, by, pair_by)
    (good_old, left_old), (good_new, left_new) = split_failed(old), split_failed(new)
    folders = folder_of(old), folder_of(new)
    chosen = pair_by.first or choose_pairing(good_old, good_new, folders)
    if pair_by.first is None and chosen == "none":
        raise _nothing_in_common(good_old, good_new, also)
    before, after = (_in_order(_named(row, also) for row in rows if prompt_of(row)) for rows in (good_old, good_new))
    tables = _Tables(mean_of_frames(good_old, targets), mean_of_frames(good_new, targets), folders, also)
    changes = _changes(tables, targets, "", how, chosen)
    if not changes:
        raise _nothing_scored(targets, chosen, also)
    compared = {change.target for change in changes}
    lost = [t for t in targets if t not in compared and any(number(row, t) is not None for row in good_old)]
    lone = []
    for column, group in _groups((*good_old, *good_new), by):
        name = group or f"no {column}"
        found = _changes(tables.only(column, group), targets, name, how, chosen)
        changes += found
        lone += [] if found else [name]
    by_prompt = chosen == "prompt"
    silent = [LeftOut(row, WITHOUT_PROMPT) for row in (*good_old, *good_new) if by_prompt and not prompt_of(row)]
    return Drift(
        changes,
        _without(before, after) if by_prompt else [],
        _without(after, before) if by_prompt else [],
        lone,
        lost,
        [*left_old, *left_new, *silent],
        models_of((*good_old, *good_new)),
    )


def _check(old: Sequence[Row], new: Sequence[Row], by: Sequence[str], pair_by: PairBy) -> None:
    """Check the arguments of ``drift``, which lists the errors."""
    if pair_by.first == "none" and pair_by.also:
        raise UsageError("Expected no --pair-by beside --unpaired, which makes no pairs: drop one.")
    for rows in (old, new):
        need_columns(rows, (*by, *pair_by.also))


def _nothing_scored(targets: Sequence[str], chosen: Pairing, also: Sequence[str]) -> DataError:
    """Return the error of tables whose pairs have no scores."""
    if also:
        return DataError(
            f"Expected scored rows of the same {' and '.join((chosen, *also))} in both tables, got none: give other "
            "columns for --pair-by, or leave it out."
        )
    return DataError(
        f"Expected values of {' or '.join(targets)} in both tables for what they have in common, got none: give "
        "two tables with the same scores."
    )


def _groups(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[str, str]]:
    """Return each column and each of its values, in order."""
    return [(column, group) for column in by for group in _in_order(text(row, column) for row in rows)]


def _named(row: Row, also: Sequence[str]) -> str:
    """Return the prompt of a row and what else its pair shares: "a red fox, seed 3"."""
    shared = zip(also, shared_by(row, also), strict=True)
    return ", ".join((prompt_of(row), *(f"{column} {cell}" for column, cell in shared)))


def _nothing_in_common(old: Sequence[Row], new: Sequence[Row], also: Sequence[str]) -> DataError:
    counts = [len({prompt_of(row) for row in rows} - {""}) for rows in (old, new)]
    what = "prompts" if all(counts) else "prompts or file names"
    way_out = "leave out --pair-by" if also else "compare the means with --unpaired"
    return DataError(
        f"Expected two tables with scored {what} in common, got {counts[0]:,} and {counts[1]:,} prompts and none in "
        f"both: give two tables of the same prompts, or {way_out}."
    )


def _in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _without(values: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [value for value in values if value not in known]


@dataclass(frozen=True)
class _Tables:
    """Scored rows of two tables, frames as one row, the folder of each whole table, and what a pair shares."""

    old: Sequence[Row]
    new: Sequence[Row]
    folders: tuple[str, str]
    also: tuple[str, ...]

    def only(self, column: str, group: str) -> _Tables:
        old, new = ([row for row in rows if text(row, column) == group] for rows in (self.old, self.new))
        return _Tables(old, new, self.folders, self.also)


def _changes(tables: _Tables, targets: Sequence[str], group: str, how: Resampling, pairing: Pairing) -> list[Change]:
    found = []
    strange = count_unfamiliar(tables.old), count_unfamiliar(tables.new)
    for target in targets:
        tops = zip((tables.old, tables.new), tables.folders, strict=True)
        old, new = (side_of(rows, target, pairing, top, tables.also) for rows, top in tops)
        result = difference_of_sides(old, new, pairing, how)
        if result is None:
            continue
        before, after, gap = result
        unit = unit_of(before.prompts + after.prompts, len(before.values) + len(after.values))
        found.append(
            Change(
                target,
                group,
                pairing,
                unit,
                old_count=len(before.values),
                new_count=len(after.values),
                old=before.mean,
                new=after.mean,
                difference=gap.value,
                low=gap.low,
                high=gap.high,
                level=gap.level,
                old_unfamiliar=strange[0],
                new_unfamiliar=strange[1],
                also=tables.also,
            )
        )
    return found
