"""Parquet through pyarrow, which comes with the extra ``parquet``: the only module that imports it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from mst_clipiqa.errors import DataError, need, shown
from mst_clipiqa.tables.cells import AsWritten, Cell, csv_cell, utf8
from mst_clipiqa.tables.lines import check_once

ROW_GROUP = 10_000
"""Rows per row group, which is what is held in memory at once."""

RUN_MANIFEST = "_manifest.json"
"""In the folder of a table's parts; readers of partitioned Parquet ignore names that begin with an underscore."""


def kinds(columns: Sequence[str], wanted: Mapping[str, type], rows: Iterable[Sequence[Cell]]) -> dict[str, type]:
    """Return the type of each column, str, int, float or bool, that holds all of its values.

    Args:
        columns: names in order.
        wanted: types to use if they can hold all values; a column without values that is not listed is text.
        rows: all rows; read once.
    """
    seen: list[set[type]] = [set() for _ in columns]
    for row in rows:
        for types, value in zip(seen, row, strict=True):
            if value is not None:
                types.add(_kind(value))
    return {column: _widest(types, wanted.get(column)) for column, types in zip(columns, seen, strict=True)}


def _kind(value: str | float | int) -> type:
    """Return the type that holds one value.

    Text holds whole numbers that are too large for a signed integer of 64 bits: they may be seeds or other numbers that
    name something, all of whose digits matter.
    """
    if isinstance(value, str | bool):
        return type(value)
    if isinstance(value, int):
        return int if abs(value) < 2**63 else str
    return str if isinstance(value, AsWritten) and value.written.removeprefix("-").isdecimal() else float


def _widest(types: set[type], wanted: type | None) -> type:
    if bool in types:
        return bool if types == {bool} else str
    types = types | ({wanted} if wanted else set())
    if not types or str in types:
        return str
    return float if float in types else int


def write(file: BinaryIO, columns: Mapping[str, type], rows: Iterable[Sequence[Cell]]) -> None:
    """Write rows as Parquet, one row group at a time; numbers in a text column become text.

    Raises:
        OSError: the disk is full or gone.
    """
    pa, pq = pyarrow()
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(utf8(name).decode(), types[kind]) for name, kind in columns.items()])
    left = iter(rows)
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(left, ROW_GROUP)):
            turned = zip(columns.values(), zip(*group, strict=True), strict=True)
            arrays = [[_as(kind, value) for value in values] for kind, values in turned]
            writer.write_table(pa.table(arrays, schema=schema))


def _as(kind: type, value: Cell) -> Cell:
    if value is None:
        return None
    return utf8(value if isinstance(value, str) else csv_cell(value)).decode() if kind is str else kind(value)


def stream(path: Path) -> Iterator[dict[str, Cell]]:
    """Yield the rows of a Parquet file: numbers as float or int, true and false, missing values as None, text.

    Raises:
        DataError: there is no such file, it is not Parquet, or a column holds neither text nor numbers.
    """
    with opened(path) as file:
        _check(file.schema_arrow, path)
        for batch in file.iter_batches(batch_size=ROW_GROUP):
            values = [column.to_pylist() for column in batch.columns]
            for row in zip(*values, strict=True):
                yield {name: as_cell(value) for name, value in zip(batch.schema.names, row, strict=True)}


def head(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file; errors as for ``stream``."""
    with opened(path) as file:
        return list(file.schema_arrow.names)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a Parquet file as a ``pyarrow.parquet.ParquetFile``.

    Raises:
        DataError: there is no such file, or it is not Parquet or damaged, as far as it is read.
    """
    pa, pq = pyarrow()
    if not path.is_file():
        raise DataError(f"Expected a Parquet file, found no file {shown(path)}.")
    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"Expected a whole Parquet file, got one that is damaged or none: {shown(path)}; write it again."
        ) from error


def _check(schema: Any, path: Path) -> None:
    check_once(schema.names, path)
    for field in schema:
        if not is_plain(field.type):
            raise DataError(
                f"Expected text or numbers in column {shown(field.name)} of {shown(path)}, got {field.type}: convert "
                "it."
            )


def is_plain(kind: Any) -> bool:
    """Return whether a column of this type holds text or numbers."""
    types = pyarrow()[0].types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    known = ("is_string", "is_large_string", "is_integer", "is_floating", "is_boolean", "is_null", "is_decimal")
    return any(getattr(types, name)(kind) for name in known)


def as_cell(value: Any) -> Cell:
    """Return a value of a column for which ``is_plain`` is true as a cell; a decimal number becomes a float."""
    return value if value is None or isinstance(value, str | int) else float(value)


def pyarrow() -> tuple[Any, Any]:
    """Return ``pyarrow`` and ``pyarrow.parquet``; UsageError if they are not installed."""
    names = ("pyarrow", "pyarrow.parquet")
    pa, pq = (need(name, extra="parquet", otherwise="use .csv or .jsonl") for name in names)
    return pa, pq
