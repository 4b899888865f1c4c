"""Label files: found in a folder, and read into rows of named cells."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mst_clipiqa.data.spreadsheets import names_an_image, sheet_rows
from mst_clipiqa.errors import DataError, counted, shown
from mst_clipiqa.tables.lines import Line, csv_rows, is_unicode, json_lines
from mst_clipiqa.tables.parquet import stream

LABEL_SUFFIXES = (".csv", ".xlsx", ".jsonl", ".parquet", ".mat")
_UNREAD = {
    ".json": "write one JSON object per line into a .jsonl file",
    **dict.fromkeys((".xls", ".xlsb", ".ods", ".numbers"), "save it as .xlsx or .csv"),
}
"""Other forms in which people keep labels -> what to do."""
SEARCH_DEPTH = 2  # levels of folders below the root that are searched for labels


@dataclass(frozen=True)
class LabelRow:
    """One row of a label file.

    Attributes:
        where: the line and the file, for messages: "line 3 of data.csv".
        cells: column in lower case, with underscores for spaces -> text.
    """

    where: str
    cells: dict[str, str]

    def get(self, names: Sequence[str]) -> str | None:
        """Return the first of these columns that the file has (case does not matter), or None."""
        for name in names:
            if name.casefold() in self.cells:
                return self.cells[name.casefold()]
        return None


def find_labels(root: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Find the shallowest folder with label files, and the files in it.

    Only one folder is taken, because some copies of a set have folders of splits whose files have the same names.

    Args:
        root: the folder to search first.
        patterns: shell patterns of file names; one may begin with folders ("DATA/MOS/mosz*.mat").

    Returns:
        Pattern -> its files, sorted; only patterns that match something.

    Raises:
        DataError: two folders of the same depth hold such files.
    """
    layer = [root]
    for _ in range(SEARCH_DEPTH + 1):
        found = {folder: hits for folder in layer if (hits := _labels_in(folder, patterns))}
        if len(found) > 1:
            one, other = list(found)[:2]
            raise DataError(
                f"Expected the labels in one folder in {shown(root)}, got {shown(one)} and {shown(other)}: "
                "give one of them as the root."
            )
        if found:
            return next(iter(found.values()))
        layer = [below for folder in layer for below in _folders_in(folder)]
    return {}


def check_read(paths: Iterable[Path]) -> None:
    """Raise a DataError if labels are in a form that is not read."""
    for path in paths:
        if advice := _UNREAD.get(path.suffix.lower()):
            raise DataError(
                f"Expected labels in a .csv, .tsv, .xlsx, .jsonl or .parquet file, got {shown(path)}: {advice}."
            )


def _labels_in(folder: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    hits = {pattern: sorted(folder.glob(pattern)) for pattern in patterns}
    hits = {p: [file for file in files if file.suffix in LABEL_SUFFIXES] for p, files in hits.items()}
    return {pattern: files for pattern, files in hits.items() if files}


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))
    except (PermissionError, FileNotFoundError):  # a folder that cannot be listed counts as empty
        return []


def read_rows(path: Path, positions: Sequence[str] = (), header: str = "") -> list[LabelRow]:
    """Read a csv, xlsx, jsonl or Parquet file into rows.

    Args:
        path: the file; text as UTF-8 or UTF-16.
        positions: column names in order, for a file without a header row, which is one whose first row names an image.
        header: for a file whose rows name no image: a cell that only its header row holds.

    Raises:
        DataError: the file is empty or cannot be read, a row has too many or too few cells, or there are no column
            names.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        rows = [_of_object(path, line) for line in json_lines(path)]
    elif suffix == ".parquet":
        rows = [_of_object(path, Line(number, row)) for number, row in enumerate(stream(path), 1)]
    else:
        rows = _of_table(path, sheet_rows(path) if suffix == ".xlsx" else csv_rows(path), positions, header)
    if not rows:
        raise DataError(f"Expected rated images in {shown(path)}, got no row: download the label file again.")
    return rows


def column_name(text: str) -> str:
    """Return a column's name in lower case, with underscores for spaces."""
    return "_".join(text.casefold().split())


def _of_object(path: Path, line: Line) -> LabelRow:
    where = f"line {line.number} of {path.name}"
    if line.problem or not isinstance(line.value, dict):
        raise DataError(
            f"Expected one JSON object per line, but {where} is {line.problem or 'another value'}: correct it."
        )
    cells = ["" if cell is None else _text(str(cell), where) for cell in line.value.values()]
    return LabelRow(where, _cells_of([column_name(str(key)) for key in line.value], cells, where))


def _of_table(path: Path, lines: Iterable[Line], positions: Sequence[str], header: str) -> list[LabelRow]:
    """Return the rows of a table, which may or may not begin with a header row."""
    columns: list[str] | None = None
    rows = []
    unit = "row" if path.suffix.lower() == ".xlsx" else "line"
    for line in lines:
        where = f"{unit} {line.number} of {path.name}"
        if line.problem:
            raise DataError(f"Expected a table, but {where} is {line.problem}: correct it.")
        cells = [_text(cell, where) for cell in line.value]
        if not any(cells):
            continue
        if columns is None:
            first = [column_name(cell) for cell in cells]
            if not (names_an_image(cells) or (header and header not in first)):
                columns = first
                continue
            columns = _columns_without_header(path, cells, positions)
        if len(cells) != len(columns):
            raise DataError(
                f"Expected {counted(len(columns), 'cell')} in {where}, got {len(cells)}: quote cells that hold "
                f"{line.delimiter}."
            )
        rows.append(LabelRow(where, _cells_of(columns, cells, where)))
    return rows


def _cells_of(columns: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    """Return column -> cell; DataError if two columns of one name differ, as nobody knows which one is meant."""
    found: dict[str, str] = {}
    for column, cell in zip(columns, cells, strict=True):
        if column and found.get(column, cell) != cell:
            raise DataError(
                f"Expected one column {shown(column)} in {where}, got two, which hold {shown(found[column])} and "
                f"{shown(cell)}: rename one of them."
            )
        found[column] = cell
    return found


def _text(cell: str, where: str) -> str:
    if not is_unicode(cell):
        raise DataError(f"Expected text in UTF-8 in {where}, got other bytes: save the file as UTF-8.")
    return cell.strip()


def _columns_without_header(path: Path, first: Sequence[str], positions: Sequence[str]) -> list[str]:
    """Name the columns of a file without a header row; extra positions are for copies with more columns."""
    if not positions or len(first) > len(positions):
        raise DataError(
            f"Expected a header row in {shown(path)}, got {shown(', '.join(first))}: "
            "write the names of the columns into the first row."
        )
    return [name.casefold() for name in positions[: len(first)]]


def read_column_of_mat(path: Path, variable: str) -> list[float]:
    """Read one column vector of a MATLAB file (version 5 to 7.2).

    Raises:
        DataError: the file cannot be read or has no such variable.
    """
    from scipy.io import loadmat

    try:
        content = cast("dict[str, object]", loadmat(path))
    except (ValueError, NotImplementedError, OSError) as error:
        raise DataError(
            f"Expected a MATLAB file of version 5 to 7.2, but {shown(path)} is none ({error}): download it again."
        ) from error
    if variable not in content:
        names = sorted(name for name in content if not name.startswith("__"))
        raise DataError(
            f"Expected the variable {variable!r} in {shown(path)}, got {', '.join(names)}: download it again."
        )
    import numpy

    return [float(value) for value in numpy.asarray(content[variable], dtype=float).ravel()]
