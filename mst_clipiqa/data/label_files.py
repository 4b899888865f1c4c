"""Label files as they lie on disk: found below a folder, and read into rows of named cells."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mst_clipiqa.errors import DataError, need, shown
from mst_clipiqa.tables.names import is_image_name

LABEL_SUFFIXES = (".csv", ".xlsx", ".jsonl", ".mat")
DEEPEST = 2  # folders below the root that are searched for labels


@dataclass(frozen=True)
class LabelRow:
    """One row of a label file; `where` names the file and the row as a spreadsheet counts it."""

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

    One folder and no other, because copies of a set carry folders of splits whose files have the same names.

    Args:
        root: where to begin.
        patterns: shell patterns of file names; one may begin with folders ("DATA/MOS/mosz*.mat").

    Returns:
        Pattern -> its files, sorted; only patterns that were met; empty where nothing was found.

    Raises:
        DataError: two folders of the same depth hold such files, so that neither is meant for certain.
    """
    layer = [root]
    for _ in range(DEEPEST + 1):
        found = {folder: hits for folder in layer if (hits := _labels_in(folder, patterns))}
        if len(found) > 1:
            one, other = list(found)[:2]
            raise DataError(
                f"expected the labels in one folder below {root}, got {one} and {other}; "
                "give the one that is meant as the root"
            )
        if found:
            return next(iter(found.values()))
        layer = [below for folder in layer for below in _folders_in(folder)]
    return {}


def _labels_in(folder: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    hits = {pattern: sorted(folder.glob(pattern)) for pattern in patterns}
    hits = {p: [file for file in files if file.suffix in LABEL_SUFFIXES] for p, files in hits.items()}
    return {pattern: files for pattern, files in hits.items() if files}


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))
    except (PermissionError, FileNotFoundError):  # a folder that cannot be looked into has no labels for us
        return []


def read_rows(path: Path, positions: Sequence[str] = (), header: str = "") -> list[LabelRow]:
    """Read a csv, xlsx or jsonl file into rows.

    Args:
        path: the file; csv as UTF-8, with or without a byte order mark.
        positions: column names in order, for a file without a header row. A file has none where a cell of
            its first row names an image.
        header: for a file whose rows name no image: a cell that only its header row holds.

    Raises:
        DataError: the file is empty, cannot be read, has a ragged row, or has no header and no positions.
    """
    if path.suffix == ".jsonl":
        return _jsonl_rows(path)
    lines = _xlsx_lines(path) if path.suffix == ".xlsx" else _csv_lines(path)
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise DataError(f"expected rows in {path}, got an empty file; fetch the label file again")
    first = lines[0][1]
    if names_an_image(first) or (header and header not in [cell.casefold() for cell in first]):
        columns, body = _columns_without_header(path, first, positions), lines
    else:
        columns, body = [cell.casefold() for cell in first], lines[1:]
    if not body:
        raise DataError(f"expected rows in {path}, got nothing below the header; fetch the label file again")
    rows = []
    for number, cells in body:
        if len(cells) != len(columns):
            raise DataError(
                f"{path.name} row {number}: expected {len(columns)} cells, got {len(cells)}; "
                "quote the cells that hold a comma"
            )
        rows.append(LabelRow(f"{path.name} row {number}", dict(zip(columns, cells, strict=True))))
    return rows


def names_an_image(cells: Iterable[str]) -> bool:
    """Return whether one of the cells is an image's file name, which no header row has."""
    return any(map(is_image_name, cells))


def _columns_without_header(path: Path, first: Sequence[str], positions: Sequence[str]) -> list[str]:
    """Name the columns of a file without a header row; extra names are for copies with more columns."""
    if not positions or len(first) > len(positions):
        raise DataError(
            f"expected a header row in {path}, got {', '.join(first)!r}; "
            "write the names of the columns into the first row"
        )
    return [name.casefold() for name in positions[: len(first)]]


def _csv_lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [(i, [cell.strip() for cell in line]) for i, line in enumerate(csv.reader(file), 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a csv file in UTF-8 at {path}, got: {error}; save it again as such") from None


def _xlsx_lines(path: Path) -> list[tuple[int, list[str]]]:
    openpyxl = need("openpyxl", extra="data", otherwise=f"save {shown(path.name)} as .csv")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except zipfile.BadZipFile:
        raise DataError(f"expected a spreadsheet at {path}, got another kind of file; fetch it again") from None
    try:
        sheet = book.worksheets[0]
        lines = [["" if c is None else str(c).strip() for c in line] for line in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    width = max((len(line) for line in lines), default=0)  # a row ends at its last filled cell
    return [(i, line + [""] * (width - len(line))) for i, line in enumerate(lines, 1)]


def _jsonl_rows(path: Path) -> list[LabelRow]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry: object = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path.name} row {number}: expected one JSON object a line, got: {error}") from None
        if not isinstance(entry, dict):
            raise DataError(f"{path.name} row {number}: expected one JSON object a line, got {line[:40]!r}")
        cells = {str(key).casefold(): "" if value is None else str(value).strip() for key, value in entry.items()}
        rows.append(LabelRow(f"{path.name} row {number}", cells))
    if not rows:
        raise DataError(f"expected rows in {path}, got an empty file; fetch the label file again")
    return rows


def read_column_of_mat(path: Path, variable: str) -> list[float]:
    """Read one column vector of a MATLAB file (version 5 to 7.2).

    Raises:
        DataError: the file cannot be read or has no such variable.
    """
    from scipy.io import loadmat

    try:
        content = cast("dict[str, object]", loadmat(path))
    except (ValueError, NotImplementedError, OSError) as error:
        raise DataError(f"expected a MATLAB file of version 5 to 7.2 at {path}, got: {error}") from None
    if variable not in content:
        names = sorted(name for name in content if not name.startswith("__"))
        raise DataError(f"expected the variable {variable!r} in {path}, got {', '.join(names)}")
    import numpy

    return [float(value) for value in numpy.asarray(content[variable], dtype=float).ravel()]
