"""Resume long runs without losing rows, scoring any twice, or keeping stale ones.

The rows of earlier runs stay in ``scores.csv.part`` and are found again by file, prompt and stamp, so that files may
come, go or change in between. The new run writes its rows in the order of its own files and copies those that are
known. The file is removed once the table is whole, so a kill at any moment loses no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.errors import UsageError, counted, shown
from mst_clipiqa.tables.cells import Cell, plain
from mst_clipiqa.tables.journal import has_rows, journal_of, origin_of
from mst_clipiqa.tables.reading import stream_table
from mst_clipiqa.tables.stamps import changed_at, check_past, is_ahead
from mst_clipiqa.tables.table import TableWriter

STAMP = "_stamp"
"""The hidden column with the state of the file that a row is about."""


class Earlier:
    """Rows of earlier runs of one table.

    Args:
        table: that holds them, open.
    """

    def __init__(self, table: TableWriter) -> None:
        self._table = table
        self._count = table.set_aside()

    def __len__(self) -> int:
        return self._count

    def find(self, file: str, prompt: str | None, stamp: str | None) -> dict[str, Cell] | None:
        """Return the row of a file with this prompt in this state, or None; only failures for a file without state."""
        row = self._table.earlier(plain(file), plain(prompt), stamp)
        return None if row and row["status"] == "ok" and stamp is None else row


def refuse_unfinished(output: Path) -> None:
    """Refuse to start anew over the rows of a run that did not finish.

    Raises:
        UsageError: there are such rows, or another run is writing them.
    """
    part = journal_of(output)
    if has_rows(part):
        raise UsageError(
            f"Expected no unfinished rows of {shown(output)}, got {shown(part)}: continue with --resume, or remove it "
            "to start anew."
        )


def is_finished(output: Path) -> bool:
    """Return whether there is a table and no run of it to continue."""
    return output.is_file() and not journal_of(output).exists()


@dataclass(frozen=True)
class Finished:
    """What a finished table shows of the run that wrote it.

    Attributes:
        origin: its model and columns, as far as there are rows that name them.
        failed: how many rows failed.
        known: the hash of the file and prompt of each row.
        written: when the table was written, in ns.
    """

    origin: dict[str, str]
    failed: int
    known: frozenset[int]
    written: int

    @classmethod
    def read(cls, output: Path) -> Finished:
        """Read a table; DataError if it is none."""
        origin: dict[str, str] = {}
        known, failed = set(), 0
        for row in stream_table(output):
            origin.setdefault("columns", ", ".join(row))
            if row.get("model") is not None:
                origin.setdefault("model", str(row["model"]))
            failed += row.get("status") == "error"
            known.add(hash((row.get("file"), row.get("prompt"))))
        return cls(origin, failed, frozenset(known), output.stat().st_mtime_ns)

    def check(
        self, origin: Mapping[str, str], asked: Iterable[tuple[str, str | None, str | None]], output: Path
    ) -> None:
        """Refuse another model, other columns, images or prompts without a row, and images newer than the table.

        Args:
            origin: of the rows that are asked for, as ``table_of`` takes it.
            asked: file, prompt and path of each row that is asked for; the path is None if there is none.
            output: the table.

        Raises:
            UsageError: one of them differs.
        """
        check_same(self.origin, {name: origin[name] for name in self.origin}, output, "omit --resume")
        check_past(self.written, output, "omit --resume to score all images")
        lacking, newer, last = [], [], 0
        for file, prompt, path in asked:
            if hash((plain(file), plain(prompt))) not in self.known:
                lacking.append(file)
            elif (changed := changed_at(path)) > self.written:
                newer.append(file)
                last = max(last, changed)
        if lacking:
            raise UsageError(
                f"Expected a row for every image and prompt in {shown(output)}, which is finished, got none for "
                f"{len(lacking):,} (the first: {shown(lacking[0])}): omit --resume to score all images; those in the "
                "--cache of earlier runs are not computed again."
            )
        if newer:
            found = f"{counted(len(newer), 'newer one')} (the first: {shown(newer[0])})"
            first = "correct their times, of which one is in the future, and " if is_ahead(last) else ""
            raise UsageError(
                f"Expected images older than {shown(output)}, which is finished, got {found}: {first}omit --resume to "
                "score all of them."
            )


def check_same(had: Mapping[str, str], now: Mapping[str, str], path: Path, instead: str = "remove the file") -> None:
    """Raise a UsageError that names the first thing in which two origins of rows differ."""
    for name in now:
        if had.get(name) != now[name]:
            raise UsageError(
                f"Expected {name} {shown(had.get(name, 'unknown'))} as in {shown(path)}, got {shown(now[name])}: "
                f"use the settings of that run, or {instead} to start anew."
            )


@contextmanager
def table_of(
    output: Path, columns: Mapping[str, type], origin: Mapping[str, str], *, resume: bool
) -> Iterator[tuple[TableWriter, Earlier | None]]:
    """Yield the writer of a table and, with ``resume``, the rows of earlier runs."""
    part = journal_of(output)
    had = origin_of(part) if resume else None
    if had is not None:
        check_same(had, origin, part)
    key = ("file", "prompt", STAMP)
    with TableWriter(output, columns, hidden=[STAMP], key=key, resume=had is not None, origin=origin) as table:
        yield table, None if had is None else Earlier(table)
