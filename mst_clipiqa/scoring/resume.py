"""Stopping a long run and going on with it: no row lost, none scored twice, none kept that is no longer true.

The rows of the run before (``scores.csv.part``) are gathered in ``scores.csv.part.old`` and found again by file, prompt
and stamp, so that files may come, go or change in between. The new run writes a table of its own, in the order of its
own files, and copies what is known. The old rows go once the table is whole: killed at any moment, one of the two files
has every row.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.tables.cells import Cell, utf8
from mst_clipiqa.tables.journal import Journal, check_free, journal_of, origin_of, read_journal
from mst_clipiqa.tables.table import TableWriter

_T = TypeVar("_T")

STAMP = "_stamp"
"""The hidden column that says which state of a file a row is about."""


def stamp_of(path: str | None) -> str | None:
    """Return the state of a file, its size and time of change, or None where it cannot be seen."""
    try:
        info = os.stat(path) if path is not None else None  # noqa: PTH116 - once an image, and Path makes it slower
    except (OSError, ValueError):
        return None
    return f"{info.st_size}-{info.st_mtime_ns}" if info else None


class Earlier:
    """Rows of earlier runs of one table; in memory are about 150 bytes a row, the rows stay on disk.

    Args:
        journal: that holds them; its columns are file, prompt, status and the hidden ones among others.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._places: dict[int, int] = {}
        for row, place in journal.placed():
            self._places[_key(self._named(row))] = place

    def __len__(self) -> int:
        return len(self._places)

    def add(self, row: Sequence[Cell]) -> None:
        """Keep a row that is not there yet, or that is there as a failure."""
        named = self._named(row)
        had = self._at(named)
        if had is None or had["status"] != "ok" == named["status"]:
            self._places[_key(named)] = self._journal.append(row)

    def find(self, file: str, prompt: str | None, stamp: str | None) -> dict[str, Cell] | None:
        """Return the row of a file with this prompt in this state, or None; a file that cannot be seen has failures."""
        row = self._at({"file": file, "prompt": prompt, STAMP: stamp})
        return None if row and row["status"] == "ok" and stamp is None else row

    def close(self, *, remove: bool = False) -> None:
        """Let go of the rows; remove them once the table that has them is whole."""
        self._journal.close(remove=remove)

    def sync(self) -> None:
        """Wait until the rows would outlive a power cut."""
        self._journal.sync()

    def _named(self, row: Sequence[Cell]) -> dict[str, Cell]:
        return dict(zip(self._journal.columns, row, strict=True))

    def _at(self, wanted: Mapping[str, Cell]) -> dict[str, Cell] | None:
        place = self._places.get(_key(wanted))
        if place is None:
            return None
        row = self._named(self._journal.at(place))
        is_it = all(row[name] == wanted[name] for name in ("file", "prompt", STAMP))  # keys are hashes
        return row if is_it else None


def gather(output: Path, columns: Sequence[str], origin: Mapping[str, str]) -> Earlier | None:
    """Return the rows that earlier runs left of a table, or None where there are none.

    Args:
        output: the table to be.
        columns: of its journal, the hidden ones included.
        origin: what makes the rows now.

    Raises:
        UsageError: another run writes the table, or the rows were made otherwise; the message names what differs.
        DataError: the rows are damaged.
    """
    part = journal_of(output)
    old = part.with_name(part.name + ".old")
    had = {path: found for path in (part, old) if (found := origin_of(path)) is not None}
    if not had:
        return None
    for path, found in had.items():
        check_same(found, origin, path)
    with closing(Journal(part, columns, resume=True, origin=origin)) as journal:  # holds the lock as long as needed
        earlier = Earlier(Journal(old, columns, resume=True, origin=origin))
        try:
            for row in journal:
                earlier.add(row)
            earlier.sync()
        except BaseException:
            earlier.close()
            raise
    return earlier


def refuse_unfinished(output: Path) -> None:
    """Refuse to start anew over the rows of a run that did not finish.

    Raises:
        UsageError: there are such rows, or another run is writing them.
    """
    part = journal_of(output)
    for path in (part, part.with_name(part.name + ".old")):
        if origin_of(path) is None:
            continue
        check_free(path)
        if next(read_journal(path), None):
            raise UsageError(
                f"Expected no unfinished rows of {shown(output)}, got {shown(path)}: go on with --resume, "
                "or remove it to start anew."
            )


def check_same(had: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    """Raise a UsageError that names the first thing in which two origins of rows differ."""
    for name in now:
        if had.get(name) != now[name]:
            raise UsageError(
                f"Expected {name} {shown(had.get(name, 'unknown'))} as in {shown(path)}, got {shown(now[name])}: "
                "go on as the run began, or remove the file to start anew."
            )


def _key(row: Mapping[str, Cell]) -> int:
    """Return a hash of what a row is about; equal keys are looked at again, so a collision costs no row."""
    return hash(tuple(utf8(str(row[name])) if row[name] is not None else None for name in ("file", "prompt", STAMP)))


@contextmanager
def table_of(
    output: Path, columns: Mapping[str, type], origin: Mapping[str, str], *, resume: bool
) -> Iterator[tuple[TableWriter, Earlier | None]]:
    """Yield the writer of a table and, with ``resume``, the rows of earlier runs, which go once the table is whole."""
    earlier = gather(output, [*columns, STAMP], origin) if resume else None
    is_whole = False
    try:
        with TableWriter(output, columns, hidden=[STAMP], origin=origin) as table:
            yield table, earlier
        is_whole = True
    finally:
        if earlier is not None:
            earlier.close(remove=is_whole)


class Stopped(Exception):
    """A run that was asked to stop has finished its batch; the message says how many rows it leaves."""


@dataclass
class Stop:
    """Whether someone has asked the run to stop: the number of the signal, or 0."""

    asked: int = 0

    def between(self, rows: Iterable[_T], every: int) -> Iterator[_T]:
        """Pass rows on; once asked to, raise Stopped after a batch of ``every`` rows."""
        for number, row in enumerate(rows, 1):
            yield row
            if self.asked and number % every == 0:
                raise Stopped(f"{number:,} rows are written.")

    @classmethod
    @contextmanager
    def listening(cls, wanted: bool = True) -> Iterator[Stop]:
        """Note a first Ctrl-C or SIGTERM for the block to see, instead of breaking in; a second one breaks in."""
        stop = cls()
        if not wanted or threading.current_thread() is not threading.main_thread():  # only there are signals heard
            yield stop
            return

        def note(number: int, _: FrameType | None) -> None:
            if stop.asked:
                raise KeyboardInterrupt
            stop.asked = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
