"""Rows on disk as they come, so that a run that is killed loses none that it had finished.

``scores.csv`` is written as ``scores.csv.part`` first: JSON lines, the first with the names of the columns and what
made the rows, then one list a row, each handed to the system whole. Killed at any moment, the file holds whole rows and
at most one torn one at its end, which reading skips and continuing cuts off. It is the same for every final format, so
there is one way to take up a run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.tables.cells import Cell, to_json

_MARK = "mst_clipiqa_rows"  # the key of the first line; its value is the version of this format
_VERSION = 1
_START = f'{{"{_MARK}": '.encode()
_OPEN = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_APPEND
    | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY", "O_NONBLOCK"))
)


def journal_of(path: str | os.PathLike[str]) -> Path:
    """Return where the rows of an unfinished table lie."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def read_journal(path: str | os.PathLike[str]) -> Iterator[dict[str, Cell]]:
    """Yield the rows of a ``.part`` file in order, without the one that was torn off while it was written.

    Args:
        path: of the ``.part`` file (``journal_of``).

    Yields:
        dict: column -> text, number (an int stays one) or None.

    Raises:
        DataError: there is no such file, it is not one of ours, or it is damaged before its end.
    """
    try:
        with _opened(path) as file:
            columns, _, rows = _read(file, path)
            for row, _ in rows:
                yield dict(zip(columns, row, strict=True))
    except OSError as error:
        raise DataError(f"Expected unfinished rows, but {shown(path)}: {error.strerror or error}.") from error


def origin_of(path: str | os.PathLike[str]) -> dict[str, str] | None:
    """Return what made the rows of a ``.part`` file, or None where there is none or no whole first line.

    Raises:
        DataError: it is not one of ours.
    """
    try:
        with _opened(path) as file:
            columns, origin, _ = _read(file, path)
            return origin if columns else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"Expected unfinished rows, but {shown(path)}: {error.strerror or error}.") from error


def check_free(path: Path) -> None:
    """Raise a UsageError if another run is writing a ``.part`` file that exists."""
    with _opened(path) as file:
        _lock(file.fileno(), path)


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a ``.part`` file for reading, never waiting for a pipe that has its name."""
    return os.fdopen(os.open(path, os.O_RDONLY | _OPEN & ~(os.O_RDWR | os.O_CREAT | os.O_APPEND)), "rb")


class Journal:
    """The ``.part`` file of one table, open for appending and locked against a second writer.

    Args:
        path: of the ``.part`` file.
        columns: their names, in order.
        resume: keep the whole rows that are there already; otherwise start anew.
        origin: what makes the rows (model, options), kept in the first line of a new file.

    Raises:
        UsageError: the file cannot be written, another run writes it, or it has other columns.
        DataError: it is not one of ours, or it is damaged before its end.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], *, resume: bool = False, origin: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self.columns = list(columns)
        self.rows = 0
        with _writing(path):
            self._descriptor = os.open(path, _OPEN, 0o666)
        try:
            _lock(self._descriptor, path)
            self._end = self._whole(resume)
            with _writing(path):
                os.ftruncate(self._descriptor, self._end)
            if not self._end:
                self._write({_MARK: _VERSION, "columns": self.columns, "origin": dict(origin or {})})
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, row: Sequence[Cell]) -> int:
        """Write one row and return its place; once this returns, the row outlives the process.

        Raises:
            UsageError: the disk is full or gone; what was written before is whole.
        """
        place = self._end
        self._write(row)
        self.rows += 1
        self.keep()
        return place

    def __iter__(self) -> Iterator[list[Cell]]:
        """Yield all rows from the first, from the open file: also when its name is gone."""
        for row, _ in self.placed():
            yield row

    def placed(self) -> Iterator[tuple[list[Cell], int]]:
        """Yield all rows from the first, each with the place from where ``at`` finds it again."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            _, _, rows = _read(file, self.path)
            place = file.tell()
            for row, end in rows:
                yield row, place
                place = end

    def at(self, place: int) -> list[Cell]:
        """Return the row that ``placed`` found at a place."""
        with _writing(self.path), os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(place)
            row: list[Cell] = json.loads(file.readline())
            return row

    def sync(self) -> None:
        """Wait until all rows would outlive a power cut."""
        with _writing(self.path):
            os.fsync(self._descriptor)

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file; optionally remove it."""
        if remove:
            with contextlib.suppress(OSError):  # gone already, or its folder is
                self.path.unlink()
        os.close(self._descriptor)

    def keep(self) -> None:
        """Write the rows under their name again, if someone has removed it, perhaps with its folder."""
        with _writing(self.path):
            if os.fstat(self._descriptor).st_nlink:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = os.open(self.path, _OPEN | os.O_EXCL, 0o666)
            try:
                _lock(fresh, self.path)
                with os.fdopen(os.dup(self._descriptor), "rb") as old, os.fdopen(os.dup(fresh), "wb") as new:
                    old.seek(0)
                    shutil.copyfileobj(old, new)
                os.dup2(fresh, self._descriptor, inheritable=False)
            finally:
                os.close(fresh)

    def _whole(self, resume: bool) -> int:
        """Return where the last whole row ends; 0 to start anew. A file that is not ours is never overwritten."""
        with _writing(self.path), os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            columns, _, rows = _read(file, self.path)
            end = file.tell()
            if not columns or not resume:
                return 0
            if columns != self.columns:
                raise UsageError(
                    f"Expected the columns {self.columns} in {shown(self.path)}, got {columns}: "
                    "remove it to start anew."
                )
            for _, last in rows:
                end = last
                self.rows += 1
        return end

    def _write(self, value: object) -> None:
        data = memoryview(to_json(value) + b"\n")
        length = len(data)
        with _writing(self.path):
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._end)  # no half row in front of the next
                raise
        self._end += length


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Expected to be able to write {shown(path)}, got {error.strerror or error}: make room or choose another "
            "output; the rows so far are kept for --resume."
        ) from error


def _read(file: BinaryIO, path: object) -> tuple[list[str], dict[str, str], Iterator[tuple[list[Cell], int]]]:
    """Return the columns ([] if not even they are whole), the origin, and an iterator of (row, offset of its end)."""
    head = file.readline()
    if not head.endswith(b"\n") and head[: len(_START)] == _START[: len(head)]:
        return [], {}, iter(())
    first = _parsed(head)
    columns = first.get("columns") if isinstance(first, dict) and first.get(_MARK) == _VERSION else None
    if not isinstance(columns, list):
        raise DataError(f"Expected unfinished rows in {shown(path)}, got another file: move it away.")
    origin = first.get("origin")
    return columns, origin if isinstance(origin, dict) else {}, _rows(file, path, len(columns))


def _rows(file: BinaryIO, path: object, width: int) -> Iterator[tuple[list[Cell], int]]:
    torn = None
    end = file.tell()
    for number, line in enumerate(file, 2):
        if torn is not None:
            raise DataError(
                f"Expected whole rows in {shown(path)}, got a damaged line {torn}: remove it to start anew."
            )
        row = _parsed(line) if line.endswith(b"\n") else None
        end += len(line)
        if isinstance(row, list) and len(row) == width:
            yield row, end
        else:
            torn = number


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _lock(descriptor: int, path: Path) -> None:
    """Keep a second run from writing the same table; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"Expected to be the only one who writes {shown(path)}, got another run: wait, or choose another output."
        ) from error
    except OSError:  # a file system without locks
        return
