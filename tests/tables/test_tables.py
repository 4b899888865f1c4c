"""Tables: what is written reads back equal, survives a kill, and runs nothing in a spreadsheet."""

from __future__ import annotations

import contextlib
import copy
import csv
import errno
import io
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mst_clipiqa.errors import DataError, MstClipiqaError, UsageError
from mst_clipiqa.tables import reading
from mst_clipiqa.tables.cells import csv_cell, from_csv_cell
from mst_clipiqa.tables.journal import Journal, journal_of, origin_of
from mst_clipiqa.tables.reading import read_table, stream_table
from mst_clipiqa.tables.sniff import delimiter_of, encoding_of
from mst_clipiqa.tables.table import TableWriter, write_table
from tests.unfinished import unfinished_rows

COLUMNS = ["file", "prompt", "quality", "width"]
ROWS: list[dict[str, Any]] = [
    {"file": "a.png", "prompt": "a red ball, on a table", "quality": 0.1 + 0.2, "width": 512},
    {"file": "=cmd|' /C calc'!A1.png", "prompt": 'she said "hi"\nand left', "quality": -1e-300, "width": 1},
    {"file": "ü\udce9.png", "prompt": None, "quality": None, "width": None},
    {"file": "42", "prompt": "", "quality": 5.0, "width": 0},
]
GOLDEN = {
    ".csv": (
        "file,prompt,quality,width\n"
        'a.png,"a red ball, on a table",0.30000000000000004,512\n'
        '\'=cmd|\' /C calc\'!A1.png,"she said ""hi""\nand left",-1e-300,1\n'
        "ü\\udce9.png,,,\n"
        "'42,',5.0,0\n"
    ),
    ".jsonl": (
        '{"file": "a.png", "prompt": "a red ball, on a table", "quality": 0.30000000000000004, "width": 512}\n'
        '{"file": "=cmd|\' /C calc\'!A1.png", "prompt": "she said \\"hi\\"\\nand left", "quality": -1e-300, '
        '"width": 1}\n'
        '{"file": "ü\\udce9.png", "prompt": null, "quality": null, "width": null}\n'
        '{"file": "42", "prompt": "", "quality": 5.0, "width": 0}\n'
    ),
}
SUFFIXES = [".csv", ".jsonl", ".parquet"]


def written(path: Path, rows: Sequence[dict[str, Any]], columns: Any = COLUMNS, **options: Any) -> Path:
    with TableWriter(path, columns, **options) as table:
        for row in rows:
            table.append(row)
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut in here, and waiting for the disk some hundred times takes longer than all the rest."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def interrupted(path: Path, rows: list[dict[str, Any]]) -> None:
    with TableWriter(path, ["a"]) as table:
        for row in rows:
            table.append(row)
        raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def read_back(rows: list[dict[str, Any]], suffix: str) -> list[dict[str, Any]]:
    """What reading has to give: numbers as float, and lone surrogates as escapes where the format is UTF-8."""

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            return value if suffix == ".jsonl" else escaped(value)
        return value if value is None else float(value)

    return [{column: cell(row.get(column)) for column in row} for row in rows]


def reason_of(kind: type[MstClipiqaError], call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message.startswith("Expected")
    assert message.endswith(".")
    assert "\n" not in message
    return message


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_read_back_equal(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"t{suffix}", ROWS)
    assert read_table(path) == read_back(ROWS, suffix)
    assert names(tmp_path) == [path.name]  # neither journal nor draft is left


@pytest.mark.parametrize("suffix", list(GOLDEN))
def test_golden_bytes(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"t{suffix}", ROWS)
    assert path.read_bytes().decode() == GOLDEN[suffix]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"t{suffix}", [])
    assert read_table(path) == []
    if suffix == ".csv":
        assert path.read_text() == "file,prompt,quality,width\n"


texts = st.text(st.characters(codec=None), max_size=12) | st.text("'=+-@\t\r\n\",;0123456789.eE\\\x00", max_size=6)
# JSON has no way to say "two lone surrogates that make a pair", so such text is not asked for.
texts = texts.map(lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")) | st.sampled_from(
    ["\ud800", "\udce9.png", "'", "''=1", "'tis", "nan", "inf", "1e999", "007", "1_000", "١٢", "", "\ufeffx", " "]
)
floats = st.floats(allow_nan=False, allow_infinity=False)
rows_of_cells = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | texts,
            "number": st.none() | floats | st.integers(-(2**53), 2**53),
            "any": st.none() | texts | floats,
        }
    ),
    max_size=6,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_cells)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_text_and_number_reads_back_equal(suffix: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = written(tmp_path / f"t{suffix}", rows, ["text", "number", "any"])
    assert read_table(path) == read_back(rows, suffix)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_cells)
def test_any_text_and_number_reads_back_equal_from_parquet(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for row in rows:
        row.pop("any")  # a column of Parquet has one type
    path = written(tmp_path / "t.parquet", rows, ["text", "number"])
    assert read_table(path) == read_back(rows, ".parquet")


@given(st.none() | texts | floats)
def test_a_csv_cell_reads_back_equal(value: Any) -> None:
    assert from_csv_cell(csv_cell(value)) == value


@given(st.lists(st.none() | texts, min_size=1, max_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_one_column_loses_no_row(tmp_path: Path, cells: list[str | None]) -> None:
    rows = [{"only": cell} for cell in [*cells, None]]
    assert read_table(written(tmp_path / "t.csv", rows, ["only"])) == read_back(rows, ".csv")


def test_numbers_of_numpy_and_numbers_that_are_none(tmp_path: Path) -> None:
    row = {"a": np.float32(0.1), "b": np.int64(7), "c": np.float64("nan"), "d": math.inf, "e": np.str_("x")}
    for suffix in SUFFIXES:
        path = written(tmp_path / f"t{suffix}", [row], list(row))
        assert read_table(path) == [{"a": float(np.float32(0.1)), "b": 7.0, "c": None, "d": None, "e": "x"}]


@pytest.mark.parametrize(("value", "name"), [([1], "list"), (1j, "complex"), (b"x", "bytes")])
def test_cells_that_no_table_holds(value: Any, name: str, tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.csv", ["a"]) as table, pytest.raises(TypeError, match=f"text, a number.*got {name}"):
        table.append({"a": value})


def test_unknown_columns_are_refused_and_missing_ones_are_empty(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.csv", ["a", "b"]) as table:
        with pytest.raises(TypeError, match=r"Expected the columns \['a', 'b'\], got \['c'\] besides"):
            table.append({"a": 1, "c": 2})
        table.append({"b": 1})
    assert read_table(tmp_path / "t.csv") == [{"a": None, "b": 1.0}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_true_and_false_are_no_text(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"t{suffix}", [{"a": True, "b": True}, {"a": False, "b": "x"}, {"b": 1}], ["a", "b"])
    found = [(row["a"], row["b"]) for row in read_table(path)]
    assert (
        found
        == {
            ".csv": [("true", "true"), ("false", "x"), (None, 1)],
            ".jsonl": [(True, True), (False, "x"), (None, 1)],
            ".parquet": [(True, "true"), (False, "x"), (None, "1")],
        }[suffix]
    )
    if suffix == ".parquet":
        assert schema(path) == {"a": "bool", "b": "string"}


@pytest.mark.parametrize("text", ["7.50", "1e5", "1.10", "123456789012345678901234", "1E+2", "9" * 5000])
def test_a_number_stays_as_another_program_wrote_it(text: str, tmp_path: Path) -> None:
    """In every step: a table is read, kept as unfinished rows and written."""
    foreign = tmp_path / "foreign.csv"
    foreign.write_text(f"version\n{text}\n")
    (row,) = read_table(foreign)
    assert written(tmp_path / "t.csv", [row], ["version"]).read_text() == foreign.read_text()
    assert repr(copy.deepcopy(row)) == repr(row)  # as it is pickled, too
    if len(text) < 100:  # longer ones are text, as they are larger than any number
        assert row["version"] == float(text)
        lines = written(tmp_path / "t.jsonl", [row], ["version"])
        assert lines.read_text() == f'{{"version": {text}}}\n'
        assert written(tmp_path / "t2.csv", read_table(lines), ["version"]).read_text() == foreign.read_text()
        kept = text if text.isdecimal() else float(text)  # Parquet has no whole number of so many digits
        assert read_table(written(tmp_path / "t.parquet", [row], ["version"])) == [{"version": kept}]


# --- spreadsheets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "'=", "''+"])
def test_no_cell_is_run_by_a_spreadsheet(start: str, tmp_path: Path) -> None:
    text = f"{start}HYPERLINK(1)"
    path = written(tmp_path / "t.csv", [{"file": text, "prompt": text}])
    with path.open(newline="") as file:
        cells = list(csv.reader(file))[1]
    assert cells[0] == cells[1] == f"'{text}"  # marked as text
    assert read_table(path)[0]["prompt"] == text  # and faithful


@pytest.mark.parametrize(("name", "marked"), [("=A1", "'=A1"), ("'-x", "''-x"), ("a=b", "a=b"), ("7", "7"), ("", '""')])
def test_no_name_of_a_column_is_run_either(name: str, marked: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [{name: 1}], [name])
    assert path.read_text() == f"{marked}\n1\n"
    assert read_table(path) == [{name: 1}]


def test_negative_numbers_are_no_formulas(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [{"file": "-1", "quality": -1}])
    assert path.read_text().splitlines()[1] == "'-1,,-1,"
    assert read_table(path)[0] == {"file": "-1", "prompt": None, "quality": -1.0, "width": None}


@pytest.mark.parametrize("text", ["'tis a cat", "it's", "a=b", "''tis", "1 cat", "0x1f", "1_000", "007", "nan"])
def test_ordinary_text_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [{"prompt": text}], ["prompt"])
    assert path.read_text() == f"prompt\n{text}\n"
    assert read_table(path) == [{"prompt": text}]


# --- Parquet -----------------------------------------------------------------------------------------------------


def schema(path: Path) -> dict[str, str]:
    pq = pytest.importorskip("pyarrow.parquet")
    return {field.name: str(field.type) for field in pq.read_schema(path)}


def test_parquet_types_are_those_wished_for_where_they_hold(tmp_path: Path) -> None:
    columns = {"file": str, "a": float, "b": float, "c": int, "d": int, "e": float}
    rows = [{"file": "x", "b": 3, "c": 1.5, "d": 2**70, "e": "word"}]
    path = written(tmp_path / "t.parquet", rows, columns)
    assert schema(path) == {"file": "string", "a": "double", "b": "double", "c": "double", "d": "string", "e": "string"}
    path = written(tmp_path / "t.parquet", [{"a": 1}], ["a", "none"])
    assert schema(path) == {"a": "int64", "none": "string"}


def test_parquet_takes_any_whole_number_and_any_name(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", [{"huge": 10**400, "\udce9": 1}, {"huge": 7}], ["huge", "\udce9"])
    assert read_table(path) == [{"huge": str(10**400), "\\udce9": 1}, {"huge": "7", "\\udce9": None}]


def test_parquet_keeps_the_digits_of_long_whole_numbers_from_any_table(tmp_path: Path) -> None:
    digits = ["123456789012345678901234567890", "-98765432109876543210987", "18446744073709551617"]
    (tmp_path / "t.csv").write_text("id,x\n" + "".join(f"{one},7.50\n" for one in digits))
    (tmp_path / "t.jsonl").write_text("".join(f'{{"id": {one}, "x": 7.5}}\n' for one in digits))
    for name in ("t.csv", "t.jsonl"):
        path = written(tmp_path / "t.parquet", read_table(tmp_path / name), ["id", "x"])
        assert [row["id"] for row in read_table(path)] == digits
        assert schema(path) == {"id": "string", "x": "double"}


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, 2**64, 10**25 + 1])
def test_parquet_keeps_the_digits_of_a_seed(tmp_path: Path, seed: int) -> None:
    path = written(tmp_path / "t.parquet", [{"seed": seed}, {"seed": 7}], ["seed"])
    assert read_table(path) == [{"seed": str(seed)}, {"seed": "7"}]


def test_parquet_is_written_and_read_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("mst_clipiqa.tables.parquet.ROW_GROUP", 10)
    rows = [{"file": f"{i}.png", "quality": i / 7} for i in range(35)]
    path = written(tmp_path / "t.parquet", rows, ["file", "quality"])
    assert pq.ParquetFile(path).num_row_groups == 4
    assert read_table(path) == rows


def test_parquet_without_pyarrow_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = reason_of(UsageError, TableWriter, tmp_path / "t.parquet", ["a"])
    assert 'pip install "mst-clipiqa[parquet]", or use .csv or .jsonl' in message
    assert names(tmp_path) == []


def test_parquet_of_others(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "name": pa.array(["a", "b"]).dictionary_encode(),
            "n": pa.array([1, None], pa.int8()),
            "yes": [True, False],
            "none": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == [
        {"name": "a", "n": 1.0, "yes": True, "none": None},
        {"name": "b", "n": None, "yes": False, "none": None},
    ]
    assert read_table(tmp_path / "t.parquet")[0]["yes"] is True
    pq.write_table(pa.table({"x": [[1, 2]]}), tmp_path / "t.parquet")
    assert "text or numbers in column 'x'" in reason_of(DataError, read_table, tmp_path / "t.parquet")
    pq.write_table(pa.table([[1], [2]], names=["x", "x"]), tmp_path / "t.parquet")
    assert "each column once" in reason_of(DataError, read_table, tmp_path / "t.parquet")


def test_damaged_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", [{"file": f"{i}.png", "quality": i / 7} for i in range(50)])
    whole = path.read_bytes()
    for broken in (whole[:-20], b"", b"PAR1", whole[:40] + b"\xff" * 60 + whole[100:], b"file,quality\n"):
        path.write_bytes(broken)
        assert "a whole Parquet file, got one that is damaged or none" in reason_of(DataError, read_table, path)
    path.unlink()
    assert "found no file" in reason_of(DataError, read_table, path)


# --- reading what others wrote ----------------------------------------------------------------------------------


def test_foreign_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefffile,mos\r\n"a,b.png",3.5\r\n\r\nc.png,\r\n'.encode())
    assert read_table(path) == [{"file": "a,b.png", "mos": 3.5}, {"file": "c.png", "mos": None}]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("file,mos\nü.png,1.5\n", "utf-16"),
        ("file,mos\nü.png,1.5\n", "utf-16-le"),
        ("file,mos\nü.png,1.5\n", "cp1252"),
        ("file;mos\r\nü.png;1,5\r\n", "utf-8-sig"),
        ("file;mos\nü.png;1,5\n", "cp1252"),
        ("file\tmos\nü.png\t1,5\n", "utf-16"),
        ("file\tmos\nü.png\t1.5\n", "utf-8"),
    ],
)
def test_tables_from_spreadsheets(data: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data.encode(encoding))
    assert read_table(path) == [{"file": "ü.png", "mos": 1.5}]
    path.rename(tmp_path / "t.tsv")
    assert read_table(tmp_path / "t.tsv") == [{"file": "ü.png", "mos": 1.5}]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("", ","),
        ("file\na.png\n", ","),
        ("file,prompt\na.png,one; two\nb.png,one; two\n", ","),
        ("file;prompt\na.png;a red, round ball\n", ";"),
        ("a.png;a red, round ball;3\nb.png;a dog;4\n", ";"),
        ('file\tprompt\na.png\t"a, b;\nc"\n', "\t"),
        ('file;prompt\n"a.png;x', ";"),
        ("file,prompt\na.png,a dog, unquoted\n", ","),
        ("file;size, pixels\na.png;512\nb.png;256\n", ";"),  # the first row alone has as many cells by either
    ],
)
def test_delimiters(text: str, delimiter: str) -> None:
    assert delimiter_of(text) == delimiter


@pytest.mark.parametrize("text", ["a\n", "a,b\n1,2\n"])
def test_utf_16_is_known_by_its_zeros_and_has_whole_characters(text: str) -> None:
    raw = text.encode("utf-16-le")
    assert encoding_of(io.BytesIO(raw)) == "utf-16-le"
    assert encoding_of(io.BytesIO(raw[:3])) != "utf-16-le"  # a character and half of another
    assert encoding_of(io.BytesIO(text.encode())) == "utf-8-sig"


def test_a_table_of_ours_that_a_spreadsheet_saved_again(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [{"file": "a, b.png", "quality": 1.25}, {"file": "c.png", "prompt": "-1"}])
    before = read_table(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([[cell.replace(".25", ",25") for cell in row] for row in rows])
    assert b"a, b.png;;1,25;" in path.read_bytes()
    assert read_table(path) == before


@pytest.mark.parametrize(
    ("suffix", "data", "words"),
    [
        (".csv", b"", "a line with the names of the columns, got an empty file"),
        (".csv", b"a,a\n1,2\n", "each column once"),
        (".csv", b"a,b\n1,2\n3\n", "Expected 2 cells in line 3 of 't.csv', got 1: quote cells that hold commas"),
        (
            ".csv",
            b'a,b\n"1,2\n3,4\n',
            "line 2 of 't.csv' is not a row of CSV: a quote in it is not closed, so the next line is not read",
        ),
        (
            ".csv",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "text, got binary data or another encoding in 't.csv': save it as UTF-8",
        ),
        (".csv", "файл,mos\n".encode("cp1251"), "text, got binary data or another encoding"),
        (".csv", "文件名,mos\n".encode("gbk"), "text, got binary data or another encoding"),
        (".csv", b"\n\n\x81a,b\n", "text, got binary data or another encoding"),
        (".csv", b"\xff\xfea", "save it as UTF-8"),
        (".jsonl", b'{"a": 1}\n{"a": \n', "line 2 of 't.jsonl' is not a line of JSON"),
        (".jsonl", b"[1, 2]\n", "line 1 of 't.jsonl', got '[1, 2]': write one object per line"),
        (".jsonl", b'{"a": [1]}\n', "for 'a' in line 1 of 't.jsonl', got '[1]': flatten it"),
        (".jsonl", b"[" * 100_000, "is not a line of JSON"),
        (".jsonl", b'{"a": ' + b"9" * 5000 + b"}", "is not a line of JSON"),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_malformed_tables(
    suffix: str, data: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"t{suffix}").write_bytes(data)
    assert words in reason_of(DataError, read_table, f"t{suffix}")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_whole_numbers_keep_all_their_digits(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    seeds = [9007199254740993, 12345678901234567, 0, -1]  # the first two are no floats
    table = written(tmp_path / f"a{suffix}", [{"seed": seed} for seed in seeds], ["seed"])
    found = read_table(table)
    assert [row["seed"] for row in found] == seeds
    again = written(tmp_path / f"b{suffix}", found, ["seed"])
    assert again.read_bytes() == table.read_bytes()


def test_numbers_that_no_float_holds(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a\n1e999\n{'9' * 400}\n")
    assert read_table(tmp_path / "t.csv") == [{"a": "1e999"}, {"a": "9" * 400}]
    (tmp_path / "t.jsonl").write_text(f'{{"a": {"9" * 400}}}\n')
    assert "a number or null for 'a'" in reason_of(DataError, read_table, tmp_path / "t.jsonl")


def test_lines_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mst_clipiqa.tables.lines.LONGEST", 200_000)
    (tmp_path / "t.jsonl").write_text("x" * 200_001)
    assert "got one over 200,000 characters" in reason_of(DataError, read_table, tmp_path / "t.jsonl")
    row = {"prompt": "y" * 150_000}  # over the csv module's own limit
    assert read_table(written(tmp_path / "t.csv", [row], ["prompt"])) == [row]


def test_tables_that_are_no_files(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        assert "t" in reason_of(DataError, read_table, tmp_path / f"t{suffix}")
    assert "(No such file or directory)" in reason_of(DataError, read_table, tmp_path / "t.csv")
    (tmp_path / "d.csv").mkdir()
    os.mkfifo(tmp_path / "p.csv")
    for name in ("d.csv", "p.csv"):
        assert "an ordinary file, got a folder or device" in reason_of(DataError, read_table, tmp_path / name)
    message = reason_of(DataError, stream_table, "scores.cvs")
    want = "Expected a table to end in .csv, .jsonl or .parquet, got 'scores.cvs' (did you mean '.csv'?): "
    assert message == f"{want}save it as one of these."


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text('{}[]",:\n\\u0e1ad8', max_size=40).map(str.encode))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_bytes_are_a_table_or_a_reason(suffix: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(data)
    try:
        rows = read_table(path)
    except DataError:
        return  # and nothing else
    assert all(isinstance(cell, str | float | int | None) for row in rows for cell in row.values())


# --- places that cannot be written --------------------------------------------------------------------------------


def test_outputs_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "got 't.xlsx'" in reason_of(UsageError, TableWriter, tmp_path / "t.xlsx", ["a"])
    assert "got 't'" in reason_of(UsageError, TableWriter, tmp_path / "t", ["a"])
    (tmp_path / "file").touch()
    assert "a folder for the output, but" in reason_of(UsageError, TableWriter, tmp_path / "file" / "t.csv", ["a"])
    written(tmp_path / "new" / "folder" / "t.csv", [])
    (tmp_path / "d.csv").mkdir()
    assert "to be a file, got a folder or device" in reason_of(UsageError, TableWriter, tmp_path / "d.csv", ["a"])
    os.mkfifo(tmp_path / "p.csv")
    assert "to be a file, got a folder or device" in reason_of(UsageError, TableWriter, tmp_path / "p.csv", ["a"])
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "s.csv.part").symlink_to(tmp_path / "elsewhere")  # nothing is written through a planted link
    assert "got a link, folder or device" in reason_of(DataError, TableWriter, tmp_path / "s.csv", ["a"])
    assert (tmp_path / "elsewhere").read_text() == "mine"

    (tmp_path / "t.csv.part").touch()
    connect = sqlite3.connect  # root may write everywhere, so what cannot be opened is a folder that is missing
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda path, **how: connect(tmp_path / "nowhere" / "x", **how))
        message = reason_of(UsageError, TableWriter, tmp_path / "t.csv", ["a"])
    assert "t.csv.part', got unable to open database file: make its folder writable or choose another output" in message


def test_a_read_only_table_is_not_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [], ["a"])
    before = path.read_bytes()
    path.chmod(0o444)
    for write in (TableWriter, write_table):
        message = reason_of(UsageError, write, path, ["a"], *([[]] if write is write_table else []))
        assert f"got the read-only file '{path}': make it writable, or choose another output." in message
    assert (path.read_bytes(), names(tmp_path)) == (before, ["t.csv"])


@pytest.mark.parametrize("length", [243, 255])
def test_a_name_that_is_too_long_is_said_and_leaves_nothing(length: int, tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * (length - 4)}.csv"
    message = reason_of(UsageError, TableWriter, path, ["a"])
    assert message.endswith(" (File name too long): choose a shorter name.")
    assert "got File name too long: choose a shorter name, or" in reason_of(UsageError, write_table, path, ["a"], [])
    assert names(tmp_path) == []
    written(tmp_path / f"{'n' * 238}.csv", [{"a": 1}], ["a"])


def test_an_unfinished_table_that_is_read_only_is_not_said_to_lack_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(KeyboardInterrupt), TableWriter(tmp_path / "t.csv", ["a"]) as table:
        table.append({"a": 1})
        raise KeyboardInterrupt
    part, connect = journal_of(tmp_path / "t.csv"), sqlite3.connect

    def read_only(path: Path, **how: Any) -> sqlite3.Connection:  # root may write everywhere
        opened: sqlite3.Connection = connect(f"file:{path}?mode=ro&immutable=1", uri=True, **how)
        return opened

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with TableWriter(tmp_path / "t.csv", ["a"], resume=True) as table:
        message = reason_of(UsageError, table.append, {"a": 2})
    assert f"write {str(part)!r}, got attempt to write a readonly database: make the file and its disk" in message
    assert "free some space" not in message


def test_rows_of_json_with_keys_of_their_own_do_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_COLUMNS", 3)
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": 2}\n{"b": 2, "c": 3}\n{"d": 4}\n')
    message = reason_of(DataError, read_table, tmp_path / "t.jsonl")
    assert "Expected at most 3 columns" in message
    assert message.endswith("got more by line 3: give all rows the same keys.")
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": 2}\n{"b": 2, "c": 3}\n{"a": 4}\n')
    assert read_table(tmp_path / "t.jsonl").head == ["a", "b", "c"]


def test_a_part_file_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    part = journal_of(tmp_path / "t.csv")
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs")) as db:
        db.execute("CREATE TABLE head (mine)")
        db.commit()
    for content in (b"my download", b"x" * 10_000, (tmp_path / "theirs").read_bytes()):
        part.write_bytes(content)
        for resume in (False, True):
            message = reason_of(DataError, TableWriter, tmp_path / "t.csv", ["a"], resume=resume)
            assert "got another" in message
            assert "move it away" in message
        assert part.read_bytes() == content


def test_two_writers_of_one_table(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.csv", ["a"]) as table:
        table.append({"a": 1})
        assert "got another run: wait, or" in reason_of(UsageError, TableWriter, tmp_path / "t.csv", ["a"])
    assert read_table(tmp_path / "t.csv") == [{"a": 1.0}]


def test_a_full_disk_keeps_the_rows_before_it(tmp_path: Path) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"])
    table.append({"a": 1})
    table._journal._db.execute("PRAGMA max_page_count=8")
    message = reason_of(UsageError, table.append, {"a": "2" * 100_000})
    assert "got database or disk is full: free some space" in message
    assert "kept for --resume" in message
    assert table.rows == 1
    table._journal._db.execute("PRAGMA max_page_count=1000")
    table.append({"a": 3})  # space again: no half row is in between
    table.close()
    assert read_table(tmp_path / "t.csv") == [{"a": 1.0}, {"a": 3.0}]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_at_the_end(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_text("the table before")
    table = TableWriter(path, ["a"])
    table.append({"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = reason_of(UsageError, table.close)
    assert f"the rows are kept in '{path}.part'; free some space and continue with --resume" in message
    assert path.read_text() == "the table before"
    assert names(tmp_path) == [path.name, f"{path.name}.part"]
    written(path, [], ["a"], resume=True)
    assert read_table(path) == [{"a": 1.0}]


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    table = TableWriter(folder / "t.csv", ["a"])
    table.append({"a": 1})
    shutil.rmtree(folder)
    table.append({"a": 2})
    assert "got another run: wait, or" in reason_of(UsageError, TableWriter, folder / "t.csv", ["a"])
    killed = tmp_path / "killed"  # what a kill would leave now
    shutil.copytree(folder, killed)
    assert unfinished_rows(killed / "t.csv") == [{"a": 1}, {"a": 2}]
    table.append({"a": 3})
    shutil.rmtree(folder)
    table.close()
    assert read_table(folder / "t.csv") == [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]
    assert names(folder) == ["t.csv"]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_in_the_place_of_the_folder_is_said_and_that_no_rows_are_left(rows: int, tmp_path: Path) -> None:
    def overtaken() -> None:
        with TableWriter(tmp_path / "out" / "t.csv", ["a"]) as table:
            for _ in range(rows):
                table.append({"a": 1})
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "out").write_text("mine")
            table.append({"a": 2})

    message = reason_of(UsageError, overtaken)
    assert "t.csv.part', got File exists: move away the file that has its folder's place or choose" in message
    assert message.endswith("; no rows are left for --resume.")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_part_file_that_vanishes_from_its_folder_is_written_again(tmp_path: Path) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"])
    table.append({"a": 1})
    journal_of(tmp_path / "t.csv").unlink()
    table.append({"a": 2})
    table.close()
    assert read_table(tmp_path / "t.csv") == [{"a": 1.0}, {"a": 2.0}]


@pytest.mark.parametrize("rows", [[], [{"a": 1}]])
def test_a_run_that_stops_after_its_part_file_was_removed_leaves_its_rows(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"])
    for row in rows:
        table.append(row)
    journal_of(tmp_path / "t.csv").unlink()
    table.abandon()
    assert journal_of(tmp_path / "t.csv").exists() is bool(rows)
    assert not rows or unfinished_rows(tmp_path / "t.csv") == rows


def test_a_part_file_that_is_removed_leaves_nothing_to_resume(tmp_path: Path) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"])
    table.append({"a": 1})
    shutil.copytree(tmp_path, tmp_path / "killed")
    table.abandon()
    journal_of(tmp_path / "killed" / "t.csv").unlink()  # its -wal file stays
    with TableWriter(tmp_path / "killed" / "t.csv", ["a"], resume=True) as table:
        assert table.rows == 0
        table.append({"a": 2})
    assert read_table(tmp_path / "killed" / "t.csv") == [{"a": 2.0}]
    assert names(tmp_path / "killed") == ["t.csv"]


def test_hidden_columns_and_the_origin_stay_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = TableWriter(path, ["a"], hidden=["stamp"], origin={"model": "mini"})
    table.append({"a": 1, "stamp": "x"})
    table.abandon()
    assert origin_of(journal_of(path)) == {"model": "mini"}
    assert unfinished_rows(path) == [{"a": 1, "stamp": "x"}]
    TableWriter(path, ["a"], hidden=["stamp"], resume=True).close()
    assert path.read_text() == "a\n1\n"
    assert origin_of(journal_of(path)) is None


# --- kill and resume ----------------------------------------------------------------------------------------------


def test_an_exception_leaves_the_rows_and_no_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, [{"a": 1}])
    assert names(tmp_path) == ["t.csv.part"]
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, [])  # without resume: anew
    assert names(tmp_path) == []  # a run without rows leaves nothing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_torn_write_is_taken_up_at_any_byte(suffix: str, tmp_path: Path) -> None:
    whole = written(tmp_path / f"whole{suffix}", ROWS).read_bytes()
    running, killed = tmp_path / "running", tmp_path / "killed"
    running.mkdir()
    table = TableWriter(running / f"t{suffix}", COLUMNS)
    for row in ROWS:
        table.append(row)
    (wal,) = running.glob("*-wal")  # where SQLite appends; a kill may tear it at any byte
    sizes = []
    for cut in range(0, wal.stat().st_size, wal.stat().st_size // 40):
        shutil.copytree(running, killed)
        os.truncate(killed / wal.name, cut)
        with TableWriter(killed / f"t{suffix}", COLUMNS, resume=True) as again:
            sizes.append(again.rows)
            for row in ROWS[again.rows :]:
                again.append(row)
        assert (killed / f"t{suffix}").read_bytes() == whole
        shutil.rmtree(killed)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    table.abandon()


def test_rows_set_aside_are_found_by_their_key_and_survive_an_empty_run(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for value in (1, 2):
        table = TableWriter(path, ["a", "b"], key=["a"], resume=True)
        table.append({"a": "x", "b": value})
        table.abandon()
        table = TableWriter(path, ["a", "b"], key=["a"], resume=True)
        assert table.set_aside() == 1
        assert table.rows == 0
        table.abandon()  # stopped before its first row
    table = TableWriter(path, ["a", "b"], key=["a"], resume=True)
    assert table.set_aside() == 1
    assert table.earlier("x") == {"a": "x", "b": 2}
    assert table.earlier("y") is None
    table.append({"a": "y", "b": 3})
    table.close()
    assert read_table(path) == [{"a": "y", "b": 3.0}]
    assert names(tmp_path) == ["t.csv"]


def test_a_part_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    part = journal_of(tmp_path / "t.csv")
    table = TableWriter(tmp_path / "t.csv", COLUMNS)
    for row in ROWS:
        table.append(row)
    assert "got another run: wait" in reason_of(UsageError, Journal, part, COLUMNS, resume=True)
    table.abandon()
    assert unfinished_rows(tmp_path / "t.csv") == ROWS
    part.write_bytes(part.read_bytes()[:5000])
    assert "damaged one" in reason_of(DataError, Journal, part, COLUMNS, resume=True)
    part.write_bytes(b"")  # killed as it was made
    assert origin_of(part) is None
    with contextlib.closing(Journal(part, COLUMNS, resume=True)) as journal:
        assert list(journal) == []


@pytest.mark.parametrize("stop", [TableWriter.close, TableWriter.abandon])
def test_a_part_file_that_is_damaged_while_it_is_open_is_named_and_stays(
    tmp_path: Path, stop: Callable[[TableWriter], None]
) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"], key=["a"])
    for number in range(300):
        table.append({"a": f"{number:0999}"})
    table.set_aside()  # what ``abandon`` counts
    if stop is TableWriter.close:
        table.append({"a": "last"})
    part = journal_of(tmp_path / "t.csv")
    for step in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):  # all is in the file, and nothing is read from memory
        table._journal._db.execute(f"PRAGMA {step}")
    with part.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(part.stat().st_size - 4096))
    assert "t.csv.part', got another file or a damaged one" in reason_of(DataError, stop, table)
    assert names(tmp_path) == ["t.csv.part"]


def test_resuming_other_columns_is_refused(tmp_path: Path) -> None:
    table = TableWriter(tmp_path / "t.csv", ["a"])
    table.append({"a": 1})
    table.abandon()
    message = reason_of(UsageError, TableWriter, tmp_path / "t.csv", ["a", "b"], resume=True)
    assert "Expected the columns ['a', 'b'] in" in message
    assert "got ['a']: remove it to start anew" in message
    assert unfinished_rows(tmp_path / "t.csv") == [{"a": 1}]


SCRIPT = """
import sys
from mst_clipiqa.tables.journal import origin_of
from mst_clipiqa.tables.sniff import delimiter_of, encoding_of
from mst_clipiqa.tables.table import TableWriter, write_table
with TableWriter(sys.argv[1], ["i", "text"], resume=True) as table:
    print(table.rows, flush=True)
    for i in range(table.rows, int(sys.argv[2])):
        table.append({"i": i / 3, "text": "x" * (i % 500)})
"""


def run(path: Path, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(count)], stdout=subprocess.PIPE)


def test_sigkill_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path, count, kills = tmp_path / "t.csv", 30_000, 0
    while not path.exists():
        process = run(path, count)
        assert process.stdout is not None
        process.stdout.readline()  # it is writing now
        if kills < 4:
            time.sleep(0.03 * (kills + 1))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert path.exists() or journal_of(path).exists()
    assert kills
    found = [(row["i"], row["text"]) for row in stream_table(path)]
    assert found == [(i / 3, "x" * (i % 500) or "") for i in range(count)]
    assert names(tmp_path) == ["t.csv"]


def test_streams_hold_one_row_at_a_time(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [{"a": i} for i in range(5)], ["a"])
    rows: Iterator[dict[str, Any]] = stream_table(path)
    assert next(rows) == {"a": 0.0}
    rows.close()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(next(stream_table(path)))) == {"a": 0.0}
    assert io.StringIO(path.read_text()).readline() == "a\n"


def test_texts_that_repeat_are_kept_once_and_only_some_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_MOST_KNOWN", 3)
    path = tmp_path / "table.csv"
    path.write_text("model,file\n" + "".join(f"a long name of a model,{i}.png\n" for i in range(20)))
    rows = read_table(path)
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(20)]
    assert {row["model"] for row in rows} == {"a long name of a model"}
    assert len({id(row["model"]) for row in rows}) < len(rows)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'=", "''@"])
def test_text_that_a_spreadsheet_would_run_is_marked_whatever_it_begins_with(start: str) -> None:
    assert csv_cell(f"{start}x") == f"'{start}x"
    assert csv_cell(f"x{start}") == f"x{start}"
