"""The image of a row of a table of scores: a file, or an image inside a tar or Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mst_clipiqa.analysis.rows import find_image
from mst_clipiqa.errors import DataError
from mst_clipiqa.tables.stored import FileInFile, is_stored, stored_rows

RowImage: TypeAlias = Path | FileInFile
"""What is opened to see the image of a row."""
NOT_FOUND = "its image is not found"
_CONTAINERS = (".tar", ".parquet")


@dataclass(frozen=True)
class ImageFinder:
    """Finds the images that a table names; the list of a tar or Parquet file is read once.

    Attributes:
        folders: where to look for files with relative names.
        by_name: whether a file of the same name in one of the folders will do, whatever folder the table names.
    """

    folders: Sequence[Path]
    by_name: bool = True
    _inside: dict[Path, dict[str, FileInFile]] = field(default_factory=dict)

    def find(self, file: str) -> RowImage | None:
        """Return the image of a row, such as "a.png" or "shard.tar/a.png"; None if it is not found."""
        found = find_image(file, self.folders, by_name=False) or self._stored(file)
        return find_image(file, self.folders) if found is None and self.by_name else found

    def _stored(self, file: str) -> FileInFile | None:
        parts = file.split("/")
        for end, part in enumerate(parts[:-1], 1):
            if part.lower().endswith(_CONTAINERS) and (
                path := find_image("/".join(parts[:end]), self.folders, by_name=self.by_name)
            ):
                return self._images_of(path).get("/".join(parts[end:]))
        return None

    def _images_of(self, path: Path) -> dict[str, FileInFile]:
        if path not in self._inside:
            try:
                rows = stored_rows(path) if is_stored(path) else ()
                self._inside[path] = {row.name: row.image for row in reversed(list(rows)) if row.image is not None}
            except DataError:  # no Parquet, or a damaged one: its images are not found
                self._inside[path] = {}
        return self._inside[path]
