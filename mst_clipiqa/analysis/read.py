"""A table of scores, from a file or from stdin -> rows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mst_clipiqa.analysis.rows import Row
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.tables.table import TABLE_SUFFIXES, read_table


def read_scores(source: str | Path) -> list[Row]:
    """Return the rows of a table of scores.

    Args:
        source: a .csv, .jsonl or .parquet file, or "-" for one of them on stdin.

    Raises:
        UsageError: the file does not exist.
        DataError: the table cannot be read.
    """
    if str(source) == "-":
        return _from_stdin()
    path = Path(source)
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        found = "another kind of file" if path.exists() else "nothing of this name"
        raise UsageError(
            f"Expected a table of scores ({', '.join(TABLE_SUFFIXES)}), a folder of images, or - for stdin, "
            f"got {found}: {shown(path)}."
        )
    return list(read_table(path))


def folders_of(source: str | Path, images: Path | None) -> list[Path]:
    """Return where to look for the images of a table: the given folder, or here and next to the table."""
    if images is not None:
        return [images]
    if str(source) == "-":
        return [Path()]
    path = Path(source)
    return [Path(), path if path.is_dir() else path.parent]


def _from_stdin() -> list[Row]:
    """Return the rows of a table on stdin; its first bytes show its format."""
    content = sys.stdin.buffer.read()
    suffix = ".parquet" if content.startswith(b"PAR1") else ".jsonl" if content.lstrip()[:1] == b"{" else ".csv"
    if not content.strip():
        raise UsageError("Expected a table of scores on stdin, got nothing: check the command before the pipe.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stdin{suffix}"
        path.write_bytes(content)
        return list(read_table(path))
