"""Unfinished rows on disk, so that a killed run keeps every row that it finished.

``scores.csv`` is first written as ``scores.csv.part``, an SQLite file that one run keeps locked; while it runs, SQLite
has a second file, ``scores.csv.part-wal``. Each row is a transaction of its own, so it survives a kill at any moment.
The file is the same for every final format, so there is one way to resume.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, disk_advice, shown
from mst_clipiqa.tables.cells import Cell, from_json, to_json

_APPLICATION_ID = 0x4D53543A  # SQLite's application_id
_TABLES = {
    "head": "(columns TEXT NOT NULL, origin TEXT NOT NULL)",
    "rows": "(number INTEGER PRIMARY KEY, key BLOB NOT NULL, cells TEXT NOT NULL)",
    "earlier": "(key BLOB PRIMARY KEY, cells TEXT NOT NULL)",
}


def journal_of(path: str | os.PathLike[str]) -> Path:
    """Return the path of a table's unfinished rows."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def origin_of(path: str | os.PathLike[str]) -> dict[str, str] | None:
    """Return the origin of the rows of a ``.part`` file, or None if there is no such file or it is empty.

    Raises:
        DataError: it is not one of ours.
        UsageError: a run is writing it.
    """
    if not Path(path).is_file():
        return None
    with _existing(Path(path)) as (_, columns, origin):
        return origin if columns else None


def has_rows(path: Path) -> bool:
    """Return whether a ``.part`` file has rows, of the last run or of those before; errors as for ``origin_of``."""
    if not path.is_file():
        return False
    with _existing(path) as (db, columns, _):
        return bool(columns) and any(db.execute(f"SELECT 1 FROM {t} LIMIT 1").fetchone() for t in ("rows", "earlier"))


class Journal:
    """The ``.part`` file of one table, open and locked against a second run.

    Args:
        path: of the ``.part`` file.
        columns: their names, in order.
        key: the columns by which ``find`` finds rows of earlier runs.
        resume: keep the rows that exist; otherwise start anew.
        origin: what makes the rows (model, options).

    Raises:
        UsageError: the file cannot be written, another run writes it, or it has other columns.
        DataError: it is not one of ours, or it is damaged.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        *,
        key: Sequence[str] = (),
        resume: bool = False,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.columns = list(columns)
        self._key = [self.columns.index(name) for name in key]
        with _reported(path):
            self._db = _open(path)
        try:
            with _reported(path):
                had, _ = _head(self._db)
                if not had or not resume:
                    self._start(dict(origin or {}))
                elif had != self.columns:
                    raise UsageError(
                        f"Expected the columns {self.columns} in {shown(path)}, got {had}: remove it to start anew."
                    )
                self.rows: int = self._db.execute("SELECT count(*) FROM rows").fetchone()[0]
        except BaseException:
            self._db.close()
            raise

    def _start(self, origin: dict[str, str]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            for name, fields in _TABLES.items():
                self._db.execute(f"DROP TABLE IF EXISTS {name}")
                self._db.execute(f"CREATE TABLE {name} {fields}")
            head = (to_json(self.columns).decode(), to_json(origin).decode())
            self._db.execute("INSERT INTO head VALUES (?, ?)", head)

    def append(self, row: Sequence[Cell]) -> None:
        """Write one row; once this returns, the row survives the process.

        Raises:
            UsageError: the disk is full or gone; the rows before are kept.
        """
        self.keep()
        with _reported(self.path):
            cells = to_json(row).decode()
            self._db.execute(
                "INSERT INTO rows (key, cells) VALUES (?, ?)", (_digest([row[at] for at in self._key]), cells)
            )
        self.rows += 1

    def __iter__(self) -> Iterator[list[Cell]]:
        """Yield all rows of this run, from the first; DataError if the file is damaged."""
        with _reported(self.path):
            for (cells,) in self._db.execute("SELECT cells FROM rows ORDER BY number"):
                yield from_json(cells)

    def set_aside(self) -> int:
        """Turn the rows so far into rows of earlier runs, for ``find``, and return how many of these there are."""
        with _reported(self.path), self._db:
            self._db.execute("BEGIN")
            self._db.execute("INSERT OR REPLACE INTO earlier SELECT key, cells FROM rows ORDER BY number")
            self._db.execute("DELETE FROM rows")
        self.rows = 0
        return self.earlier

    @property
    def earlier(self) -> int:
        """How many rows of earlier runs there are; DataError if the file is damaged."""
        with _reported(self.path):
            count: int = self._db.execute("SELECT count(*) FROM earlier").fetchone()[0]
        return count

    def find(self, key: Sequence[Cell]) -> dict[str, Cell] | None:
        """Return the row of an earlier run whose key columns have these values, or None."""
        with _reported(self.path):
            found = self._db.execute("SELECT cells FROM earlier WHERE key = ?", (_digest(key),)).fetchone()
        return dict(zip(self.columns, from_json(found[0]), strict=True)) if found else None

    def close(self, *, remove: bool = False) -> None:
        """Close the file; optionally remove it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if remove:
            with contextlib.suppress(NotADirectoryError):  # nor is it there if a file has its folder's place
                self.path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Write the rows under their name again if someone has removed it, perhaps with its folder."""
        if self.path.exists():
            return
        with _reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db.execute("VACUUM INTO ?", (str(self.path),))
            self._db.close()
            self._db = _open(self.path)


def _digest(key: Sequence[Cell]) -> bytes:
    return hashlib.blake2b(to_json(key), digest_size=16).digest()


def _open(path: Path) -> sqlite3.Connection:
    """Open a ``.part`` file, made if missing, and lock it. What is no SQLite file is never written to."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DataError(f"Expected unfinished rows in {shown(path)}, got a link, folder or device: move it away.")
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")  # before the first access, so that no -shm file is needed
        ours = db.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise DataError(f"Expected unfinished rows in {shown(path)}, got another database: move it away.")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        with db:
            db.execute("BEGIN IMMEDIATE")  # takes the lock, which EXCLUSIVE keeps
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what a killed run left in -wal
    except BaseException:
        db.close()
        raise
    return db


def _head(db: sqlite3.Connection) -> tuple[list[str], dict[str, str]]:
    """Return the columns and the origin; ([], {}) if the file is empty."""
    if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'head'").fetchone()[0]:
        return [], {}
    columns, origin = db.execute("SELECT columns, origin FROM head").fetchone()
    return json.loads(columns), json.loads(origin)


@contextlib.contextmanager
def _existing(path: Path) -> Iterator[tuple[sqlite3.Connection, list[str], dict[str, str]]]:
    with _reported(path), contextlib.closing(_open(path)) as db:
        yield db, *_head(db)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the system into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _code(error) == sqlite3.SQLITE_BUSY:
            raise UsageError(
                f"Expected to be the only run that writes {shown(path)}, got another run: wait, or choose "
                "another output."
            ) from error
        raise _unwritable(path, str(error), _advice(error)) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), _place_advice(error)) from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"Expected unfinished rows in {shown(path)}, got another file or a damaged one ({error}): move it away."
        ) from error


def _code(error: sqlite3.OperationalError) -> int:
    """Return SQLite's code; 0 if the error is of Python's module, which has none."""
    return getattr(error, "sqlite_errorcode", 0)


def _advice(error: sqlite3.OperationalError) -> str:
    """Return what helps; the low byte of SQLite's code names the kind of error."""
    kind = _code(error) & 0xFF
    if kind == sqlite3.SQLITE_READONLY:
        return "make the file and its disk writable"
    return "make its folder writable" if kind == sqlite3.SQLITE_CANTOPEN else "free some space"


def _place_advice(error: OSError) -> str:
    """Return what helps if a folder cannot be made again."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "move away the file that has its folder's place"
    return "make its folder writable" if isinstance(error, PermissionError) else disk_advice(error) or "free some space"


def _unwritable(path: Path, why: str, advice: str) -> UsageError:
    is_there = os.path.exists(path)  # noqa: PTH110 - a Path may raise where there can be no such file
    rows = "the rows so far are kept for --resume" if is_there else "no rows are left for --resume"
    return UsageError(
        f"Expected to be able to write {shown(path)}, got {why}: {advice} or choose another output; {rows}."
    )
