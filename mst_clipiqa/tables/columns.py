"""A table in memory: one list of cells per column, because a dict per row takes several times the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload


class Table(Sequence[dict[str, Any]]):
    """The rows of a table, each of which is made when it is asked for.

    Args:
        rows: column -> cell; a column that a row lacks is None there.
        head: names of the columns, which a table without rows has too; rows may have further ones.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = (), head: Iterable[str] = ()) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in head}
        self._length = 0
        for row in rows:
            if not row.keys() <= self._columns.keys():
                self._columns |= {name: [None] * self._length for name in row if name not in self._columns}
            for name, cells in self._columns.items():
                cells.append(row.get(name))
            self._length += 1

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Table:
        """Return the rows as a table, which they may be already."""
        return rows if isinstance(rows, Table) else cls(rows)

    @property
    def head(self) -> list[str]:
        """Names of the columns, in order; empty if there are no rows and nothing lists them, as in .jsonl."""
        return list(self._columns)

    def column(self, name: str) -> Sequence[Any]:
        """Return the cell of each row in a column; None for each row if there is no such column."""
        return self._columns.get(name) or [None] * self._length

    def take(self, places: Sequence[int]) -> Table:
        """Return a table of the rows at these places, which count from 0."""
        columns = {name: [cells[place] for place in places] for name, cells in self._columns.items()}
        return self._of_columns(columns, len(places))

    def with_columns(self, columns: Mapping[str, list[Any]]) -> Table:
        """Return a table with these columns, a cell per row each, in place of those of the same name or at the end."""
        return self._of_columns(self._columns | dict(columns), self._length)

    def renamed(self, names: Mapping[str, str]) -> Table:
        """Return a table in which some columns have another name: old -> new."""
        return self._of_columns({names.get(name, name): cells for name, cells in self._columns.items()}, self._length)

    @staticmethod
    def _of_columns(columns: dict[str, list[Any]], length: int) -> Table:
        table = Table()
        table._columns, table._length = columns, length
        return table

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        if not self._columns:  # rows of JSON may be empty
            return iter([{} for _ in range(self._length)])
        names = self.head
        return (dict(zip(names, cells, strict=True)) for cells in zip(*self._columns.values(), strict=True))

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Table: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | Table:
        """Return a row, or a table of some rows."""
        if isinstance(place, slice):
            return self.take(range(self._length)[place])
        place = range(self._length)[place]  # an IndexError also without columns
        return {name: cells[place] for name, cells in self._columns.items()}

    def __eq__(self, other: object) -> bool:
        """Return whether the other has equal rows in the same order."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list
