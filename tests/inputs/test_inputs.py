"""What is named becomes items: in order, each with its prompt or its problem, and none twice or lost."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.folders import natural
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.list_columns import ListColumns
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables import lines
from mst_clipiqa.tables.table import TableWriter


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree(*files: str, **texts: str) -> None:
    """Make empty files; with a text, as ``name__csv="..."``, small ones."""
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    for name, text in texts.items():
        Path(name.replace("__", ".")).write_text(text, encoding="utf-8")


def names(*paths: str, **options: Any) -> list[str]:
    return [item.file for item in expand(paths, **options)]


def prompts_of(*paths: str, **options: Any) -> dict[str, str | None]:
    items = list(expand(paths, **options))
    assert [item.problem for item in items] == [None] * len(items)
    return {item.file: item.prompt for item in items}


def problems(*paths: str, **options: Any) -> dict[str, str]:
    found = {item.file: item.problem for item in expand(paths, **options) if item.problem}
    assert all(text.startswith("Expected") and text.endswith(".") and "\n" not in text for text in found.values())
    return found


def reason_of(*paths: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        expand(paths, **options)
    message = str(caught.value)
    assert message.startswith("Expected")
    assert message.endswith(".")
    assert "\n" not in message
    return message


# --- files and folders ------------------------------------------------------------------------------------------


def test_one_file_whatever_its_name() -> None:
    tree("a.dat", "-x.png", "=cmd.png")
    assert list(expand("a.dat")) == [Item("a.dat", "a.dat")]
    assert list(expand(Path("-x.png"))) == [Item("-x.png", "-x.png")]
    assert names("=cmd.png", "a.dat", "a.dat") == ["=cmd.png", "a.dat", "a.dat"]


def test_a_folder_in_natural_order_and_nothing_else() -> None:
    tree("d/10.png", "d/9.PNG", "d/b.jpeg", "d/a.webp", "d/B2.tiff", "d/B10.gif", "d/c.avif", "d/d.bmp")
    tree("d/notes.txt", "d/.hidden.png", "d/scores.csv", "d/sub/z.png", "d/x.png/inner.png")
    expected = ["9.PNG", "10.png", "a.webp", "b.jpeg", "B2.tiff", "B10.gif", "c.avif", "d.bmp", "x.png"]
    assert names("d") == names("d/") == [f"d/{name}" for name in expected]
    assert names("d", recursive=True) == [*(f"d/{name}" for name in expected), "d/sub/z.png"]
    os.chdir("d")
    assert names(".")[0] == "./9.PNG"


def test_folders_within_folders_come_after_its_images() -> None:
    tree("d/z.png", "d/s10/a.png", "d/s9/b.png", "d/s9/t/c.png", "d/.git/x.png", "d/empty/notes.txt")
    assert names("d", recursive=True) == ["d/z.png", "d/s9/b.png", "d/s9/t/c.png", "d/s10/a.png"]
    inputs = expand("d", recursive=True)
    assert inputs.count() == 4
    assert len(list(inputs)) == 4


@pytest.mark.parametrize(
    "names_in_order",
    [
        ["1.png", "01.png", "2.png", "10.png"],
        ["a.png", "a1.png", "a1b.png", "a2.png", "a10.png", "b.png"],
        ["x" + "0" * 5000 + "1", "x2", "x" + "9" * 5000],
    ],
)
def test_natural_order(names_in_order: list[str]) -> None:
    for shuffled in islice(permutations(names_in_order), 24):
        found = sorted(shuffled, key=natural)
        if names_in_order[0] == "1.png":  # equal numbers: any order, but always the same
            assert found == ["01.png", "1.png", "2.png", "10.png"]
        else:
            assert found == names_in_order


@given(st.lists(st.text(st.sampled_from("aB0129._é\udce9"), max_size=6), unique=True))
def test_natural_order_is_one_order(found: list[str]) -> None:
    backwards = found[::-1]
    assert sorted(found, key=natural) == sorted(backwards, key=natural)
    assert len({natural(name) for name in found}) == len(found)


def test_links_that_lead_in_circles_end() -> None:
    tree("d/a.png", "d/sub/b.png", "d/zoo/c.png")
    Path("d/sub/up").symlink_to("..")
    Path("d/sub/self").symlink_to("self")
    Path("d/sub/self.png").symlink_to("self.png")
    Path("d/twin").symlink_to("sub")
    inputs = expand("d", recursive=True)
    assert [item.file for item in inputs] == ["d/a.png", "d/sub/b.png", "d/sub/self.png", "d/zoo/c.png"]
    assert inputs.notes == ["2 links in 'd' lead to folders that were read already, so they were left out."]


def test_linked_images_and_folders_are_followed() -> None:
    tree("store/a.png", "d/b.png")
    Path("d/a.png").symlink_to("../store/a.png")
    Path("d/more").symlink_to("../store")
    Path("d/gone.png").symlink_to("nowhere.png")
    assert names("d", recursive=True) == ["d/a.png", "d/b.png", "d/gone.png", "d/more/a.png"]


def test_deep_folders() -> None:
    folders = [Path("d" + "/s" * depth) for depth in range(250)]
    for folder in folders:
        folder.mkdir()
    image = folders[-1] / "a.png"
    image.touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)  # folders may lie deeper than Python's stack
    try:
        assert names("d", recursive=True) == [str(image)]
    finally:
        sys.setrecursionlimit(limit)


def test_pipes_and_devices_are_named_not_opened() -> None:
    tree("d/a.png")
    os.mkfifo("d/p.png")
    assert names("d") == ["d/a.png", "d/p.png"]
    assert names("d/p.png", "/dev/zero") == ["d/p.png", "/dev/zero"]


def test_names_that_are_not_utf8_survive() -> None:
    raw = b"d/caf\xe9 \n\x01.png"
    tree(os.fsdecode(raw))
    (item,) = expand("d")
    assert item.file == "d/caf\\xe9 \n\x01.png"
    item.file.encode()  # valid Unicode
    assert item.path is not None
    assert os.fsencode(item.path) == raw
    assert Path(item.path).exists()
    Path("list.csv").write_bytes(b'file,prompt\n"' + raw + b'",a cat\n')  # a list in the same bytes
    assert list(expand("list.csv")) == [Item(item.file, item.path, "a cat")]


def test_a_folder_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    tree("d/a.png", "d/locked/b.png", "d/open/c.png")
    scandir = os.scandir

    def denied(path: str) -> Any:  # root may list everything, so the refusal is acted
        if path.rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    problem = "Expected a folder that can be listed, got Permission denied: check its permissions."
    assert list(expand("d", recursive=True)) == [
        Item("d/a.png", "d/a.png"),
        Item("d/locked", None, problem=problem),
        Item("d/open/c.png", "d/open/c.png"),
    ]
    assert expand("d", recursive=True).count() == 3
    assert "'d/locked': Permission denied" in reason_of("d/locked")


def test_items_are_made_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tree("one/a.png", "two/b.png", list__csv="file\n" + "x.png\n" * 1000)
    inputs = expand(["one", "two", "list.csv"])
    assert next(inputs).file == "one/a.png"
    Path("two/c.png").touch()
    assert [item.file for item in islice(inputs, 3)] == ["two/b.png", "two/c.png", "x.png"]


def test_nothing_to_score() -> None:
    tree("empty/notes.txt", "deep/sub/a.png", "none/sub/notes.txt")
    assert "at least one image, folder or list, got none" in reason_of()
    assert "found nothing named 'gone.png': check the name" in reason_of("gone.png")
    assert "found nothing named ''" in reason_of("")
    assert "found nothing named 'a\\x00b'" in reason_of("a\0b")
    assert "images in 'empty', got none (1 other file, 0 folders): name another folder" in reason_of("empty")
    assert "got none (0 other files, 1 folder): include its subfolders with --recursive" in reason_of("deep")
    assert names("deep", recursive=True) == ["deep/sub/a.png"]
    assert "name another folder" in reason_of("none", recursive=True)
    tree("list.csv", "a.png")
    assert "but 'list.csv' is empty" in reason_of("a.png", "list.csv")  # said before anything is scored
    tree(list__csv="file\n")
    assert "a list of images, got one without rows: 'list.csv'" in reason_of("list.csv")


def test_prompts_in_two_ways_are_refused() -> None:
    tree("a.png", p__csv="file,prompt\na.png,x\n")
    assert "got several: leave one out" in reason_of("a.png", prompt="x", prompts="p.csv")
    assert "a prompt in UTF-8, got other bytes" in reason_of("a.png", prompt="caf\udce9")


# --- lists -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *("file,prompt", "file_name,text", "Image,Prompt", "image_name,caption", "NAME,prompt", "img_path,prompt"),
        *("path,Text_prompt", " File , PROMPT ", "\ufefffile,prompt"),
    ],
)
def test_lists_by_any_usual_name_of_a_column(header: str) -> None:
    Path("lists").mkdir()
    Path("lists/l.csv").write_text(f"{header}\na.png,a cat\nsub/b.png,\n/abs/c.png,  \n", encoding="utf-8")
    assert prompts_of("lists/l.csv") == {"lists/a.png": "a cat", "lists/sub/b.png": None, "/abs/c.png": None}


def test_lists_keep_order_repeats_and_awkward_cells() -> None:
    Path("l.csv").write_bytes(
        b'n,file,mos,prompt\r\n1,b.png,3,"a ""red"" ball,\nlarge"\r\n\r\n2,a.png,4,x\r\n3,b.png,5,y\r\n'
    )
    assert [(item.file, item.prompt) for item in expand("l.csv")] == [
        ("b.png", 'a "red" ball,\nlarge'),
        ("a.png", "x"),
        ("b.png", "y"),
    ]


def test_lists_of_json_lines() -> None:
    tree(l__jsonl='{"image": "a.png", "caption": "x"}\n\n{"file": "b.png", "prompt": null}\n"c.png"\n')
    assert prompts_of("l.jsonl") == {"a.png": "x", "b.png": None, "c.png": None}
    assert expand("l.jsonl").count() == 3


def test_a_table_of_scores_is_a_list_again() -> None:
    Path("out").mkdir()
    tree("pics/=a.png")
    columns = ["file", "prompt", "quality", "correspondence", "gate", "familiarity", "status", "reason", "width"]
    columns += ["height", "model"]
    with TableWriter("out/scores.csv", columns) as table:
        table.append({"file": "pics/=a.png", "prompt": "-- a cat", "status": "ok"})
        table.append({"file": "=b.png", "prompt": "42", "status": "ok"})
    assert prompts_of("out/scores.csv") == {"pics/=a.png": "-- a cat", "=b.png": "42"}  # seen from here, unmarked


def test_bad_rows_of_a_list_are_rows() -> None:
    Path("l.csv").write_bytes(b'file,prompt\na.png,\xc3\xa9\nb.png\n,y\n"c"d.png,z\nd.png,caf\xe9\ne.png,v\n')
    found = {item.file: (item.path, item.problem) for item in expand("l.csv")}
    assert list(found) == ["a.png", *(f"line {n} of 'l.csv'" for n in (3, 4, 5)), "d.png", "e.png"]
    assert found["a.png"] == ("a.png", None)
    assert found["e.png"] == ("e.png", None)
    told = problems("l.csv")
    assert "line 3 of 'l.csv' has 1 cell instead of 2: quote cells that hold commas" in told["line 3 of 'l.csv'"]
    assert "line 4 of 'l.csv' names no file" in told["line 4 of 'l.csv'"]
    assert "line 5 of 'l.csv' is not a row of CSV" in told["line 5 of 'l.csv'"]
    assert "a prompt in UTF-8, got other bytes: save the file of prompts as UTF-8" in told["d.png"]
    tree(
        l__jsonl='{"file": "a.png", "prompt": 42}\n{"prompt": "x"}\n{"file": 3}\n{oops\n[1]\n{"file": "\\ud800.png"}\n'
    )
    told = problems("l.jsonl")
    assert "the prompt in line 1 of 'l.jsonl' is not text: put it in quotes" in told["a.png"]
    assert 'is not an object such as {"file": ..., "prompt": ...}' in told["line 2 of 'l.jsonl'"]
    assert "line 3 of 'l.jsonl' names no file" in told["line 3 of 'l.jsonl'"]
    assert "line 4 of 'l.jsonl' is not a line of JSON" in told["line 4 of 'l.jsonl'"]
    assert "is not an object" in told["line 5 of 'l.jsonl'"]
    assert names("l.jsonl")[-1] == "\\ud800.png"


def test_lists_that_break_off_in_the_middle() -> None:
    Path("l.csv").write_bytes("file\na.png\n".encode("utf-16") + b"\x0a")
    items = list(expand("l.csv"))
    assert items[0] == Item("a.png", "a.png")
    assert items[-1].problem is not None
    assert "text in 'l.csv', got" in items[-1].problem


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"prompt,mos\nx,1\n", "a column file in 'l.csv', got 'prompt, mos': name them with --file-column"),
        (b"a.png,3\nb.png,4\n", "got 'a.png, 3': add a first line with the names of the columns"),
        (b"", "a list with a first line such as file,prompt, but 'l.csv' is empty"),
        (b'"file\n', "but 'l.csv' is not a row of CSV"),
        (b"\x89PNG\r\n\x1a\n", "got binary data or another encoding in 'l.csv'"),
    ],
)
def test_lists_that_are_none(data: bytes, words: str) -> None:
    Path("l.csv").write_bytes(data)
    assert words in reason_of("l.csv")


def test_columns_of_any_name() -> None:
    tree("a.png", l__csv="img_id;description\na.png;a red ball\n", j__jsonl='{"img_id": "a.png", "description": "x"}\n')
    columns = ListColumns("img_id", "description")
    assert prompts_of("l.csv", columns=columns) == {"a.png": "a red ball"}
    assert prompts_of("j.jsonl", columns=columns) == {"a.png": "x"}
    assert prompts_of("a.png", prompts="l.csv", columns=columns) == {"a.png": "a red ball"}
    assert "a column imgs in 'l.csv', got 'img_id, description'" in reason_of("l.csv", columns=ListColumns("imgs"))


def test_other_columns_pass_through() -> None:
    tree("d/a.png", "d/b.png", l__csv="file,seed,prompt,generator,cfg\nd/a.png,18446744073709551615,x,sd,7.5\n")
    inputs = expand("l.csv")
    assert inputs.columns == ["seed", "generator", "cfg"]
    assert [dict(item.more) for item in inputs] == [{"seed": 2**64 - 1, "generator": "sd", "cfg": 7.5}]
    inputs = expand("d", prompts="l.csv")
    assert inputs.columns == ["seed", "generator", "cfg"]
    assert [item.more.get("generator") for item in inputs] == ["sd", None]
    tree(l__jsonl='{"file": "a.png", "tags": ["x"]}\n{"file": "b.png", "ok": true, "seed": 3}\n')
    inputs = expand("l.jsonl")
    assert inputs.columns == ["tags", "ok", "seed"]
    assert [dict(item.more) for item in inputs] == [{"tags": '["x"]'}, {"ok": True, "seed": 3}]
    ours = "file,prompt,quality,correspondence,status,reason,gate,quality_low,generator\nd/a.png,x,1,2,ok,,.5,0,sd\n"
    tree(o__csv=ours)
    assert expand("o.csv").columns == ["generator"]
    Path("d/metadata.csv").write_text("file_name,text,seed\na.png,x,1\nb.png,y,2\n")
    inputs = expand("d")
    assert inputs.columns == ["seed"]
    assert [item.more for item in inputs] == [{"seed": 1}, {"seed": 2}]


def test_columns_of_metadata_go_to_the_image_that_it_names() -> None:
    tree("d/1.png", "d/sub/1.png", "d/sub/2.jpg")
    Path("d/metadata.csv").write_text("file_name,prompt,seed\nsub/1.png,a cat,9\n2.jpg,a dog,7\n")
    inputs = expand("d", recursive=True)
    found = {item.file: (item.prompt, dict(item.more)) for item in inputs}
    assert found == {"d/1.png": (None, {}), "d/sub/1.png": ("a cat", {"seed": 9}), "d/sub/2.jpg": (None, {})}


def test_an_image_that_is_given_a_prompt_has_no_note_of_another_beside_it() -> None:
    tree("a.png", a__txt="a cat")
    given, none = expand("a.png", prompt="a dog"), expand("a.png")
    assert [item.prompt for item in (*given, *none)] == ["a dog", None]
    assert given.notes == []
    assert any("--prompts-from sidecar" in note for note in none.notes)


def test_prompts_in_a_folder_come_before_those_above_it() -> None:
    tree("d/sub/1.png")
    Path("d/metadata.csv").write_text("file_name,prompt\nsub/1.png,above\n")
    assert prompts_of("d/sub") == {"d/sub/1.png": "above"}
    Path("d/sub/metadata.csv").write_text("file_name,prompt\n1.png,here\n")
    assert prompts_of("d/sub") == {"d/sub/1.png": "here"}


def test_prompts_of_no_image_name_the_first_image() -> None:
    tree("d/1.png", "d/2.png", p__csv="file,prompt\n9.png,a cat\n")
    assert "(the first image: 'd/1.png'; the first name there: '9.png')" in reason_of("d", prompts="p.csv")


def test_beside_given_prompts_columns_of_metadata_are_not_read() -> None:
    tree("d/1.png", p__csv="file,prompt,style\n1.png,a cat,oil\n")
    Path("d/metadata.csv").write_text("file_name,prompt,seed\n1.png,a dog,9\n")
    (item,) = expand("d", prompts="p.csv")
    assert (item.prompt, dict(item.more)) == ("a cat", {"style": "oil"})


def test_a_column_of_given_prompts_replaces_that_of_the_list() -> None:
    tree("1.png", l__csv="file,seed,size\n1.png,1,small\n", p__csv="file,prompt,seed\n1.png,a cat,2\n")
    (item,) = expand("l.csv", prompts="p.csv")
    assert item.more == {"seed": 2, "size": "small"}


def test_a_list_on_stdin_that_breaks_off_is_called_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    tree("a.png")
    monkeypatch.setattr(lines, "LONGEST", 40)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"file\na.png\n" + b"x" * 50)))
    whole, rest = expand("-")
    assert (whole.file, rest.file) == ("a.png", "stdin")
    assert rest.problem == "Expected lines of text in stdin, got one over 40 characters."


def test_lists_of_plain_names() -> None:
    tree("a.png", "b.png", l__txt="a.png\r\n\n b.png\n", p__txt="a cat\na dog\n")
    assert names("l.txt") == ["a.png", " b.png"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"d/a.png\nb.png\n", {"d/a.png": None, "b.png": None}),
        (b"d/a.png\0b.png\0", {"d/a.png": None, "b.png": None}),
        (b"file,prompt\nd/a.png,x\n", {"d/a.png": "x"}),
        (b'{"file": "b.png", "prompt": "y"}\n', {"b.png": "y"}),
        (b'["b.png"]', {"b.png": None}),
        *((b"\xef\xbb\xbf" + text, {"b.png": None}) for text in (b'["b.png"]', b'{"file": "b.png"}\n', b"b.png\n")),
    ],
)
def test_a_list_on_stdin(content: bytes, found: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    tree("d/a.png", "b.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    inputs = expand("-")
    assert inputs.count() == len(found)
    assert {item.file: item.prompt for item in inputs} == found
    assert all(Path(file).is_file() for file in found)


def test_a_bad_line_on_stdin_is_called_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    tree("a.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"file,prompt\na.png,x\na.png,x,y\n")))
    found = list(expand("-"))
    assert found[1].file == "line 3 of stdin"
    assert (found[1].problem or "").startswith("Expected a file in each row, but line 3 of stdin has 3 cells")


@pytest.mark.parametrize(
    ("content", "beside", "words"),
    [
        (b"file,prompt\n", [], "got one without rows: stdin."),
        (b"file,file\na.png,b.png\n", [], "Expected each column once in stdin, got"),
        (
            b"file,prompt\na.png,x\n",
            ["d"],
            "Expected files relative to the current folder, found 'a.png' in 'd': name only the folder, with --prompts "
            "and the list in a file.",
        ),
    ],
)
def test_a_bad_list_on_stdin_is_called_stdin(
    content: bytes, beside: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("d/a.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(UsageError) as caught:
        expand(["-", *beside])
    assert words in str(caught.value)


def test_stdin_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, words in ((b" \n", "got nothing"), (b"\x89PNG\r\n", "got an image")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert f"the names of images on stdin, {words}" in reason_of("-")


def test_a_url_is_not_a_file() -> None:
    assert "download it, URLs are not fetched" in reason_of("https://example.org/a.png")


def test_prompts_about_other_images_are_refused() -> None:
    tree("d/a.png", "d/b.png", "l.png", p__csv="file,prompt\nx.png,a cat\n", l__csv="file\nl.png\n")
    for source in ("d", "d/a.png", "l.csv"):
        assert "got none that matches (the first image: " in reason_of(source, prompts="p.csv")
    tree(p__csv="file,prompt\nx.png,a cat\nb,a dog\n")
    assert prompts_of("d", prompts="p.csv") == {"d/a.png": None, "d/b.png": "a dog"}


# --- files of prompts --------------------------------------------------------------------------------------------


def test_one_prompt_for_all_overrides_every_other() -> None:
    tree("d/a.png", "d/sub/b.png", l__csv="file,prompt\nc.png,from the list\n")
    Path("d/metadata.csv").write_text("file_name,prompt\na.png,from the folder\n")
    found = prompts_of("d", "l.csv", recursive=True, prompt="for all")
    assert found == dict.fromkeys(["d/a.png", "d/sub/b.png", "c.png"], "for all")


FORMS = {
    "p.csv": "file_name,prompt\na.png,one\nsub/b.png,two\n",
    "p.jsonl": '{"file_name": "a.png", "prompt": "one"}\n{"file": "./sub/b.png", "text": "two"}\n',
    "p.json": '{"a.png": "one", "sub\\\\b.png": "two"}',
    "q.json": '[{"image": "a.png", "prompt": "one"}, {"file": "sub/b.png", "caption": "two"}]',
}


@pytest.mark.parametrize("file", list(FORMS))
def test_prompts_of_every_form(file: str) -> None:
    tree("d/a.png", "d/sub/b.png", "d/sub/c.png")
    Path(file).write_text(FORMS[file])
    inputs = expand("d", recursive=True, prompts=file)
    assert [(i.file, i.prompt) for i in inputs] == [("d/a.png", "one"), ("d/sub/b.png", "two"), ("d/sub/c.png", None)]
    assert inputs.notes == [f"1 image has no prompt in '{file}' (the first: 'd/sub/c.png')."]


def test_images_without_a_prompt_beside_them_are_counted() -> None:
    tree("d/a.png", "d/b.png", "d/c.png")
    Path("d/a.txt").write_text("one")
    for note in ("2 images have no prompt in their", "1 image has no prompt in its"):
        inputs = expand("d", prompts_from="sidecar")
        list(inputs)
        assert inputs.notes == [f"{note} sidecar (the first: 'd/b.png')."]
        Path("d/c.png").unlink(missing_ok=True)


def test_the_longest_name_that_fits_wins() -> None:
    keys = {"x.png": "by name", "b/x.png": "by folder", "a/b/x.png": "by path", "other/y.png": "y"}
    Path("p.json").write_text(json.dumps(keys))
    prompts = PromptFile(Path("p.json"))
    assert prompts.find("a/b/x.png") == "by path"
    assert prompts.find("/data/c/b/x.png") == "by folder"
    assert prompts.find("c/x.png") == "by name"
    assert prompts.find("./a//b/../b/x.png") == "by path"
    assert prompts.find("elsewhere/y.png") == "y"  # by base name: the folder was another's
    assert prompts.find("z.png") is None
    assert prompts.find("ax.png") is None


def test_accents_composed_or_not_are_the_same_name() -> None:
    Path("p.json").write_text(json.dumps({"caf\u00e9.png": "x"}))
    assert PromptFile(Path("p.json")).find("d/cafe\u0301.png") == "x"


def test_a_base_name_that_fits_two_prompts_is_a_problem_of_its_image() -> None:
    tree("d/x.png", "d/y.png", p__csv="file,prompt\nm1/x.png,one\nm2/x.png,two\nm1/y.png,same\nm2/y.png,same\n")
    inputs = expand("d", prompts="p.csv")
    items = list(inputs)
    assert items[0].problem == (
        "Expected one prompt for this image, got 2 for the name 'x.png' in 'p.csv': give paths there, not names."
    )
    assert items[1] == Item("d/y.png", "d/y.png", "same")
    assert inputs.notes == ["2 of 4 prompts in 'p.csv' match no image (the first: 'm1/x.png')."]


def test_prompts_without_an_image_are_counted() -> None:
    tree("a.png", p__csv="file,prompt\nold/b.png,x\na.png,y\nc.png,z\n")
    inputs = expand("a.png", prompts="p.csv")
    assert [item.prompt for item in inputs] == ["y"]
    assert inputs.notes == ["2 of 3 prompts in 'p.csv' match no image (the first: 'old/b.png')."]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("p.csv", "file,mos\na.png,1\n", "the columns file and prompt in 'p.csv', got 'file, mos'"),
        ("p.csv", "file,prompt\na.png,x\na.png,y\n", "one prompt for 'a.png', got another in line 3 of 'p.csv'"),
        ("p.csv", "file,prompt\na.png\n", "but line 2 of 'p.csv' has 1 cell instead of 2"),
        ("p.jsonl", "{]\n", "but line 1 of 'p.jsonl' is not a line of JSON"),
        ("p.jsonl", '"a.png"\n', "but line 1 of 'p.jsonl' is not an object"),
        ("p.json", "{]", "JSON in 'p.json', got something else"),
        ("p.json", "3", 'Expected {"file": "prompt", ...} or a list of objects in \'p.json\''),
        ("p.json", "[" * 100_000, "JSON in 'p.json', got something else"),
        ("p.json", '{"a.png": "x", "./a.png": "y"}', "one prompt for 'a.png', got another"),
        ("p.json", '{"a.png": "x", "a.png": "y"}', "one prompt for 'a.png', got another"),
        ("p.json", '{"a.png": 3}', "the prompt in 'a.png' in 'p.json' is not text"),
        ("p.json", '["a.png"]', "but entry 1 of 'p.json' is not an object"),
        ("p.doc", "a cat", "a list to end in .csv, .tsv, .jsonl, .json, .parquet, .tar or .txt, got 'p.doc'"),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_prompts_that_cannot_be_used(file: str, text: str, words: str) -> None:
    tree("a.png")
    Path(file).write_text(text)
    assert words in reason_of("a.png", prompts=file)


def test_prompts_that_are_not_there_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    tree("a.png", p__json='{"a.png": "x"}')
    assert "'gone.csv' cannot be opened (No such file or directory)" in reason_of("a.png", prompts="gone.csv")
    Path("d.json").mkdir()
    assert "an ordinary file, got a folder or device" in reason_of("a.png", prompts="d.json")
    monkeypatch.setattr("mst_clipiqa.inputs.json_lists._MOST_JSON", 5)
    assert "at most 5 characters in 'p.json': write JSON lines" in reason_of("a.png", prompts="p.json")


def test_long_prompts_and_strange_ones() -> None:
    long = "x" * 2**20
    strange = "a\x00b \u202e \U0001f600 \ufffe"
    tree("a.png", "b.png", "c.png", p__json=json.dumps({"a.png": long, "b.png": strange, "c.png": "\ud800"}))
    found = list(expand(["a.png", "b.png", "c.png"], prompts="p.json"))
    assert [item.prompt for item in found] == [long, strange, None]
    assert found[2].problem is not None
    assert "a prompt in UTF-8, got other bytes" in found[2].problem
    tree(p__csv=f'file,prompt\na.png,"{long}"\n')
    assert prompts_of("a.png", prompts="p.csv") == {"a.png": long}


# --- metadata in folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,prompt\na.png,one\nsub/b.png,two\ngone.png,three\n"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "one"}\n{"file_name": "sub/b.png", "text": "two"}\n'),
    ],
)
def test_metadata_of_a_folder_reaches_into_its_folders(name: str, text: str) -> None:
    tree("d/a.png", "d/sub/b.png", "d/sub/a.png")
    Path("d", name).write_text(text)
    inputs = expand("d", recursive=True)
    assert [(i.file, i.prompt) for i in inputs] == [("d/a.png", "one"), ("d/sub/a.png", None), ("d/sub/b.png", "two")]
    left = [f"1 of 3 prompts in 'd/{name}' match no image (the first: 'gone.png')."] * (name == "metadata.csv")
    assert inputs.notes == [*left, f"1 image has no prompt in 'd/{name}' (the first: 'd/sub/a.png')."]


def test_the_nearest_metadata_counts() -> None:
    tree("d/a.png", "d/sub/a.png", "d/sub/b.png", "e/a.png")
    Path("d/metadata.csv").write_text("file_name,prompt\na.png,outer\nsub/a.png,outer sub\nsub/b.png,outer b\n")
    Path("d/sub/metadata.csv").write_text("file_name,prompt\na.png,inner\n")
    found = prompts_of("d", "e", recursive=True)
    assert found == {"d/a.png": "outer", "d/sub/a.png": "inner", "d/sub/b.png": "outer b", "e/a.png": None}


def test_metadata_that_is_about_something_else_is_said_and_left() -> None:
    tree("d/a.png")
    Path("d/metadata.csv").write_text("file_name,label\na.png,3\n")
    inputs = expand("d")
    assert [item.prompt for item in inputs] == [None]
    (note,) = inputs.notes
    assert note.startswith("metadata.csv is not read for prompts. Expected the columns file and prompt in")


def test_bad_metadata_is_refused_at_the_top_and_a_problem_below() -> None:
    tree("d/a.png", "d/sub/b.png")
    Path("d/sub/metadata.csv").write_text("file_name,prompt\nb.png\n")
    assert list(problems("d", recursive=True)) == ["d/sub/b.png"]
    assert (
        "line 2 of 'd/sub/metadata.csv' has 1 cell instead of 2: quote cells that hold commas"
        in problems("d", recursive=True)["d/sub/b.png"]
    )
    assert "line 2 of 'd/sub/metadata.csv' has 1 cell instead of 2: quote cells that hold commas" in reason_of("d/sub")
    assert names("d/sub", prompt="x") == ["d/sub/b.png"]  # a prompt is given, so it is not read
    Path("d/metadata.csv").touch()
    Path("d/metadata.jsonl").touch()
    assert "one of metadata.csv and metadata.jsonl in 'd', got both: remove one" in reason_of("d")


# --- anything at all ---------------------------------------------------------------------------------------------


def hostile() -> Iterator[str]:
    yield from (
        'file,prompt\n"a',
        "file,prompt\n\0,\0\n",
        "file\n../../etc/passwd\n",
        'file\n"\n\n"\n',
        "file,file\na,b\n",
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".csv", ".jsonl", ".json"]),
    data=st.binary(max_size=60)
    | st.text('{}[]",:\n\\u0e1ad8', max_size=40).map(str.encode)
    | st.sampled_from([text.encode() for text in hostile()])
    | st.binary(max_size=30).map(lambda tail: b"file,prompt\n" + tail),
)
def test_any_bytes_are_items_or_a_reason(suffix: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_bytes(data)
    (tmp_path / "a.png").touch()
    for paths, prompts in ((["a.png"], path), ([str(path)], None)):
        try:
            items = list(expand(paths, prompts=prompts))
        except UsageError:
            continue  # and nothing else
        for item in items:
            item.file.encode()
            (item.prompt or "").encode()
            assert item.path is not None or item.problem


def test_importing_it_is_light() -> None:
    code = (
        "import sys, mst_clipiqa.inputs.expand; sys.exit(bool({'torch', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_prompt_file_says_what_it_is_not() -> None:
    with pytest.raises(DataError, match=r"cannot be opened \(No such file"):
        PromptFile(Path("gone.json"))


def test_cells_of_a_list_of_csv_stay_as_they_are() -> None:
    tree("a.png", l__csv="file,version,hash,size,note\na.png,7.50,1e5,3.0,'tis\n")
    (item,) = expand("l.csv")
    with TableWriter("t.csv", list(item.more)) as table:
        table.append(item.more)
    assert Path("t.csv").read_text() == "version,hash,size,note\n7.50,1e5,3.0,'tis\n"


@pytest.mark.parametrize("name", ["l.json", "l.jsonl"])
def test_numbers_of_a_list_of_json_stay_as_they_are(name: str) -> None:
    tree("a.png")
    Path(name).write_text('{"file": "a.png", "version": 7.50, "hash": 1E5, "size": 3.0, "huge": 1e999}\n')
    (item,) = expand(name)
    with TableWriter("t.csv", list(item.more)) as table:
        table.append(item.more)
    assert Path("t.csv").read_text() == "version,hash,size,huge\n7.50,1E5,3,\n"


@pytest.mark.parametrize("name", ["l.json", "l.jsonl"])
def test_numbers_inside_lists_and_objects_of_json_stay_as_they_are(name: str) -> None:
    tree("a.png")
    inner = '{"seed": 12345678901234567890, "cfg": 7.50, "loras": [{"é": 1E5}, [1.10, 3.0]], "huge": HUGE}'
    Path(name).write_text(f'{{"file": "a.png", "made": {inner.replace("HUGE", "1e999")}}}\n', encoding="utf-8")
    (item,) = expand(name)
    assert item.more == {"made": inner.replace("HUGE", "null")}


@pytest.mark.parametrize(("name", "where"), [("l.json", "entry 1"), ("l.jsonl", "line 1")])
def test_a_row_of_json_that_is_nested_too_deeply_is_a_row_with_its_reason(name: str, where: str) -> None:
    tree("a.png")
    too_deep = 990 if sys.version_info >= (3, 12) else 900  # before, comprehensions were calls: json noticed earlier
    rows = [f'{{"file": "a.png", "made": {"[" * depth}{"]" * depth}}}' for depth in (too_deep, 9)]
    Path(name).write_text("[{},{}]".format(*rows) if name == "l.json" else "\n".join(rows))
    deep, fine = expand(name)
    assert deep.problem == f"Expected a file in each row, but {where} of '{name}' is nested too deeply."
    assert (fine.problem, fine.more) == (None, {"made": "[" * 9 + "]" * 9})


def test_a_row_that_cannot_be_used_keeps_its_other_columns() -> None:
    tree("a.png", l__csv="file,prompt,seed\n,x,1\na.png,x,2\n")
    assert [(item.problem is None, item.more) for item in expand("l.csv")] == [
        (False, {"seed": 1}),
        (True, {"seed": 2}),
    ]
    tree(l__jsonl='{"file": "a.png", "prompt": 3, "seed": 1}\n')
    assert [item.more for item in expand("l.jsonl")] == [{"seed": 1}]
    tree("d/x/1.png", "d/y/1.png", p__csv="file,prompt\n1.png,a\nz/1.png,b\n")
    tree(l__csv="file,seed\nd/x/1.png,5\n", p__csv="file,prompt\nz/1.png,a\nw/1.png,b\n")
    assert [(item.problem is None, item.more) for item in expand("l.csv", prompts="p.csv")] == [(False, {"seed": 5})]


def test_a_column_that_occurs_twice_is_refused_unless_it_has_no_name() -> None:
    tree("a.png", l__csv="file,seed,seed\na.png,1,2\n", m__csv="file,seed,,\na.png,1,,\n")
    assert reason_of("l.csv") == "Expected each column once in 'l.csv', got 'seed' twice: rename one."
    assert [item.more for item in expand("m.csv")] == [{"seed": 1}]


def test_one_object_of_json_is_one_row() -> None:
    tree("a.png", "prompt", one__json='{"file": "a.png", "prompt": "a cat", "seed": 3}')
    assert [(item.file, item.prompt, item.more) for item in expand("one.json")] == [("a.png", "a cat", {"seed": 3})]
    tree(one__json='{"image": "a cat", "a.png": "a dog"}')  # a file of this name
    assert [(item.file, item.prompt) for item in expand("one.json")] == [("image", "a cat"), ("a.png", "a dog")]


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        ('file,prompt\na.png,"a cat\nb.png,x\nc.png,x\n', ", so the next 2 lines are not read"),
        ('file,prompt\na.png,"a cat\nb.png,"x"\n', ", so the next line is not read"),
        ('file,prompt\na.png,"a cat', ""),
    ],
)
def test_a_quote_that_is_not_closed_is_said_with_what_it_costs(content: str, lost: str) -> None:
    tree("a.png", l__csv=content)
    (problem,) = problems("l.csv").values()
    assert problem == (
        f"Expected a file in each row, but line 2 of 'l.csv' is not a row of CSV: a quote in it is not closed{lost}."
    )


def listed(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    return [(item.path or "", item.problem) for item in expand("-")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names in other bytes, or fold accents")
def test_names_on_stdin_open_their_files_however_they_are_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    latin = os.fsdecode(b"caf\xe9.png")
    tree("two\nlines.png", latin, "e\u0301.png", "\u00fc.png")
    assert listed(b"two\nlines.png\0caf\xe9.png\0", monkeypatch) == [("two\nlines.png", None), (latin, None)]
    assert listed(b"caf\xe9.png\n", monkeypatch) == [(latin, None)]
    assert listed("\u00e9.png\nu\u0308.png\n".encode(), monkeypatch) == [("e\u0301.png", None), ("\u00fc.png", None)]
    assert listed("\u00fc.png\n".encode("cp1252"), monkeypatch) == [("\u00fc.png", None)]
    assert listed("\u00fc.png\n".encode("utf-16"), monkeypatch) == [("\u00fc.png", None)]
    assert listed("n\u00e4.png\n".encode(), monkeypatch) == [("n\u00e4.png", None)]  # there is none: said later


def test_a_list_beside_the_folder_that_it_is_about_is_refused() -> None:
    tree("d/a.png", l__csv="file,prompt\na.png,a cat\n")
    assert reason_of("l.csv", "d") == (
        "Expected files relative to the list 'l.csv', found 'a.png' in 'd': name only the folder, with --prompts l.csv."
    )
    tree("a.png")
    assert names("l.csv", "d") == ["a.png", "d/a.png"]


@pytest.mark.parametrize("change", ["shorter", "longer", "replaced", "removed"])
def test_a_list_that_changes_while_it_is_read_has_a_row_that_says_so(change: str, tmp_path: Path) -> None:
    path, line = tmp_path / "list.csv", "a.png\n"
    path.write_text("file\n" + line * 10_000)  # more than is read at once
    items = expand(str(path))
    next(items)
    match change:
        case "shorter":
            path.write_text("file\n" + line)
        case "longer":
            path.write_text(path.read_text() + line)
        case "replaced":
            (tmp_path / "new").write_text("file\n" + line)
            (tmp_path / "new").replace(path)
        case "removed":
            path.unlink()
    *_, last = items
    said = "Expected a list that stays as it is while it is read, but it has changed: score it again."
    assert (last.file, last.problem) == ((f"{tmp_path}/a.png", None) if change == "removed" else (str(path), said))


def test_a_delimiter_that_is_not_read_is_named() -> None:
    tree("a.png", l__csv="bild|prompt\na.png|a cat\n", m__csv="file;prompt\na.png;a;b\n")
    assert "got 'bild|prompt': separate cells with commas, semicolons or tabs." in reason_of("l.csv")
    assert "quote cells that hold semicolons" in problems("m.csv")["line 2 of 'm.csv'"]
