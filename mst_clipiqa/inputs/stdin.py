"""A list of images on stdin: the names of files, or a table, such as a command before the pipe writes it."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.list_columns import ListColumns
from mst_clipiqa.inputs.lists import Entry, entries
from mst_clipiqa.tables.names import FILE_COLUMNS
from mst_clipiqa.tables.sniff import delimiter_of, encoding_of

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")


def temporary_folder() -> Path:
    """Return a new folder, which the caller removes, for what stdin holds.

    Raises:
        UsageError: no folder for temporary files can be written.
    """
    try:
        return Path(tempfile.mkdtemp())
    except OSError as error:
        raise UsageError(
            "Expected a folder for temporary files, to keep what stdin holds, found none that can be written: set "
            "TMPDIR to one, or name a file in place of -."
        ) from error


def save_list(folder: Path) -> Path:
    """Save what stdin holds as a list in a folder, and return its path.

    Its format shows in its first bytes. Names end in line ends or, from ``find -print0``, in NUL; the latter may
    contain line ends, so they are saved as JSON lines.

    Raises:
        UsageError: stdin is empty, or holds an image.
    """
    content = sys.stdin.buffer.read()
    if content.startswith(_IMAGES):
        raise UsageError("Expected the names of images on stdin, got an image: save it to a file.")
    if not content.strip():
        raise UsageError("Expected the names of images on stdin, got nothing: check the command before the pipe.")
    if (encoding := encoding_of(io.BytesIO(content))).startswith("utf-16"):
        content = content.decode(encoding, "replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    suffix = _suffix(content)
    if suffix == ".txt" and b"\0" in content:
        names = [os.fsdecode(name) for name in content.split(b"\0") if name.strip()]
        suffix, content = ".jsonl", "".join(f"{json.dumps(name)}\n" for name in names).encode()
    path = folder / f"stdin{suffix}"
    path.write_bytes(content)
    return path


def saved_entries(path: Path, columns: ListColumns) -> Iterator[Entry]:
    """Yield the entries of a saved list; its names are relative to the current folder, and messages call it stdin."""
    try:
        for entry in entries(path, columns=replace(columns, home=Path())):
            where, problem = as_stdin(entry.where, path), entry.problem and as_stdin(entry.problem, path)
            yield replace(entry, where=where, problem=problem)
    except DataError as error:
        raise type(error)(as_stdin(str(error), path)) from error


def as_stdin(message: str, path: Path) -> str:
    """Return a message about the copy of stdin at a path, of which the user knows nothing, as one about stdin."""
    return message.replace(shown(path), "stdin")


def _suffix(content: bytes) -> str:
    start = content.lstrip()
    if content.startswith(b"PAR1"):
        return ".parquet"
    if start[:1] in (b"{", b"["):
        return ".jsonl" if start.startswith(b"{") else ".json"
    first = content.partition(b"\n")[0].decode("utf-8", "replace").strip()
    cells = [cell.strip().strip('"').lower() for cell in first.split(delimiter_of(first + "\n"))]
    return ".csv" if any(cell in FILE_COLUMNS for cell in cells) else ".txt"
