"""Images in cells of Parquet: ``{bytes, path}``, as Hugging Face writes them, or plain bytes."""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import DataError, StoredError, shown
from mst_clipiqa.tables.lines import check_once
from mst_clipiqa.tables.names import FILE_COLUMNS
from mst_clipiqa.tables.parquet import as_cell, is_plain, opened, pyarrow

MOST_IN_GROUP = 2 * 2**30
"""The most bytes of images in a row group, which is read at once."""

_GROUPS_KEPT = 2  # row groups in memory: neighbours, as rows are read nearly in order
_groups: OrderedDict[tuple[str, int, int, int, str], Any] = OrderedDict()
_reading = threading.Lock()


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a cell.

    Attributes:
        path: of the Parquet file.
        name: as the file calls it, or "row-12"; valid Unicode.
        column: that holds it.
        group: number of its row group.
        row: number within the group.
        footer: CRC-32 of the file's footer, by which a file that was replaced is noticed, on any machine.
    """

    path: str
    name: str
    column: str
    group: int
    row: int
    footer: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.read_bytes())

    def read_bytes(self) -> bytes:
        """Return the file of the image; OSError if the cell holds none or cannot be read."""
        cell = _column(self)[self.row].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise OSError(f"the column {shown(self.column)} holds no bytes in this row")
        return data

    def is_file(self) -> bool:
        """Return whether the Parquet file exists."""
        return Path(self.path).is_file()


def image_column(path: Path) -> str | None:
    """Return the column that holds images, or None; of several, the one with the most usual name.

    Raises:
        DataError: the file is not Parquet or cannot be read.
    """
    with opened(path) as file:
        check_once(file.schema_arrow.names, path)
        found = [field.name for field in file.schema_arrow if _holds_bytes(field.type)]
    usual = {name: place for place, name in enumerate(FILE_COLUMNS)}
    return min(found, key=lambda name: usual.get(name.lower(), len(usual)), default=None)


def parquet_cells(path: Path) -> Iterator[tuple[ParquetImage, dict[str, Any]]]:
    """Yield each row's image, which is not read yet, and the row's text and numbers.

    Raises:
        DataError: the file is not Parquet or cannot be read.
    """
    column = image_column(path)
    if column is None:
        raise DataError(f"Expected a column of images in {shown(path)}, got none: name another file.")
    seen: set[str] = set()
    number = 0
    with opened(path) as file:
        schema, footer = file.schema_arrow, _footer(path)
        plain = [field.name for field in schema if is_plain(field.type)]
        kind = schema.field(column).type
        named = [f"{column}.path"] if pyarrow()[0].types.is_struct(kind) and kind.get_field_index("path") >= 0 else []
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=[*plain, *named]).to_pylist() if plain or named else [{}]
            rows = rows if plain or named else rows * file.metadata.row_group(group).num_rows
            for place, row in enumerate(rows):
                number += 1
                inner = row.pop(column, None) or {}
                name = _name(inner.get("path"), number, seen)
                cells = {name: as_cell(value) for name, value in row.items()}
                yield ParquetImage(str(path), name, column, group, place, footer), cells


def _name(path: object, number: int, seen: set[str]) -> str:
    """Return the name that the file gives an image, if no image before it has the same, or else its row."""
    name = path.replace("\\", "/") if isinstance(path, str) and path and path not in seen else f"row-{number}"
    seen.add(name)
    return name


def _holds_bytes(kind: Any) -> bool:
    types = pyarrow()[0].types
    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _column(image: ParquetImage) -> Any:
    """Return the images of an image's row group; the last groups are kept."""
    with _reading:
        try:
            path = Path(image.path)
            key = image.path, path.stat().st_mtime_ns, image.footer, image.group, image.column
            if key not in _groups:
                with opened(path) as file:
                    if _footer(path) != image.footer:
                        raise DataError(
                            f"Expected {shown(path)} as it was when it was listed, got another file: score it again."
                        )
                    _check_size(file.metadata.row_group(image.group), image.column)
                    while len(_groups) >= _GROUPS_KEPT:
                        _groups.popitem(last=False)
                    _groups[key] = file.read_row_group(image.group, columns=[image.column]).column(image.column)
            _groups.move_to_end(key)
            return _groups[key]
        except DataError as error:
            raise StoredError(str(error)) from error
        except IndexError as error:
            raise OSError(str(error)) from error


def _footer(path: Path) -> int:
    """Return the CRC-32 of a Parquet file's footer, which says where all columns are and how long."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return zlib.crc32(file.read(length))


def _check_size(group: Any, column: str) -> None:
    chunks = [group.column(place) for place in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == column)
    if size > MOST_IN_GROUP:
        raise DataError(
            f"Expected row groups of at most {MOST_IN_GROUP:,} bytes of images, got {size:,}: write the file with "
            "smaller ones, such as 100 rows."
        )
