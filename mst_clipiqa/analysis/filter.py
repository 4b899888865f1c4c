"""filter: which rows pass the thresholds, and where their images would go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.analysis.images import NOT_FOUND, ImageFinder, RowImage
from mst_clipiqa.analysis.rows import NO_FILE, LeftOut, Row, need_columns, need_one_model, number, split_failed, text
from mst_clipiqa.errors import UsageError

NOT_MOVED = "its image is inside another file, from which none is removed: copy it"


@dataclass(frozen=True)
class Kept:
    """The rows that pass, how many do not, and the rows without a score."""

    rows: list[Row]
    rejected: int
    left_out: list[LeftOut]


@dataclass(frozen=True)
class TransferPlan:
    """Which file would go where (row, source, target), and the rows without a file."""

    moves: list[tuple[Row, RowImage, Path]]
    left_out: list[LeftOut]


def keep(rows: Sequence[Row], minimum: Mapping[str, float], *, invert: bool = False) -> Kept:
    """Return the rows whose every score is at least its minimum.

    Args:
        rows: rows of a table of scores.
        minimum: column -> lowest score that passes.
        invert: return those that do not pass instead. A row without a score is never returned.

    Raises:
        UsageError: a column is missing, or the rows are of several models.
        DataError: a cell is not a number where one is needed.
    """
    need_columns(rows, minimum)
    if minimum:
        need_one_model(rows)
    good, left = split_failed(rows)
    kept: list[Row] = []
    rejected = 0
    for row in good:
        values = {column: number(row, column) for column in minimum}
        missing = [column for column, value in values.items() if value is None]
        if missing:
            left.append(LeftOut(row, f"no {missing[0]}"))
        elif all(value is not None and value >= minimum[column] for column, value in values.items()) is not invert:
            kept.append(row)
        else:
            rejected += 1
    return Kept(kept, rejected, left)


def plan(
    rows: Sequence[Row],
    everything: Sequence[Row],
    folders: Sequence[Path],
    target: Path,
    *,
    move: bool = False,
    by_name: bool = True,
) -> TransferPlan:
    """Return where each row's image would go: below ``target``, in its present subfolders.

    A tar or Parquet file counts as a folder of the images in it, which can be copied but not moved.

    Args:
        rows: the rows whose images go; an image that several rows share goes once, with the first of them.
        everything: all rows of the table; the deepest folder of all their images is the root of the subfolders.
        folders: where to look for files with relative names.
        target: the folder to go to.
        move: whether the images would be moved.
        by_name: whether a file of the same name in one of the folders will do, whatever folder the table names.

    Raises:
        UsageError: ``target`` exists and is not a folder.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"Expected a folder to put images in, got the file {str(target)!r}: name another.")
    need_columns(everything, ["file"])
    finder = ImageFinder(folders, by_name)
    top = _common_folder([_absolute(found) for row in everything if (found := finder.find(_file(row)))])
    moves: list[tuple[Row, RowImage, Path]] = []
    left: list[LeftOut] = []
    seen: set[Path] = set()
    for row in rows:
        found = finder.find(_file(row))
        if found is None:
            left.append(LeftOut(row, NOT_FOUND if _file(row) else NO_FILE))
            continue
        place = _absolute(found)
        if move and not isinstance(found, Path):
            left.append(LeftOut(row, NOT_MOVED))
        elif place not in seen:
            seen.add(place)
            below = place.relative_to(top or place.anchor)
            moves.append((row, place if isinstance(found, Path) else found, target / below))
    return TransferPlan(moves, left)


def _file(row: Row) -> str:
    return text(row, "file")


def _absolute(image: RowImage) -> Path:
    """Return a path without "..", so that no file escapes the target; links are not resolved."""
    path = image if isinstance(image, Path) else f"{image.path}/{image.name}"
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps ".."


def _common_folder(files: Sequence[Path]) -> Path | None:
    """Return the deepest folder that contains all files; None if there is none, as for files on two drives."""
    try:
        return Path(os.path.commonpath([file.parent for file in files]))
    except ValueError:
        return None
