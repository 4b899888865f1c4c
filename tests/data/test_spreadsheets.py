"""Spreadsheets with labels: of several sheets, the one that names images is read, and none is left out in silence."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from mst_clipiqa.data import load_rated_set
from mst_clipiqa.errors import DataError
from tests.rated_files import write_xlsx

TITLES: list[object] = ["File", "Prompt", "MOS"]
ROWS: list[list[object]] = [TITLES, ["a.png", 'a "red" ball\non a table', 3], ["b.png", 1984, 4.5]]


def with_sheets(path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def scores(path: Path) -> dict[str, float]:
    return {record.name: record.targets["quality"] for record in load_rated_set("csv", path, images=False).records}


@pytest.mark.parametrize("name", ["mine.xlsx", "MINE.XLSX"])
def test_prompts_may_have_lines_quotes_and_digits(tmp_path: Path, name: str) -> None:
    records = load_rated_set("csv", write_xlsx(tmp_path / name, ROWS), images=False).records
    assert [record.prompt for record in records] == ['a "red" ball\non a table', "1984"]


@pytest.mark.parametrize("first", [[["How we rated"], ["by ten people"]], []])
def test_a_first_sheet_without_images_is_passed_over(tmp_path: Path, first: list[list[object]]) -> None:
    assert scores(with_sheets(tmp_path / "mine.xlsx", about=first, ratings=ROWS)) == {"a.png": 3.0, "b.png": 4.5}


def test_images_in_two_sheets_are_refused(tmp_path: Path) -> None:
    path = with_sheets(tmp_path / "mine.xlsx", first=ROWS, second=[TITLES, ["c.png", "x", 2]])
    message = r"^Expected images in one sheet of .*mine\.xlsx', got 'first' and 'second': put all rows into one sheet"
    with pytest.raises(DataError, match=message):
        load_rated_set("csv", path, images=False)


def test_another_archive_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mine.csv", "file,mos\na.png,3\n")
    with pytest.raises(DataError, match=r"^Expected a spreadsheet, but .*mine\.xlsx' is another kind of file"):
        load_rated_set("csv", path, images=False)


def test_json_lines_and_parquet_may_end_in_capital_letters(tmp_path: Path) -> None:
    path = tmp_path / "MINE.JSONL"
    path.write_text('{"file": "a.png", "mos": 3}\n')
    assert scores(path) == {"a.png": 3.0}
