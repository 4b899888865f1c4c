"""Two tables of scores -> the values to compare: paired by prompt, paired by file name, or not paired."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from mst_clipiqa.analysis.rows import Row, file_of, means_by_key, number, prompt_of, text
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.means import mean_interval, unpaired_difference
from mst_clipiqa.evaluate.resampling import Interval, Resampling
from mst_clipiqa.tables.spelling import composed

Pairing = Literal["prompt", "file", "none"]
Key: TypeAlias = tuple[str, ...]
"""A prompt or file, and the cells of the further columns that a pair must share."""


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
class Side:
    """The values of one table, one per prompt or image.

    Attributes:
        values: prompt, or name of an image without a prompt, and what else a pair shares -> the mean score of its rows.
        prompts: how many of the keys are of prompts.
    """

    values: dict[Key, float]
    prompts: int

    @property
    def mean(self) -> float:
        """Return the mean of the values."""
        return math.fsum(self.values.values()) / len(self.values)


def choose_pairing(old: Sequence[Row], new: Sequence[Row], folders: tuple[str, str]) -> Pairing:
    """Return "prompt" if the tables share prompts, "file" if prompts cannot tell but names are shared, else "none".

    Where both tables have prompts and share none, equal names are of different prompts and do not make pairs.

    Args:
        old, new: rows that have been scored.
        folders: what ``folder_of`` returns for all rows of each table.
    """
    before, after = ({prompt_of(row) for row in rows} - {""} for rows in (old, new))
    if before & after:
        return "prompt"
    if before and after:
        return "none"
    first, second = ({name_in(row, top) for row in rows} - {""} for rows, top in zip((old, new), folders, strict=True))
    return "file" if first & second else "none"


def nothing_in_common(old: Sequence[Row], new: Sequence[Row], also: Sequence[str]) -> DataError:
    """Return the error of tables that share neither prompts nor file names."""
    counts = [len({prompt_of(row) for row in rows} - {""}) for rows in (old, new)]
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


def folder_of(rows: Sequence[Row]) -> str:
    """Return the deepest folder that all files of a table are in; empty if there is none.

    Failed rows count too: which folder it is must not depend on which images failed.
    """
    # Of many files in one folder, one is taken apart: that is slow.
    files = map(PurePosixPath, {_beside(file): file for file in map(_name, rows)}.values())
    folders = [str(file.parent) for file in files if file.name]
    mixed = len({folder.startswith("/") for folder in folders}) != 1  # of these, or of none, there is no common folder
    return "" if mixed else posixpath.commonpath(folders)


def name_in(row: Row, folder: str) -> str:
    """Return the file of a row below the folder; empty if the row names no file."""
    file = PurePosixPath(_name(row))
    return str(file.relative_to(folder)) if file.name else ""


def _name(row: Row) -> str:
    return composed(file_of(row))  # macOS may take accents apart


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


def side_of(rows: Sequence[Row], target: str, pairing: Pairing, folder: str, also: Sequence[str] = ()) -> Side:
    """Return the values of a score in one table.

    Args:
        rows: rows that have been scored.
        target: the score; rows without it are left out.
        pairing: what names a value: the prompt, the file or, for "none", the prompt or else the row itself.
        folder: what ``folder_of`` returns for all rows of the table.
        also: further columns that a pair must share.
    """
    values: list[tuple[Key, float]] = []
    of_prompts: set[Key] = set()
    for place, row in enumerate(rows):
        value = number(row, target)
        if value is None:
            continue
        prompt = prompt_of(row)
        name = name_in(row, folder) if pairing == "file" else prompt
        if pairing == "none" and not prompt:
            name = f"\0{place}"
        if not name:
            continue
        key = (name, *shared_by(row, also)) if also else (name,)
        values.append((key, value))
        if prompt and pairing != "file":
            of_prompts.add(key)
    return Side(means_by_key(values), len(of_prompts))


def difference_of_sides(
    old: Side, new: Side, pairing: Pairing, resampling: Resampling
) -> tuple[Side, Side, Interval] | None:
    """Return the values that are compared of each side, and the interval of new - old; None if there are none.

    The pairs of a prompt count once, with their mean, and are resampled together. Without pairs, the prompts (or
    images) of both sides are resampled independently.
    """
    if pairing == "none":
        if not (old.values and new.values):
            return None
        gap = unpaired_difference(list(old.values.values()), list(new.values.values()), resampling)
        return old, new, gap
    shared = [key for key in old.values if key in new.values]
    if not shared:
        return None
    before, after = (_by_name(side, shared, pairing) for side in (old, new))
    gap = mean_interval([after.values[name] - before.values[name] for name in before.values], resampling=resampling)
    return before, after, gap


def _by_name(side: Side, keys: Sequence[Key], pairing: Pairing) -> Side:
    """Return a side of these keys alone, with one value per prompt or file: the mean over what its pairs share."""
    values = means_by_key((key[:1], side.values[key]) for key in keys)
    return Side(values, len(values) if pairing == "prompt" else 0)
