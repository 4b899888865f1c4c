"""drift: two tables of scores; is the new one better, worse, or no different?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.pairing import (
    WHAT_THEY_SHARE,
    PairBy,
    Pairing,
    choose_pairing,
    difference_of_sides,
    folder_of,
    nothing_in_common,
    nothing_scored,
    shared_by,
    side_of,
    unit_of,
)
from mst_clipiqa.analysis.rank import WITHOUT_PROMPT
from mst_clipiqa.analysis.rows import LeftOut, Row, models_of, need_columns, number, prompt_of, split_failed, text
from mst_clipiqa.analysis.unfamiliar import count_unfamiliar
from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling


@dataclass(frozen=True)
class Drift:
    """All changes, and what was not compared.

    Attributes:
        changes: overall first, then group by group; empty if only the old table has scores.
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
    *,
    by: Sequence[str] = (),
    resampling: Resampling = DEFAULT,
    pair_by: PairBy = WHAT_THEY_SHARE,
) -> Drift:
    """Compare two tables of scores.

    Tables with prompts in common are paired by prompt: the score of a prompt is the mean over its images, the
    difference is the mean over prompts, and the interval resamples prompts (``means.py``). Without prompts, tables are
    paired by file in the same way. Frames of one image count once. If ``pair_by`` is "none", the means over each
    table's prompts are compared, and the prompts of both tables are resampled independently. If nothing in the new
    table is scored, all scores of the old one are lost.

    Args:
        old, new: rows of the two tables of scores.
        targets: scores to compare; one that is missing from either table is left out, and named if only the old one
            has it.
        by: columns that divide the rows into groups ("generator"); each group is also compared on its own.
        resampling: level, resamples and seed.
        pair_by: what makes a pair.

    Raises:
        UsageError: a table lacks a column of ``by`` or ``pair_by``, or there are such columns but no pairs.
        DataError: there is nothing to compare, or a cell is not a number where one is needed.
    """
    also = pair_by.also
    _check(old, new, by, pair_by)
    (good_old, left_old), (good_new, left_new) = split_failed(old), split_failed(new)
    had, has = (_scored(rows, targets) for rows in (good_old, good_new))
    if had and not has:  # nothing to pair, as when every new image failed
        return Drift([], [], [], [], had, [*left_old, *left_new], models_of(good_old))
    folders = folder_of(old), folder_of(new)
    chosen = pair_by.first or choose_pairing(good_old, good_new, folders)
    if pair_by.first is None and chosen == "none":
        raise nothing_in_common(good_old, good_new, also)
    tables = _Tables(mean_of_frames(good_old, targets), mean_of_frames(good_new, targets), folders, also)
    changes = _changes(tables, targets, "", resampling, chosen)
    if not changes:
        raise nothing_scored(targets, chosen, also)
    compared = {change.target for change in changes}
    lost = [target for target in had if target not in compared]
    lone = []
    for column, group in _groups((*good_old, *good_new), by):
        name = group or f"no {column}"
        changes_of_group = _changes(tables.only(column, group), targets, name, resampling, chosen)
        changes += changes_of_group
        lone += [] if changes_of_group else [name]
    by_prompt = chosen == "prompt"
    named = ([row for row in rows if by_prompt and prompt_of(row)] for rows in (good_old, good_new))
    before, after = (_in_order(_named(row, also) for row in rows) for rows in named)
    silent = [LeftOut(row, WITHOUT_PROMPT) for row in (*good_old, *good_new) if by_prompt and not prompt_of(row)]
    return Drift(
        changes,
        _without(before, after),
        _without(after, before),
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


def _scored(rows: Sequence[Row], targets: Sequence[str]) -> list[str]:
    return [target for target in targets if any(number(row, target) is not None for row in rows)]


def _groups(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[str, str]]:
    """Return each column and each of its values, in order."""
    return [(column, group) for column in by for group in _in_order(text(row, column) for row in rows)]


def _named(row: Row, also: Sequence[str]) -> str:
    """Return the prompt of a row and what else its pair shares: "a red fox, seed 3"."""
    if not also:
        return prompt_of(row)
    shared = zip(also, shared_by(row, also), strict=True)
    return ", ".join((prompt_of(row), *(f"{column} {cell}" for column, cell in shared)))


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


def _changes(
    tables: _Tables, targets: Sequence[str], group: str, resampling: Resampling, pairing: Pairing
) -> list[Change]:
    changes = []
    unfamiliar = count_unfamiliar(tables.old), count_unfamiliar(tables.new)
    for target in targets:
        sides = zip((tables.old, tables.new), tables.folders, strict=True)
        old, new = (side_of(rows, target, pairing, folder, tables.also) for rows, folder in sides)
        result = difference_of_sides(old, new, pairing, resampling)
        if result is None:
            continue
        before, after, gap = result
        unit = unit_of(before.prompts + after.prompts, len(before.values) + len(after.values))
        changes.append(
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
                old_unfamiliar=unfamiliar[0],
                new_unfamiliar=unfamiliar[1],
                also=tables.also,
            )
        )
    return changes
