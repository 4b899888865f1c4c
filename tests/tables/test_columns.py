"""A table in memory: rows in, equal rows out, whatever columns each of them has."""

from __future__ import annotations

from typing import Any

import pytest

from mst_clipiqa.tables.columns import Table

ROWS: list[dict[str, Any]] = [
    {"file": "a.png", "quality": 1.0},
    {"file": "b.png", "quality": None},
    {"file": "c.png", "quality": 3},
]


def test_rows_come_back_in_order_one_by_one_and_in_slices() -> None:
    table = Table(ROWS)
    assert table == ROWS
    assert (len(table), table[0], table[-1]) == (3, ROWS[0], ROWS[-1])
    assert table[1:] == ROWS[1:]
    assert table != ROWS[:2]
    with pytest.raises(IndexError):
        table[3]


def test_a_column_that_a_row_lacks_is_none_there() -> None:
    table = Table([{"file": "a.png"}, {"seed": 7}, {}])
    assert table.head == ["file", "seed"]
    assert table == [{"file": "a.png", "seed": None}, {"file": None, "seed": 7}, {"file": None, "seed": None}]
    assert table.column("seed") == [None, 7, None]
    assert table.column("prompt") == [None, None, None]


def test_a_table_without_rows_has_its_head_and_rows_without_cells_count() -> None:
    assert Table(head=["file", "prompt"]).head == ["file", "prompt"]
    assert list(Table(head=["file", "prompt"])) == []
    assert Table([{}, {}]) == [{}, {}]
    assert Table([{}, {}]).take([1]) == [{}]


def test_some_rows_further_columns_and_other_names_leave_the_table_as_it_was() -> None:
    table = Table(ROWS)
    assert table.take([2, 0]) == [ROWS[2], ROWS[0]]
    assert table.with_columns({"rank": [1, 2, 3], "file": ["x", "y", "z"]})[1] == {
        "file": "y",
        "quality": None,
        "rank": 2,
    }
    assert table.renamed({"file": "name", "other": "more"}).head == ["name", "quality"]
    assert table == ROWS
