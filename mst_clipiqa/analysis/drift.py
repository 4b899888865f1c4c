"""drift: two tables of scores; is the new one better, worse, or no different?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from mst_clipiqa.analysis.both_tables import BothTables
from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.pairing import (
    WHAT_THEY_SHARE,
    PairBy,
    choose_pairing,
    folders_of,
    nothing_in_common,
    nothing_scored,
)
from mst_clipiqa.analysis.rank import WITHOUT_PROMPT
from mst_clipiqa.analysis.rows import (
    LeftOut,
    Row,
    models_of,
    need_columns,
    number,
    numbers,
    prompts_of,
    split_failed,
    texts,
)
from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling
from mst_clipiqa.tables.columns import Table

WITHOUT_SCORE = "no score to compare"


@dataclass(frozen=True)
class Drift:
    """All changes, and what was not compared.

    Attributes:
        changes: overall first, then group by group; empty if only the old table has scores.
        only_old, only_new: prompts that the other table does not have, with what else a pair shares, in order; empty
            unless prompts are paired.
        lone_groups: generators or categories that only one table has, or without anything to compare.
        lost: scores that the old table has and nothing in the new one can be compared with.
        left_out: failed rows of both tables, rows without any score and, if prompts are paired, rows without one.
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
    old, new = Table.of(old), Table.of(new)
    _check(old, new, by, pair_by)
    (good_old, left_old), (good_new, left_new) = split_failed(old), split_failed(new)
    had, has = (_scored(rows, targets) for rows in (good_old, good_new))
    if had and not has:  # nothing to pair, as when every new image failed
        return Drift([], [], [], [], had, [*left_old, *left_new], models_of(good_old))
    folders = folders_of(old, new)
    chosen = pair_by.first or choose_pairing(good_old, good_new, folders)
    if pair_by.first is None and chosen == "none":
        raise nothing_in_common(good_old, good_new, also)
    merged = mean_of_frames(good_old, targets), mean_of_frames(good_new, targets)
    both = BothTables(*merged, chosen, folders, also)
    compared = both.compared(targets)
    if not compared:
        raise nothing_scored(targets, chosen, also)
    lost = [target for target in had if target not in {one.target for one in compared}]
    lone = []
    for column, group in _groups((good_old, good_new), by):
        name = group or f"no {column}"
        of_group = both.only(column, group).compared(targets, name)
        compared += of_group
        lone += [] if of_group else [name]
    only_old, only_new = _not_in_both(good_old, good_new, also) if chosen == "prompt" else ([], [])
    names = list(dict.fromkeys(one.target for one in compared))
    by_prompt = chosen == "prompt"
    unused = [one for rows in (good_old, good_new) for one in split_unused(rows, names, needs_prompt=by_prompt)[1]]
    return Drift(
        both.changes(compared, resampling),
        only_old,
        only_new,
        lone,
        lost,
        [*left_old, *left_new, *unused],
        sorted({*models_of(good_old), *models_of(good_new)}),
    )


def split_unused(rows: Table, targets: Sequence[str], *, needs_prompt: bool) -> tuple[Table, list[LeftOut]]:
    """Return the scored rows that count, and those that count for nothing, each in order.

    Args:
        rows: scored rows.
        targets: the scores that are compared; a row without any of them does not count.
        needs_prompt: whether a row without a prompt does not count either.
    """
    columns = [numbers(rows, target) for target in targets]
    used, unused = [], []
    for place, prompt in enumerate(prompts_of(rows)):
        if needs_prompt and not prompt:
            unused.append(LeftOut(rows[place], WITHOUT_PROMPT))
        elif all(math.isnan(column[place]) for column in columns):
            unused.append(LeftOut(rows[place], WITHOUT_SCORE))
        else:
            used.append(place)
    return rows.take(used), unused


def _check(old: Sequence[Row], new: Sequence[Row], by: Sequence[str], pair_by: PairBy) -> None:
    """Check the arguments of ``drift``, which lists the errors."""
    if pair_by.first == "none" and pair_by.also:
        raise UsageError("Expected no --pair-by beside --unpaired, which makes no pairs: drop one.")
    for rows in (old, new):
        need_columns(rows, (*by, *pair_by.also))


def _scored(rows: Sequence[Row], targets: Sequence[str]) -> list[str]:
    return [target for target in targets if any(number(row, target) is not None for row in rows)]


def _groups(tables: Sequence[Table], by: Sequence[str]) -> list[tuple[str, str]]:
    """Return each column and each of its values, in order."""
    return [(column, group) for column in by for group in _in_order(chain(*(texts(t, column) for t in tables)))]


def _not_in_both(old: Table, new: Table, also: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the prompts of only the old table, and those of only the new one."""
    before, after = (_in_order(_named(rows, also)) for rows in (old, new))
    return _without(before, after), _without(after, before)


def _named(rows: Table, also: Sequence[str]) -> Iterator[str]:
    """Yield the prompt of each row that has one, and what else its pair shares: "a red fox, seed 3"."""
    shared = ([f"{column} {cell}" for cell in texts(rows, column)] for column in also)
    return (", ".join(words) for words in zip(prompts_of(rows), *shared, strict=True) if words[0])


def _in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _without(values: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [value for value in values if value not in known]
