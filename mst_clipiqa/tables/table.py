"""Tables out: one writer for ``.csv``, ``.jsonl`` and ``.parquet``.

Rows are collected in a journal (``journal.py``), and the table appears with one rename, so it is whole or missing.
Numbers read back equal, None is an empty cell (null), and text reads back unchanged. In CSV, text that a spreadsheet
would run or take for a number has a single quote in front (``cells.py``). Lone surrogates survive in JSON lines; CSV
and Parquet are UTF-8 and hold them as escapes such as ``\\udce9``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from mst_clipiqa.errors import UsageError, disk_advice, shown
from mst_clipiqa.tables import parquet
from mst_clipiqa.tables.atomic import atomic
from mst_clipiqa.tables.cells import Cell, csv_cell, csv_header, csv_line, plain, to_json
from mst_clipiqa.tables.journal import Journal, journal_of
from mst_clipiqa.tables.reading import suffix_of


class TableWriter:
    """Writes a table row by row; the file appears, whole, when it is closed.

    Leaving the ``with`` block because of an exception leaves the rows in ``<path>.part`` (``journal_of``), from which
    ``resume=True`` continues.

    Args:
        path: ends in .csv, .jsonl or .parquet; an older file of this name is replaced at the end, and missing folders
            are made.
        columns: their names, in order; or name -> str, int or float, the type that Parquet gets even if the column
            stays empty.
        resume: keep the rows of a run that did not finish; ``rows`` is their number.
        hidden: further columns, kept in the ``.part`` file only.
        key: the columns by which ``earlier`` finds rows.
        origin: what makes the rows (model, options), likewise kept (``journal.origin_of``).

    Raises:
        UsageError: unknown suffix, a folder that cannot be made, not writable, another run writes it, or other
            columns (resume).
        DataError: the rows to resume from are damaged.

    Example:
        >>> with TableWriter("scores.csv", ["file", "quality"]) as table:  # doctest: +SKIP
        ...     table.append({"file": "a.png", "quality": 3.25})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[str] | Mapping[str, type],
        *,
        resume: bool = False,
        hidden: Sequence[str] = (),
        key: Sequence[str] = (),
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.columns = list(columns)
        self._kept = [*self.columns, *hidden]
        self._types = dict(columns) if isinstance(columns, Mapping) else {}
        check_table_output(self.path)
        _check_place(self.path)
        _check_length(self.path)
        self._journal = Journal(journal_of(self.path), self._kept, key=key, resume=resume, origin=origin)
        self._is_open = True

    @property
    def rows(self) -> int:
        """Number of rows written, including those kept by ``resume``."""
        return self._journal.rows

    def set_aside(self) -> int:
        """Start the table anew but keep the rows so far for ``earlier``; return how many of these there are."""
        return self._journal.set_aside()

    def earlier(self, *key: Cell) -> dict[str, Cell] | None:
        """Return the row of an earlier run whose key columns have these values, or None."""
        return self._journal.find(key)

    def append(self, row: Mapping[str, Cell]) -> None:
        """Write one row; missing columns are None.

        Raises:
            UsageError: the disk is full or gone.
            TypeError: there is an unknown column, or a value that is neither text, a number nor None.
        """
        if unknown := row.keys() - set(self._kept):
            raise TypeError(f"Expected the columns {self._kept}, got {sorted(unknown)} besides.")
        self._journal.append([plain(row.get(column)) for column in self._kept])

    def close(self) -> None:
        """Write the final file from the rows; on an error they stay in the ``.part`` file.

        Raises:
            UsageError: the file cannot be written.
            DataError: the ``.part`` file is damaged.
        """
        if not self._is_open:
            return
        self._is_open = False
        is_done = False
        try:
            self._journal.keep()
            # One name for all runs, so that kills leave one draft at most; the lock keeps others away.
            with atomic(self.path, sync=True, beside=self.path.with_name(self.path.name + ".new")) as file:
                _convert(file, self.path, self.columns, self._types, self._rows)
            is_done = True
        except OSError as error:
            raise UsageError(
                f"Expected to be able to write {shown(self.path)}, got {error.strerror or error}: the rows are kept "
                f"in {shown(self._journal.path)}; {_advice(error)} and continue with --resume."
            ) from error
        finally:
            self._journal.close(remove=is_done)

    def abandon(self) -> None:
        """Stop without a final file; the rows stay in the ``.part`` file, which is removed if there are none.

        Raises:
            UsageError: someone has removed the ``.part`` file, and it cannot be written again.
            DataError: the ``.part`` file is damaged.
        """
        if self._is_open:
            self._is_open = is_empty = False
            try:
                is_empty = not self.rows and not self._journal.earlier
                if not is_empty:
                    self._journal.keep()
            finally:
                self._journal.close(remove=is_empty)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _rows(self) -> Iterator[list[Cell]]:
        return (row[: len(self.columns)] for row in self._journal)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write rows that are in memory as a table, which appears whole or not at all; see ``TableWriter``.

    Raises:
        UsageError: unknown suffix, a folder that cannot be made, or not writable.
        TypeError: a value is neither text, a number nor None.
    """
    check_table_output(path)
    _check_place(path)

    def cells() -> Iterator[list[Cell]]:
        return ([plain(row.get(column)) for column in columns] for row in rows)

    try:
        with atomic(path, sync=True) as file:
            _convert(file, path, columns, {}, cells)
    except OSError as error:
        raise UsageError(
            f"Expected to be able to write {shown(path)}, got {error.strerror or error}: {_advice(error)}, or choose "
            "another output."
        ) from error


def _advice(error: OSError) -> str:
    """Return advice for an error of writing; Windows replaces no file that another program has open."""
    if isinstance(error, PermissionError):
        return "close the table in other programs" if os.name == "nt" else "make its folder writable"
    return disk_advice(error) or "free some space"


def check_table_output(path: Path) -> None:
    """Raise a UsageError if no table can have this name, or if what writes it is not installed."""
    if suffix_of(path, UsageError) == ".parquet":
        parquet.pyarrow()  # missing now, not after hours of work


def _convert(
    file: BinaryIO,
    path: Path,
    columns: Sequence[str],
    types: Mapping[str, type],
    rows: Callable[[], Iterable[Sequence[Cell]]],
) -> None:
    """Write rows, which may be asked for twice, in the format that a path names."""
    match path.suffix.lower():
        case ".csv":
            file.write(csv_header(columns))
            file.writelines(csv_line([csv_cell(cell) for cell in row]) for row in rows())
        case ".jsonl":
            file.writelines(to_json(dict(zip(columns, row, strict=True))) + b"\n" for row in rows())
        case _:
            parquet.write(file, parquet.kinds(columns, types, rows()), rows())


def _check_place(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"Expected a folder for the output, but {shown(path.parent)} cannot be made: {why}."
        ) from error
    if path.exists() and not path.is_file():
        raise UsageError(f"Expected the output to be a file, got a folder or device: {shown(path)}.")
    if path.exists() and not path.stat().st_mode & 0o222:  # also for root, who may write all files
        raise UsageError(
            f"Expected an output that may be replaced, got the read-only file {shown(path)}: make it writable, or "
            "choose another output."
        )


def _check_length(path: Path) -> None:
    """Raise a UsageError if no file can have the longest of the names that unfinished rows need."""
    journal = journal_of(path)
    try:
        os.lstat(journal.with_name(f"{journal.name}-journal"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(
            f"Expected an output whose unfinished rows can be kept beside it, got {shown(path)} "
            f"({error.strerror or error}): {disk_advice(error) or 'choose another output'}."
        ) from error
