"""Data sets that hold their images: one row per image, which is read from the file when it is needed.

::

    tar_rows       members of a WebDataset tar: KEY.jpg, KEY.txt, KEY.json        (tars.py)
    parquet_rows   cells of Parquet: {bytes, path} as Hugging Face writes them, or bytes   (parquet_images.py)

Nothing is unpacked to disk. The files are not trusted: what cannot be used is a row with its problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from mst_clipiqa.tables.parquet_images import ParquetImage, image_column, parquet_cells
from mst_clipiqa.tables.tars import TarImage, tar_samples

FileInFile: TypeAlias = TarImage | ParquetImage
"""An image inside a larger file; ``read_bytes`` reads it, from any thread."""


@dataclass(frozen=True)
class StoredRow:
    """One image and what is stored with it.

    Attributes:
        name: of the image in the file, valid Unicode.
        image: None if there is nothing to read.
        cells: the other columns; in a tar, the keys of the JSON, and "prompt" for the text.
        problem: why the row cannot be used, to continue "..., but", or None.
    """

    name: str
    image: FileInFile | None
    cells: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def is_stored(path: Path) -> bool:
    """Return whether a file is a tar, or Parquet with a column of images.

    Raises:
        DataError: it should be Parquet and cannot be read.
        UsageError: the package for Parquet is not installed.
    """
    suffix = path.suffix.lower()
    return suffix == ".tar" or (suffix == ".parquet" and image_column(path) is not None)


def stored_rows(path: Path) -> Iterator[StoredRow]:
    """Yield the images of a file for which ``is_stored`` is true, in its order.

    Raises:
        DataError: Parquet that cannot be read; a tar that cannot be read has a row that says so.
    """
    if path.suffix.lower() == ".tar":
        for sample in tar_samples(path):
            for image, problem in sample.images:
                yield StoredRow(image.name, image, sample.cells, problem or sample.problem)
            if not sample.images:
                yield StoredRow("", None, problem=sample.problem)
    else:
        for cell, cells in parquet_cells(path):
            yield StoredRow(cell.name, cell, cells)
