"""Tables of scores that other programs wrote or changed: names of columns, and a first line for Excel."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

import pytest

from mst_clipiqa.analysis.gate import check_failures
from mst_clipiqa.analysis.pairing import choose_pairing
from mst_clipiqa.analysis.read import image_folders, read_scores
from mst_clipiqa.analysis.rows import need_columns
from mst_clipiqa.errors import DataError, UsageError, nearest
from mst_clipiqa.tables.columns import Table
from mst_clipiqa.tables.parquet import RUN_MANIFEST
from mst_clipiqa.tables.sniff import delimiter_of, encoding_of


def test_columns_with_capital_letters_are_those_that_commands_look_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("File, Prompt,Quality,Status\na.png,a cat,3.5,ok\nb.png,a cat,,error\n")
    rows = read_scores(tmp_path / "t.csv")
    assert rows.head == ["file", "prompt", "Quality", "status"]  # --by Quality may name that one
    assert choose_pairing(rows, rows, ("", "")) == "prompt"
    assert check_failures(rows, "1").value == 1


def test_of_two_columns_with_one_name_none_is_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,prompt,Prompt,PROMPT,Model\na.png,a cat,b,c,one\n")
    assert read_scores(tmp_path / "t.csv").head == ["file", "prompt", "Prompt", "PROMPT", "Model"]


def test_columns_in_which_other_programs_mean_something_else_stay_theirs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("File,Status,Model,Frame,quality\na.png,done,SDXL,oak,1\nb.png,ok,Flux,pine,2\n")
    rows = read_scores(tmp_path / "t.csv")
    assert rows.head == ["file", "Status", "Model", "Frame", "quality"]
    assert check_failures(rows, "0").value == 0


def test_a_table_without_rows_has_these_names_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("FILE,Prompt\n")
    assert read_scores(tmp_path / "t.csv").head == ["file", "prompt"]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_the_line_that_tells_excel_what_separates_cells_is_no_row(sign: str, tmp_path: Path) -> None:
    cells = [
        ["file", "quality", "prompt"],
        ["a.png", "3.5", "sep=;"],
        ["b.png", "2", "a, cat" if sign == ";" else "cat"],
    ]
    lines = [f"sep={sign}", *(sign.join(row) if sign != ";" else sign.join(f'"{one}"' for one in row) for row in cells)]
    (tmp_path / "t.csv").write_text("\r\n".join(lines), newline="")
    rows = read_scores(tmp_path / "t.csv")
    assert [row["file"] for row in rows] == ["a.png", "b.png"]
    assert [row["quality"] for row in rows] == [3.5, 2]


def test_tabs_and_the_line_for_excel_in_capital_letters_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("SEP=\t\nfile\tquality\na.png\t3.5\n")
    assert read_scores(tmp_path / "t.tsv") == [{"file": "a.png", "quality": 3.5}]


def test_images_are_looked_for_in_the_folder_given_or_here_and_beside_the_table(tmp_path: Path) -> None:
    table, images, parts = tmp_path / "t.csv", tmp_path / "images", tmp_path / "parts"
    for folder in (images, parts):
        folder.mkdir()
    (parts / RUN_MANIFEST).write_text("{}")
    for source in (table, images, "-"):
        assert image_folders(source, images) == [images]
    assert image_folders(table, None) == [Path(), tmp_path]
    assert image_folders(images, None) == [Path(), images]
    assert image_folders(parts, None) == [Path(), tmp_path]  # a table, whose parts are no images
    assert image_folders("-", None) == [Path()]


@pytest.mark.parametrize("content", ["{", "[]", "{}", "3"])
def test_a_folder_of_parts_whose_state_is_not_there_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RUN_MANIFEST).write_text(content)
    with pytest.raises(UsageError, match="Expected the state of a run in"):
        read_scores(tmp_path)


def test_a_table_on_stdin_is_known_by_its_first_bytes_and_called_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: bytes) -> Table:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return read_scores("-")

    assert read(b'\n {"file": "a.png", "Prompt": "x"}\n') == [{"file": "a.png", "prompt": "x"}]
    for encoding in ("utf-8-sig", "utf-16"):  # as PowerShell writes into a pipe
        assert read('{"file": "ä.png"}\n'.encode(encoding)) == [{"file": "ä.png"}]
    with pytest.raises(DataError, match=r"^Expected 2 cells in line 2 of stdin, got 1"):
        read(b"file,quality\na.png\n")


def test_decimal_commas_may_have_a_sign_and_an_exponent(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n-1,5;1,5e-3\n")
    assert read_scores(tmp_path / "t.csv") == [{"a": -1.5, "b": 0.0015}]


def test_a_line_that_the_sample_cuts_off_does_not_decide_the_delimiter() -> None:
    assert delimiter_of("a;b,c;d\n1;2,3;4\n1,2") == ";"


def test_a_header_with_many_commas_does_not_outweigh_the_rows() -> None:
    assert delimiter_of("file;what, where, when\na.png;x\nb.png;y\n") == ";"


def test_stray_bytes_beside_utf_8_do_not_make_it_windows_1252() -> None:
    assert encoding_of(io.BytesIO("caf\u00e9 ".encode() + b"\xe9,")) == "utf-8-sig"
    assert encoding_of(io.BytesIO(b"caf\xe9,")) == "cp1252"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf_16_of_either_byte_order_is_read(mark: bytes, tmp_path: Path) -> None:
    text = "file,prompt\na.png,caf\u00e9\n".encode("utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be")
    (tmp_path / "t.csv").write_bytes(mark + text)
    assert read_scores(tmp_path / "t.csv") == [{"file": "a.png", "prompt": "caf\u00e9"}]


def test_a_name_in_other_capital_letters_is_near() -> None:
    assert nearest("QUALITY", ["file", "quality"]) == " (did you mean 'quality'?)"
    with pytest.raises(UsageError, match=r"found none \(did you mean 'Quality'\?\)\.$"):
        need_columns([{"Quality": 1.0}], ["quality"])


def test_a_share_of_failures_above_all_is_refused() -> None:
    assert check_failures([{"quality": 1.0}], "100%").passed
    with pytest.raises(UsageError, match="Expected at most 100% for --max-failed, got '200%'"):
        check_failures([{"quality": 1.0}], "200%")
