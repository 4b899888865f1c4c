"""Rated sets that hold their images: Parquet as Hugging Face writes it, and WebDataset tars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mst_clipiqa.data.label_files import LabelRow, column_name
from mst_clipiqa.data.ratings import Labels
from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.tables.stored import is_stored, stored_rows

STORED_FORMATS = {"parquet": ".parquet", "webdataset": ".tar"}
"""Name of the format -> how its files end."""


def stored_labels(form: str, root: Path) -> tuple[Labels, list[tuple[LabelRow, str]]]:
    """Read the rows of all files of a set.

    Args:
        form: "parquet" or "webdataset".
        root: the folder of the files, which may also be in its subfolders, or one file.

    Returns:
        Labels with the images and the files, and each row with the name of its file. The cell "file" is the image's
        name, which is unique in the set.

    Raises:
        DataError: there is no such file, a file is damaged, or a row cannot be used.
    """
    suffix = STORED_FORMATS[form]
    paths = [root] if root.is_file() else sorted(path for path in root.rglob(f"*{suffix}") if is_stored(path))
    if not paths:
        raise DataError(
            f"Expected files with images that end in {suffix} in {shown(root)}, got none: name another one."
        )
    labels = Labels(files=paths)
    rows = []
    base = root.parent if root.is_file() else root
    for path in paths:
        if not is_stored(path):
            raise DataError(f"Expected a {suffix} with images, got {shown(path)}: use --data csv for a table.")
        for number, row in enumerate(stored_rows(path), 1):
            if row.image is None or row.problem:
                raise DataError(f"Expected a rated image in each row, but {row.problem}: correct it.")
            name = row.name if len(paths) == 1 else f"{path.relative_to(base).as_posix()}/{row.name}"
            if name in labels.images:
                raise DataError(f"Expected each image once in {shown(path)}, got {shown(name)} twice: rename one.")
            labels.images[name] = row.image
            rows.append((_row(f"row {number} of {path.name}", name, row.cells), path.stem))
    if not rows:
        raise DataError(f"Expected rated images in {shown(root)}, got none: name another folder.")
    return labels, rows


def _row(where: str, name: str, cells: Mapping[str, Any]) -> LabelRow:
    """Return a row of text, as label files have them; lists and objects are left out."""
    texts = {column_name(str(key)): _text(value) for key, value in cells.items() if not isinstance(value, list | dict)}
    return LabelRow(where, {**texts, "file": name})


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
