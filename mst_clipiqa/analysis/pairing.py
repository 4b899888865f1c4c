"""Two tables of scores -> the values to compare: paired by prompt, paired by file name, or not paired."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.analysis.rows import Row, files_of, numbers, prompts_of, text, texts
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.means import mean_differences, unpaired_difference
from mst_clipiqa.evaluate.measures import Floats
from mst_clipiqa.evaluate.resampling import Interval, Resampling
from mst_clipiqa.tables.spelling import composed

Pairing = Literal["prompt", "file", "none"]
Key: TypeAlias = tuple[str, ...]
"""A prompt or file, and the cells of the further columns that a pair must share."""
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class PairBy:
    """What makes a pair of two tables' rows.

    Attributes:
        first: "prompt", "file" or "none"; None for what the tables have in common.
        also: further columns that a pair must share, such as ("seed",). A prompt still counts once, with the mean of
            its pairs.
    """

    first: Pairing | None = None
    also: tuple[str, ...] = ()


WHAT_THEY_SHARE = PairBy()


@dataclass(frozen=True)
class Keys:
    """What names the values of two tables.

    Attributes:
        old, new: int (rows,), the number of each row's key; -1 for a row without one.
        names: int (keys,), the number of each key's prompt or file; keys of one prompt have the same.
    """

    old: Ints
    new: Ints
    names: Ints


@dataclass(frozen=True)
class Side:
    """The values of one table, one per prompt or image, in the order of their first rows.

    Attributes:
        keys: int (n,), the number of each value's prompt, or image without a prompt, and what else a pair shares.
        values: float (n,), the mean score of its rows.
        prompts: how many of the keys are of prompts.
    """

    keys: Ints
    values: Floats
    prompts: int

    @property
    def mean(self) -> float:
        """Return the mean of the values."""
        return math.fsum(self.values) / len(self.values)


def choose_pairing(old: Sequence[Row], new: Sequence[Row], folders: tuple[str, str]) -> Pairing:
    """Return "prompt" if the tables share prompts, "file" if prompts cannot tell but names are shared, else "none".

    Where both tables have prompts and share none, equal names are of different prompts and do not make pairs.

    Args:
        old, new: rows that have been scored.
        folders: what ``folders_of`` returns for all rows of the tables.
    """
    before, after = ({*prompts_of(rows)} - {""} for rows in (old, new))
    if before & after:
        return "prompt"
    if before and after:
        return "none"
    first, second = ({*names_in(rows, top)} - {""} for rows, top in zip((old, new), folders, strict=True))
    return "file" if first & second else "none"


def nothing_in_common(old: Sequence[Row], new: Sequence[Row], also: Sequence[str]) -> DataError:
    """Return the error of tables that share neither prompts nor file names."""
    counts = [len({*prompts_of(rows)} - {""}) for rows in (old, new)]
    what = "prompts" if all(counts) else "prompts or file names"
    way_out = "leave out --pair-by" if also else "compare the means with --unpaired"
    return DataError(
        f"Expected two tables with scored {what} in common, got {counts[0]:,} and {counts[1]:,} prompts and none in "
        f"both: give two tables of the same prompts, or {way_out}."
    )


def nothing_scored(targets: Sequence[str], chosen: Pairing, also: Sequence[str]) -> DataError:
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


def folders_of(old: Sequence[Row], new: Sequence[Row]) -> tuple[str, str]:
    """Return the deepest folder that all files of each table are in; empty if there is none.

    Failed rows count too: which folder it is must not depend on which images failed. Absolute and relative names in one
    table have no folder in common; then the names of the other table are compared whole, too.
    """
    before, after = _common_folder(old), _common_folder(new)
    return ("", "") if before is None or after is None else (before, after)


def _common_folder(rows: Sequence[Row]) -> str | None:
    # Of many files in one folder, one is taken apart: that is slow.
    files = map(PurePosixPath, {_beside(file): file for file in map(composed, files_of(rows))}.values())
    folders = [str(file.parent) for file in files if file.name]
    if len({folder.startswith("/") for folder in folders}) > 1:
        return None
    return posixpath.commonpath(folders) if folders else ""


def names_in(rows: Sequence[Row], folder: str) -> list[str]:
    """Return the file of each row below the folder, or whole if it is elsewhere; empty if the row names no file."""
    return [_below(file, folder) for file in files_of(rows)]


def _below(file: str, folder: str) -> str:
    path = PurePosixPath(composed(file))  # macOS may take accents apart
    if not path.name:
        return ""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _beside(file: str) -> tuple[str, str, bool]:
    """Return a key that files have in common if and only if they are in one folder."""
    folder, slash, name = file.rpartition("/")
    return folder, slash, name in ("", ".")  # in "a/b/" and "a/b/." the file is b


def unit_of(prompts: int, values: int) -> str:
    """Return the unit of the values: "prompt" if all are of prompts, "image" if none is, else "prompt or image"."""
    return "prompt" if prompts == values else "prompt or image" if prompts else "image"


def plural_of(unit: str) -> str:
    """Return the plural of what ``unit_of`` returns."""
    return " or ".join(f"{noun}s" for noun in unit.split(" or "))


def shared_by(row: Row, columns: Sequence[str]) -> Key:
    """Return the cells of these columns, which both rows of a pair share."""
    return tuple(text(row, column) for column in columns)


def number_keys(
    tables: tuple[Sequence[Row], Sequence[Row]], pairing: Pairing, folders: tuple[str, str], also: Sequence[str] = ()
) -> Keys:
    """Return the keys of the rows of two tables.

    Args:
        tables: rows that have been scored.
        pairing: what names a value: the prompt, the file or, for "none", the prompt or else the row itself.
        folders: what ``folders_of`` returns for all rows of the tables.
        also: further columns that a pair must share.
    """
    numbering: dict[Key, int] = {}
    sides = []
    for rows, folder in zip(tables, folders, strict=True):
        keys = zip(_names(rows, pairing, folder), *(texts(rows, column) for column in also), strict=True)
        sides.append([numbering.setdefault(key, len(numbering)) if key[0] else -1 for key in keys])
    names: dict[str, int] = {}
    of_keys = [names.setdefault(key[0], len(names)) for key in numbering]
    return Keys(*(np.array(some, np.int64) for some in (*sides, of_keys)))


def _names(rows: Sequence[Row], pairing: Pairing, folder: str) -> list[str]:
    if pairing == "file":
        return names_in(rows, folder)
    prompts = prompts_of(rows)
    return prompts if pairing == "prompt" else [prompt or f"\0{place}" for place, prompt in enumerate(prompts)]


def side_of(rows: Sequence[Row], target: str, keys: Ints, pairing: Pairing) -> Side:
    """Return the values of a score in one table.

    Args:
        rows: rows that have been scored.
        target: the score; rows without it are left out.
        keys: int (rows,), of ``number_keys``; rows without a key are left out.
        pairing: what names a value.
    """
    values = np.array(numbers(rows, target), np.float64)
    used = np.flatnonzero(~np.isnan(values) & (keys >= 0))
    first, means = _means(values[used], keys[used])
    prompts = prompts_of(rows) if pairing == "none" else ()
    count = sum(bool(prompts[place]) for place in used[first]) if prompts else len(first) * (pairing == "prompt")
    return Side(keys[used][first], means, count)


def pair_sides(old: Side, new: Side, pairing: Pairing, names: Ints) -> tuple[Side, Side] | None:
    """Return the values of each side that are compared; None if there are none.

    The pairs of a prompt count once, with their mean. Without pairs, all values are compared.

    Args:
        old, new: the values of two tables.
        pairing: what names a value.
        names: of the ``Keys``.
    """
    if pairing == "none":
        return (old, new) if len(old.values) and len(new.values) else None
    places = np.full(len(names), -1)
    places[new.keys] = np.arange(len(new.keys))
    places = places[old.keys]
    shared = places >= 0
    if not shared.any():
        return None
    both = names[old.keys[shared]]
    (first, before), (_, after) = (_means(some, both) for some in (old.values[shared], new.values[places[shared]]))
    prompts = len(first) if pairing == "prompt" else 0
    return Side(both[first], before, prompts), Side(both[first], after, prompts)


def differences_of(sides: Sequence[tuple[Side, Side]], pairing: Pairing, resampling: Resampling) -> list[Interval]:
    """Return the interval of new - old for each of some compared sides, old and new.

    The pairs of a prompt are resampled together. Without pairs, the prompts (or images) of both sides are resampled
    independently.
    """
    if pairing == "none":
        return [unpaired_difference(old.values, new.values, resampling) for old, new in sides]
    by_count: dict[int, list[int]] = {}  # those over as many prompts, as nearly always, share their resamples
    for place, (old, _) in enumerate(sides):
        by_count.setdefault(len(old.values), []).append(place)
    found: dict[int, Interval] = {}
    for places in by_count.values():
        gaps = [sides[place][1].values - sides[place][0].values for place in places]
        found |= zip(places, mean_differences(gaps, resampling=resampling), strict=True)
    return [found[place] for place in range(len(sides))]


def _means(values: Floats, keys: Ints) -> tuple[Ints, Floats]:
    """Return the place of each key's first value, in order, and the mean of its values."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    cells = values[order].tolist()
    means = np.array([math.fsum(cells[a:b]) / (b - a) for a, b in pairwise([*starts.tolist(), len(cells)])])
    first = order[starts]
    by_place = np.argsort(first)
    return first[by_place], means[by_place]
