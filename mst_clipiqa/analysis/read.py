"""A table of scores, from a file or from stdin -> rows."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.stdin import as_stdin, temporary_folder
from mst_clipiqa.tables.columns import Table
from mst_clipiqa.tables.parquet import RUN_MANIFEST
from mst_clipiqa.tables.reading import TABLE_SUFFIXES, read_table
from mst_clipiqa.tables.sniff import encoding_of

_LOOKED_FOR = ("file", "prompt", "status")  # those that no flag names; other programs mean other things by the rest
_START = 1024  # bytes of a table on stdin that show its format
_STATUSES = {"ok", "error", "", None}  # in ``status``


def read_scores(source: str | Path) -> Table:
    """Return the rows of a table of scores.

    A table of another program may write ``file``, ``prompt`` and ``status`` with capital letters, as "Prompt"; they are
    named as ours. A status is ours only if it is never anything but "ok" or "error".

    Args:
        source: a .csv, .tsv, .jsonl or .parquet file, "-" for one of them on stdin, or the folder of Parquet parts that
            ``score-cluster`` wrote.

    Raises:
        UsageError: the file does not exist, or the run that writes the folder is not finished.
        DataError: the table cannot be read.
    """
    return _as_ours(_from_stdin() if str(source) == "-" else _from_place(Path(source)))


def _from_place(path: Path) -> Table:
    if is_parts(path):
        return _from_parts(path)
    if not path.is_file() or path.suffix.lower() not in (*TABLE_SUFFIXES, ".tsv"):
        found = "another kind of file" if path.exists() else "nothing of this name"
        raise UsageError(
            f"Expected a table of scores ({', '.join(TABLE_SUFFIXES)}), a folder of images, or - for stdin, "
            f"got {found}: {shown(path)}."
        )
    return read_table(path)


def _as_ours(table: Table) -> Table:
    """Return a table whose columns in ``_LOOKED_FOR`` have that name, unless two of them would have it."""
    head = table.head
    folded = [name.strip().casefold() for name in head]
    once = [name in _LOOKED_FOR and folded.count(name) == 1 for name in folded]
    spelled = {name: one for name, one, ours in zip(head, folded, once, strict=True) if ours and name != one}
    is_ours = {name: one != "status" or {*table.column(name)} <= _STATUSES for name, one in spelled.items()}
    return table.renamed({name: one for name, one in spelled.items() if is_ours[name]})


def image_folders(source: str | Path, images: Path | None) -> list[Path]:
    """Return where to look for the images of a table: the given folder, or here and next to the table."""
    if images is not None:
        return [images]
    if str(source) == "-":
        return [Path()]
    path = Path(source)
    return [Path(), path if path.is_dir() and not is_parts(path) else path.parent]


def is_parts(path: Path) -> bool:
    """Return whether a folder holds the Parquet parts of a table, and not images."""
    return path.is_dir() and ((path / RUN_MANIFEST).is_file() or any(path.glob("part-*.parquet")))


def _from_parts(folder: Path) -> Table:
    manifest = folder / RUN_MANIFEST
    try:
        state = json.loads(manifest.read_text(encoding="utf-8"))["state"] if manifest.is_file() else "complete"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"Expected the state of a run in {shown(manifest)}, got {shown(error)}: score again."
        ) from error
    if state != "complete":
        raise UsageError(
            f"Expected the parts of a finished run in {shown(folder)}, got those of an unfinished one: repeat its "
            "score-cluster command."
        )
    parts = [read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return Table((row for part in parts for row in part), dict.fromkeys(name for part in parts for name in part.head))


def _from_stdin() -> Table:
    """Return the rows of a table on stdin; its first bytes show its format."""
    content = sys.stdin.buffer.read()
    start = content[:_START]
    is_json = start.decode(encoding_of(io.BytesIO(start)), "replace").lstrip().startswith("{")
    suffix = ".parquet" if start.startswith(b"PAR1") else ".jsonl" if is_json else ".csv"
    if not content.strip():
        raise UsageError("Expected a table of scores on stdin, got nothing: check the command before the pipe.")
    folder = temporary_folder()
    path = folder / f"stdin{suffix}"
    try:
        path.write_bytes(content)
        return read_table(path)
    except DataError as error:
        raise DataError(as_stdin(str(error), path)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
