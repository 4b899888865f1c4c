"""Tables in: one reader for ``.csv``, ``.tsv``, ``.jsonl`` and ``.parquet``; a table that we wrote reads back equal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import DataError, UsageError, counted, nearest, shown
from mst_clipiqa.tables import parquet
from mst_clipiqa.tables.cells import Cell, as_written, from_csv_cell, from_csv_header
from mst_clipiqa.tables.columns import Table
from mst_clipiqa.tables.lines import Line, check_once, csv_rows, json_lines

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
"""What a table that is written ends in; .tsv is read as well."""
_MOST_KNOWN = 10_000  # cells remembered at a time
_MOST_COLUMNS = 10_000  # in JSON Lines, where each row could have its own


class _Cells(dict[str, Cell]):
    """The text of a CSV cell -> its value: one copy of a text that comes again, such as the name of the model."""

    def __missing__(self, text: str) -> Cell:
        """Read a cell, and remember its value."""
        value = self[text] = from_csv_cell(text)
        return value


def read_table(path: str | os.PathLike[str]) -> Table:
    """Return all rows of a table, with its head; see ``stream_table``."""
    table = Table(stream_table(path))
    return table if table else Table(head=_head(Path(path)))


def stream_table(path: str | os.PathLike[str]) -> Iterator[dict[str, Cell]]:
    """Yield the rows of a table of any origin: numbers as float or int, empty cells as None, the rest as text.

    In a CSV file of another program, text that looks like a number becomes a number.

    Args:
        path: ends in .csv, .tsv, .jsonl or .parquet.

    Yields:
        dict: column -> text, int, float, true or false, or None.

    Raises:
        DataError: there is no such file, it is not a table, or a row is malformed; the message names the line.
    """
    path = Path(path)
    match ".csv" if path.suffix.lower() == ".tsv" else suffix_of(path, DataError):
        case ".csv":
            return _read_csv(path)
        case ".jsonl":
            return _read_jsonl(path)
        case _:
            return parquet.stream(path)


def _read_csv(path: Path) -> Iterator[dict[str, Cell]]:
    columns: list[str] | None = None
    known = _Cells()
    for line in csv_rows(path):
        cells: list[str] = _value(line, path)
        if columns is None:
            columns = from_csv_header(cells)
            check_once(columns, path)
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"Expected {counted(len(columns), 'cell')} in line {line.number} of {shown(path)}, got {len(cells)}: "
                f"quote cells that hold {line.delimiter}."
            )
        if len(known) > _MOST_KNOWN:
            known.clear()
        yield dict(zip(columns, map(known.__getitem__, cells), strict=True))
    if columns is None:
        raise DataError(f"Expected a line with the names of the columns, got an empty file: {shown(path)}.")


def _head(path: Path) -> list[str]:
    """Return the names of the columns of a table that could be read, and has no rows."""
    match path.suffix.lower():
        case ".jsonl":
            return []
        case ".parquet":
            return parquet.head(path)
        case _:
            return from_csv_header(next(csv_rows(path)).value)


def _read_jsonl(path: Path) -> Iterator[dict[str, Cell]]:
    columns: set[str] = set()
    for line in json_lines(path):
        value = _value(line, path)
        if not isinstance(value, dict):
            raise DataError(
                f'Expected {{"column": value, ...}} in line {line.number} of {shown(path)}, '
                f"got {shown(json.dumps(value))}: write one object per line."
            )
        columns |= value.keys()
        if len(columns) > _MOST_COLUMNS:
            raise DataError(
                f"Expected at most {_MOST_COLUMNS:,} columns in {shown(path)}, got more by line {line.number}: "
                "give all rows the same keys."
            )
        yield {column: _flat(cell, column, line, path) for column, cell in value.items()}


def _value(line: Line, path: Path) -> Any:
    if line.problem:
        raise DataError(f"Expected a table, but line {line.number} of {shown(path)} is {line.problem}: correct it.")
    return line.value


def _flat(cell: Any, column: str, line: Line, path: Path) -> Cell:
    if cell is None or isinstance(cell, str | float) or (isinstance(cell, int) and abs(cell) < 2**64):  # or a bool
        return cell
    if isinstance(cell, int) and math.isfinite(number := as_written(str(cell))):
        return number
    raise DataError(
        f"Expected text, a number or null for {shown(column)} in line {line.number} of {shown(path)}, "
        f"got {shown(json.dumps(cell))}: flatten it."
    )


def suffix_of(path: Path, error: type[UsageError] | type[DataError]) -> str:
    """Return how a table's name ends; raise an error of this type if no table's name ends so."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise error(
            f"Expected a table to end in .csv, .jsonl or .parquet, got {shown(path.name)}"
            f"{nearest(suffix, TABLE_SUFFIXES)}: {'save it' if error is DataError else 'write it'} as one of these."
        )
    return suffix
