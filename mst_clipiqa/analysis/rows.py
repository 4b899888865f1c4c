"""Rows of a table of scores: read numbers, separate failed rows, find the images."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from mst_clipiqa.errors import DataError, UsageError, are, counted, nearest, shown, some_of
from mst_clipiqa.tables.cells import AsWritten
from mst_clipiqa.tables.columns import Table

Row = Mapping[str, Any]
K = TypeVar("K", bound=Hashable)
GeneratorFrom = Literal["column", "name", "folder"]
NO_FILE = "the row names no file"
LARGEST = 1e30
"""No score is larger; the square of its square is still finite."""
LOWER_BETTER = ("negative_match",)
"""Columns of a table of scores of which less is better; of all others, more."""
_REASONS_NAMED = 20  # each on a line


@dataclass(frozen=True)
class LeftOut:
    """A row that a command could not use, and why."""

    row: Row
    why: str


def are_good(rows: Iterable[Row]) -> list[bool]:
    """Return whether each row was scored; one without a status counts as scored."""
    return [str(status or "ok") == "ok" for status in Table.of(rows).column("status")]


def split_failed(rows: Iterable[Row]) -> tuple[Table, list[LeftOut]]:
    """Return the scored rows and the failed ones, each in order."""
    table = Table.of(rows)
    good: list[int] = []
    failed = []
    for place, is_good in enumerate(are_good(table)):
        if is_good:
            good.append(place)
        else:
            row = table[place]
            failed.append(LeftOut(row, str(row.get("reason") or "no reason given")))
    return table.take(good) if failed else table, failed


def number(row: Row, column: str) -> float | None:
    """Return a cell as a float; None if it is empty or NaN.

    Raises:
        DataError: the cell is not a number, or larger than ``LARGEST``.
    """
    value = _number(row.get(column))
    if abs(value) > LARGEST:
        raise DataError(
            f"Expected a number in column {column!r}, got {shown(row[column])} for {shown(row.get('file', '?'))}: "
            "correct the table or score again."
        )
    return None if math.isnan(value) else value


def numbers(rows: Iterable[Row], column: str) -> list[float]:
    """Return what ``number`` does for each row, but NaN for None."""
    table = Table.of(rows)
    values = list(map(_number, table.column(column)))
    for place, value in enumerate(values):
        if abs(value) > LARGEST:
            number(table[place], column)  # raises an error that names the row
    return values


def _number(cell: Any) -> float:
    """Return a cell as a float: NaN if it is empty, infinity if it is not a number."""
    if type(cell) is float:  # nearly always
        return cell
    if cell is None or cell == "":
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.inf


def means_by_key(values: Iterable[tuple[K, float]]) -> dict[K, float]:
    """Return key -> the mean of its values, in the order of their first values."""
    groups: dict[K, list[float]] = {}
    for key, value in values:
        groups.setdefault(key, []).append(value)
    return {key: math.fsum(some) / len(some) for key, some in groups.items()}


def text(row: Row, column: str) -> str:
    """Return a cell as text; empty if there is none."""
    return _text(row.get(column))


def texts(rows: Iterable[Row], column: str) -> list[str]:
    """Return what ``text`` does for each row."""
    return list(map(_text, Table.of(rows).column(column)))


def prompts_of(rows: Iterable[Row]) -> list[str]:
    """Return what ``prompt_of`` does for each row."""
    return [prompt.strip() for prompt in texts(rows, "prompt")]


def files_of(rows: Iterable[Row]) -> list[str]:
    """Return what ``file_of`` does for each row."""
    return [file.replace("\\", "/") for file in texts(rows, "file")]


def _text(cell: Any) -> str:
    if type(cell) is str:  # nearly always
        return cell
    if isinstance(cell, float) and not isinstance(cell, AsWritten) and cell.is_integer():
        return str(int(cell))  # a prompt such as 1984, which another program wrote as a number
    if isinstance(cell, bool):
        return str(cell).lower()
    return "" if cell is None else str(cell)


def prompt_of(row: Row) -> str:
    """Return the prompt of a row without spaces around it; empty if there is none."""
    cell = row.get("prompt")
    return cell.strip() if type(cell) is str else text(row, "prompt").strip()  # nearly always: no call more


def column_names(rows: Iterable[Row]) -> list[str]:
    """Return the columns that any of the rows has, or the head of their table, in order."""
    if isinstance(rows, Table):
        return rows.head
    return list(dict.fromkeys(name for row in rows for name in row))


def need_columns(rows: Sequence[Row], columns: Iterable[str]) -> None:
    """Check that a table has the columns that are needed; an empty table passes.

    Raises:
        UsageError: no row has one of the columns.
    """
    if not rows:
        return
    there = column_names(rows)
    for column in columns:
        if column not in there:
            other = nearest(column, there)
            hint = other or f"; the columns are: {', '.join(there)}"
            hint += ": score the images first" if column == "quality" and "status" not in there and not other else ""
            raise UsageError(f"Expected a column {column!r} in the table, found none{hint}.")


def models_of(rows: Iterable[Row]) -> list[str]:
    """Return the models that the rows name, sorted by name."""
    return sorted({*texts(rows, "model")} - {""})


def need_one_model(rows: Iterable[Row]) -> None:
    """Check that the scores of a table are of one model: a 3 from one is not a 3 from another.

    Raises:
        UsageError: the scored rows name several models.
    """
    models = models_of(split_failed(rows)[0])
    if len(models) > 1:
        raise UsageError(
            f"Expected rows scored by one model, got {some_of(models)}: score all images with the same one, or keep "
            "the rows of one."
        )


def with_generator(rows: Sequence[Row], where: GeneratorFrom) -> Table:
    """Return the rows with a column ``generator``.

    Args:
        rows: rows of a table of scores.
        where: "column" leaves the rows as they are; "name" takes the part of the file's name before the first "_";
            "folder" takes the name of the file's folder.
    """
    table = Table.of(rows)
    if where == "column":
        return table
    return table.with_columns({"generator": [_generator(file, where) for file in files_of(table)]})


def _generator(file: str, where: GeneratorFrom) -> str:
    path = Path(file)
    if where == "folder":
        return path.parent.name
    return path.stem.split("_")[0] if "_" in path.stem else ""


def file_of(row: Row) -> str:
    """Return the file of a row with slashes, whichever system wrote the table; empty if the row names none."""
    return text(row, "file").replace("\\", "/")


def find_image(file: str, folders: Sequence[Path], *, by_name: bool = True) -> Path | None:
    """Return the path of a row's file: below one of the folders, or absolute; None if it is not found.

    A relative name may begin with the folder itself: "in/a.png" is in the folder "in".

    With ``by_name``, a file of the same name in one of the folders is taken if there is no other.
    """
    if not file or "\0" in file:
        return None
    named = Path(file)
    places = [folder / named for folder in folders]  # or the file itself, if it is absolute
    places += [named] if named.is_absolute() or any(_is_below(named, folder) for folder in folders) else []
    if by_name and not named.is_absolute():
        places += [folder / named.name for folder in folders]  # scored elsewhere, collected in one folder since
    found = next((place for place in places if _is_file(place)), None)
    if found is None and "\\" in file:  # of a table that Windows wrote
        return find_image(file.replace("\\", "/"), folders, by_name=by_name)
    return found


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 - absolute() keeps ".."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for this system
        return False


def say_left_out(left: Sequence[LeftOut], what: str = "left out", noun: str = "row") -> list[str]:
    """Return lines that say how many rows were left out (or ``what``): the commonest reasons, with the first names."""
    if not left:
        return []
    by_reason: dict[str, list[Row]] = {}
    for one in left:
        by_reason.setdefault(one.why, []).append(one.row)
    commonest = sorted(by_reason.items(), key=lambda found: -len(found[1]))
    lines = [f"{counted(len(left), noun)} {are(len(left))} {what}:"]
    for why, rows in commonest[:_REASONS_NAMED]:
        lines.append(f"  {len(rows):,} x {why} ({some_of([text(row, 'file') for row in rows], 80)})")
    if others := commonest[_REASONS_NAMED:]:
        count = sum(len(rows) for _, rows in others)
        lines.append(f"  {count:,} more for {counted(len(others), 'other reason')}")
    return lines
