"""Two tables of scores -> the values to compare: paired by prompt, paired by file name, or not paired."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from mst_clipiqa.analysis.rows import Row, number, text
from mst_clipiqa.evaluate.means import mean_interval, unpaired_difference
from mst_clipiqa.evaluate.resampling import Interval, Resampling

Pairing = Literal["prompt", "file", "none"]


@dataclass(frozen=True)
class Side:
    """The values of one table, one per prompt or image.

    Attributes:
        values: prompt, or name of an image without a prompt -> the mean score of its rows.
        prompts: how many of the names are prompts.
    """

    values: dict[str, float]
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


def prompt_of(row: Row) -> str:
    """Return the prompt of a row without spaces around it; empty if there is none."""
    return text(row, "prompt").strip()


def folder_of(rows: Sequence[Row]) -> str:
    """Return the deepest folder that all files of a table are in; empty if there is none.

    Failed rows count too: which folder it is must not depend on which images failed.
    """
    files = map(_path, rows)
    folders = [str(file.parent) for file in files if file.name]
    mixed = len({folder.startswith("/") for folder in folders}) != 1  # of these, or of none, there is no common folder
    return "" if mixed else os.path.commonpath(folders)


def name_in(row: Row, folder: str) -> str:
    """Return the file of a row below the folder; empty if the row names no file."""
    file = _path(row)
    return str(file.relative_to(folder)) if file.name else ""


def _path(row: Row) -> PurePosixPath:
    return PurePosixPath(text(row, "file").replace("\\", "/"))


def unit_of(prompts: int, values: int) -> str:
    """Return what some values are of, if so many of them are of prompts: "prompt", "image", or "prompt or image"."""
    return "prompt" if prompts == values else "prompt or image" if prompts else "image"


def plural_of(unit: str) -> str:
    """Return the plural of what ``unit_of`` returns."""
    return " or ".join(f"{one}s" for one in unit.split(" or "))


def side_of(rows: Sequence[Row], target: str, pairing: Pairing, folder: str) -> Side:
    """Return the values of a score in one table.

    Args:
        rows: rows that have been scored.
        target: the score; rows without it are left out.
        pairing: what names a value: the prompt, the file or, for "none", the prompt or else the row itself.
        folder: what ``folder_of`` returns for all rows of the table.
    """
    values: dict[str, list[float]] = {}
    prompts = set()
    for place, row in enumerate(rows):
        value, prompt = number(row, target), prompt_of(row)
        name = {"prompt": prompt, "file": name_in(row, folder), "none": prompt or f"\0{place}"}[pairing]
        if value is None or not name:
            continue
        values.setdefault(name, []).append(value)
        if prompt and pairing != "file":
            prompts.add(name)
    return Side({name: math.fsum(some) / len(some) for name, some in values.items()}, len(prompts))


def difference_of_sides(old: Side, new: Side, pairing: Pairing, how: Resampling) -> tuple[Side, Side, Interval] | None:
    """Return what is compared of each side and the interval of new - old; None if there is nothing to compare.

    Pairs are resampled together. Without pairs, the prompts (or images) of both sides are resampled independently.
    """
    if pairing == "none":
        if not (old.values and new.values):
            return None
        return old, new, unpaired_difference(list(old.values.values()), list(new.values.values()), how=how)
    shared = [name for name in old.values if name in new.values]
    if not shared:
        return None
    count = len(shared) if pairing == "prompt" else 0
    both = [Side({name: side.values[name] for name in shared}, count) for side in (old, new)]
    found = mean_interval([new.values[name] - old.values[name] for name in shared], how=how)
    return both[0], both[1], found
