"""``mst-clipiqa score`` with the embedded model, as people call it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mst_clipiqa.cli import group
from mst_clipiqa.cli.commands._score_table import Seen, print_table
from mst_clipiqa.cli.commands._screen import apart, common_folder, tail
from mst_clipiqa.scoring.score_rows import COLUMNS, LEVEL_COLUMNS
from mst_clipiqa.scoring.scorer import Scorer
from tests.commands import csv_rows, run_score
from tests.fakes import draw

MINI = Scorer.load("mini")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for i in range(4):
        draw(i, i / 4, size=96).save(root / f"{i}.png")
    return root


def distort(root: Path) -> set[str]:
    """Put twelve kinds of files that cannot be scored among the good ones."""
    whole = (root / "0.png").read_bytes()
    (root / "a_empty.png").write_bytes(b"")
    (root / "b_truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "c_text.jpg").write_text("not an image")
    (root / "d_folder.png").mkdir()
    (root / "e_header.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 20)
    (root / "f_pdf.png").write_bytes(b"%PDF-1.7\n" + b"x" * 200)
    (root / "g_web_page.png").write_bytes(b"<!doctype html><html></html>")
    (root / "h_link.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "i_pipe.png")
    flipped = bytearray(whole)
    flipped[40:60] = b"\xff" * 20
    (root / "j_flipped.png").write_bytes(bytes(flipped))
    bomb = bytearray(whole)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    (root / "k_bomb.png").write_bytes(bytes(bomb))
    Image.new("RGB", (8, 8)).save(root / "l_icon.ico.png", format="ICO")
    return {path.name for path in root.iterdir()} - {f"{i}.png" for i in range(4)}


def test_twelve_kinds_of_bad_files_among_good_ones(folder: Path, tmp_path: Path) -> None:
    run_score(folder, "-o", tmp_path / "clean.csv")
    bad = distort(folder)
    assert len(bad) == 12
    run_score(folder, "-o", tmp_path / "mixed.csv", code=1)
    found = csv_rows(tmp_path / "mixed.csv")
    assert list(found[0]) == list(COLUMNS)
    assert len(found) == 16
    failed = {Path(row["file"]).name: row for row in found if row["status"] == "error"}
    assert failed.keys() == bad
    for row in failed.values():
        assert row["reason"].startswith("expected")
        assert not row["reason"].endswith(".")
        assert row["quality"] == row["gate"] == row["width"] == ""
    good = [row for row in found if row["status"] == "ok"]
    for row, want in zip(good, csv_rows(tmp_path / "clean.csv"), strict=True):
        assert row["file"] == want["file"]
        assert float(row["quality"]) == pytest.approx(float(want["quality"]), abs=1e-5)


def test_fail_stops_at_the_first_bad_row(folder: Path, tmp_path: Path) -> None:
    (folder / "0.png").write_bytes(b"")
    result = run_score(folder, "-o", tmp_path / "s.csv", "--on-error", "fail", code=2)
    assert "Expected every row to be scored" in result.stderr
    assert not (tmp_path / "s.csv").exists()


def test_csv_jsonl_and_parquet_say_the_same(folder: Path, tmp_path: Path) -> None:
    from mst_clipiqa.tables.reading import read_table

    tables = []
    for suffix in ("csv", "jsonl", "parquet"):
        run_score(folder, "--prompt", "a red car", "-o", tmp_path / f"s.{suffix}")
        tables.append(read_table(tmp_path / f"s.{suffix}"))
    assert tables[0] == tables[1] == tables[2]
    assert [row["prompt"] for row in tables[0]] == ["a red car"] * 4


def test_stdout_is_data_only(folder: Path) -> None:
    text = run_score(folder).stdout
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert len(text.splitlines()) == 5
    lines = [json.loads(line) for line in run_score(folder, "--json").stdout.splitlines()]
    assert [list(line) for line in lines] == [list(COLUMNS)] * 4


def test_json_lines_are_the_same_from_score_and_from_rank(folder: Path, tmp_path: Path) -> None:
    (folder / "0.png").rename(tmp_path / "猫.png")
    scored = run_score(tmp_path / "猫.png", "--json").stdout
    assert "猫.png" in scored
    (tmp_path / "s.jsonl").write_text(scored)
    ranked = CliRunner().invoke(group, ["rank", str(tmp_path / "s.jsonl"), "--json"]).stdout
    line = json.loads(ranked)
    assert line.pop("rank") == 1
    assert {**json.loads(scored), **line} == json.loads(scored)
    assert "猫.png" in ranked


def test_prompts_come_from_files_and_from_metadata(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,prompt\n0.png,a red car\n2.png,a blue forest\n")
    lines = [json.loads(line) for line in run_score(folder, "--json").stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["a red car", None, "a blue forest", None]
    (tmp_path / "p.json").write_text(json.dumps({"1.png": "a small girl"}))
    lines = [
        json.loads(line) for line in run_score(folder, "--json", "--prompts", tmp_path / "p.json").stdout.splitlines()
    ]
    assert [line["prompt"] for line in lines] == [None, "a small girl", None, None]
    assert lines[1]["correspondence"] is not None


def test_columns_of_the_list_are_columns_of_the_table(folder: Path, tmp_path: Path) -> None:
    (folder / "list.csv").write_text("file;seed;model;generator\n0.png;7;x;sd\n1.png;8;x;mj\n")
    result = run_score(folder / "list.csv", "-o", tmp_path / "s.csv")
    assert list(csv_rows(tmp_path / "s.csv")[0]) == [*COLUMNS, "seed", "generator"]
    assert [(row["seed"], row["generator"], row["model"]) for row in csv_rows(tmp_path / "s.csv")] == [
        ("7", "sd", "mini"),
        ("8", "mj", "mini"),
    ]
    assert "the list's 'model' is left out" in result.stderr
    run_score(folder / "list.csv", "-o", tmp_path / "s.parquet")


def test_intervals_add_how_sure_each_score_is(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    found = [json.loads(line) for line in run_score(folder, "--json", "--intervals", code=1).stdout.splitlines()]
    ends = [f"{target}_{end}" for target in ("quality", "correspondence") for end in ("low", "high")]
    assert list(found[0]) == [*COLUMNS, *ends, "quality_spread", *LEVEL_COLUMNS]
    assert {found[-1][name] for name in ("quality_low", "quality_spread", *LEVEL_COLUMNS)} == {None}  # the bad one
    spreads = set()
    for row in found[:-1]:
        shares = [row[name] for name in LEVEL_COLUMNS]
        mean = sum(5 * k / 4 * share for k, share in enumerate(shares))
        deviation = sum(share * (5 * k / 4 - mean) ** 2 for k, share in enumerate(shares)) ** 0.5
        assert row["quality"] == pytest.approx(mean, abs=1e-4)
        assert row["quality_spread"] == pytest.approx(deviation, abs=1e-4)
        spreads.add(row["quality_spread"])
    assert len(spreads) == 4  # it differs from image to image


def table(monkeypatch: pytest.MonkeyPatch, capsys: Any, width: int, *made: dict[str, Any], output: str = "") -> str:
    """Return what a terminal of this width shows of rows."""
    monkeypatch.setenv("COLUMNS", str(width))
    seen = Seen()
    for row in made:
        seen.add(
            {"status": "ok", "prompt": None, "reason": None, "quality": 1.0, "correspondence": None, "familiarity": 0.5}
            | row
        )
    print_table(seen, MINI, Path(output) if output else None)
    shown: str = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    return shown


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_keeps_what_tells_names_apart(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    long = "a/very/long/way/down/to/where/they/lie"
    prompt = "a painting of a fire beside a river at night"
    ends = [{"file": f"{long}/a-painting-of-a-fire-beside-a-river_{i:03}.png", "prompt": prompt} for i in range(3)]
    begins = [{"file": f"{long}/{i:03}-a-painting-of-a-fire-beside-a-river.png", "prompt": prompt} for i in range(3)]
    for made in (ends, begins):
        out = table(monkeypatch, capsys, width, *made)
        assert out.splitlines()[0] == f"In {long}/"
        names = [line.split()[0] for line in out.splitlines() if " 1.00 " in line]
        assert len(set(names)) == 3
        assert all(name.count("…") == (width < 160) for name in names)
    out = table(monkeypatch, capsys, width, {"file": "\x1b[2J.png", "prompt": "[red]"}, *ends[:1])
    assert "[red]" in out and "\x1b" not in out


def test_a_terminal_lists_every_failed_row_and_says_where_the_others_are(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made: list[dict[str, Any]] = [{"file": f"d/{i}.png"} for i in range(2400)]
    made[2000] |= {"status": "error", "reason": "expected an image, got a web page", "quality": None}
    out = table(monkeypatch, capsys, 80, *made)
    assert "2000.png" in out and "expected an image" in out and "39.png" in out and " 40.png" not in out
    assert "2,359 more; -o FILE keeps them." in out
    assert "2,359 more; scores.csv has them." in table(monkeypatch, capsys, 80, *made, output="scores.csv")
    assert "prompt or reason" not in table(monkeypatch, capsys, 80, *made[:3])
    assert " more" not in table(monkeypatch, capsys, 80, *made[:40])


def test_a_terminal_shows_the_answers_that_were_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = {"gate": 0.5, "negative_prompt": "blue", "negative_match": 1.25, "reference": "r.png"}
    asked |= {"reference_coarse": -0.5, "reference_fine": 0.75, "quality_low": 0.5}
    row = {"file": "a.png", "prompt": "a red ball on a table"} | asked
    wide = table(monkeypatch, capsys, 100, row)
    assert " 1.25 " in wide and " -0.50 " in wide and " 0.75 " in wide and "gate" not in wide
    assert "Not shown: negative_prompt, reference, quality_low; -o FILE keeps all columns." in wide.splitlines()
    assert wide.splitlines()[-1] == "Model mini; higher is better, except for negative_match."
    narrow = table(monkeypatch, capsys, 64, row)
    assert " 1.25 " in narrow and " 0.75 " not in narrow and "a red ball" in narrow
    assert "reference_fine" in narrow.partition("Not shown")[2]
    assert "Not shown" not in table(monkeypatch, capsys, 100, row, output="scores.csv")


def test_a_terminal_shows_familiarity_and_not_the_gate(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shown = table(monkeypatch, capsys, 80, {"file": "a.png", "gate": 0.53, "familiarity": 0.21})
    assert " 0..1" in shown and "familiarity" in shown and " 0.21" in shown
    assert "gate" not in shown and "0.53" not in shown
    unknown = table(monkeypatch, capsys, 80, {"file": "a.png", "gate": 0.53, "familiarity": None})
    assert "familiarity" not in unknown  # the model does not describe its training images


def test_a_terminal_counts_the_images_unlike_the_training_images(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    made = [{"file": f"{i}.png", "familiarity": familiarity} for i, familiarity in enumerate([0.01, 0.049, 0.05, None])]
    said = "images that the model was trained on (familiarity below 0.05), so these scores are less certain."
    assert f"2 of 4 scored rows are unlike the {said}" in " ".join(table(monkeypatch, capsys, 100, *made).split())
    assert "1 of 1 scored row is unlike" in table(monkeypatch, capsys, 100, made[0])
    assert "unlike" not in table(monkeypatch, capsys, 100, *made[2:])


def test_the_end_says_what_was_written_where(folder: Path, tmp_path: Path) -> None:
    (folder / "0.png").write_bytes(b"")
    arguments = ["score", str(folder), "-o", str(tmp_path / "new" / "folder" / "s.csv")]
    first, second = (CliRunner().invoke(group, arguments) for _ in range(2))
    assert re.search(r"Wrote \S+s\.csv: 4 images, 1 failed, [0-9.]+ s\.", first.stderr)
    assert re.search(r"Wrote \S+s\.csv, which replaces an older file: 4 images", second.stderr)
    assert "1 row could not be scored" in first.stderr
    assert first.stderr.count("no prompt") == 1 and "The 3 scored images have no prompt, so" in first.stderr
    (folder / "some.csv").write_text("file,prompt\n0.png,\n1.png,a red car\n2.png,\n3.png,\n")
    some = CliRunner().invoke(group, ["score", str(folder / "some.csv")])
    assert "2 of 3 scored images had no prompt, so correspondence is empty there" in some.stderr
    alone = CliRunner().invoke(group, ["score", str(folder / "1.png")])
    assert "The image has no prompt, so correspondence is not scored: give --prompt or --prompts." in alone.stderr
    assert "no prompt" not in (tmp_path / "new" / "folder" / "s.csv").read_text()
    assert "no prompt" not in CliRunner().invoke(group, [*arguments, "--prompt", "a red car"]).stderr


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("cat.png", 7, "cat.png"),
        ("cats/cat.png", 10, "…/cat.png"),
        ("a/b/cat.png", 10, "…/cat.png"),
        ("a/b/cat.png", 11, "a/b/cat.png"),
        ("all/b/cat.png", 11, "…/b/cat.png"),
        ("a_long_name_012.png", 9, "…_012.png"),
        ("猫猫猫猫.png", 8, "…猫.png"),
    ],
)
def test_the_end_of_a_name_tells_it_apart(name: str, width: int, shown: str) -> None:
    assert tail(name, width) == shown


def test_names_are_cut_where_they_are_the_same() -> None:
    assert apart(["a.png", "b.png"], 5) == ["a.png", "b.png"]
    assert apart([f"long-name-{i}.png" for i in "ab"], 8) == ["…e-a.png", "…e-b.png"]
    assert apart([f"{i}-long-name.png" for i in "ab"], 8) == ["a-l….png", "b-l….png"]
    assert apart([f"one-long-{i}-name-that-is-the-same.png" for i in "ab"], 8) == ["…a-name…", "…b-name…"]
    assert apart(["same-name.png"] * 2, 8) == ["…ame.png"] * 2
    assert common_folder(["d/e/a.png", "d/e/f/b.png"]) == "d/e/"
    assert common_folder(["d/ea/a.png", "d/eb/b.png"]) == "d/"
    assert common_folder(["d/a.png", "b.png"]) == common_folder(["d/a.png"]) == common_folder([]) == ""


def test_python_and_command_agree_for_every_kind_of_source(folder: Path) -> None:
    line = json.loads(run_score(folder / "1.png", "--json", "--prompt", "a red car").stdout)
    scorer = MINI
    image = Image.open(folder / "1.png").convert("RGB")
    for source in (folder / "1.png", (folder / "1.png").read_bytes(), image, np.asarray(image)):
        score = scorer(source, "a red car")
        assert score.quality == pytest.approx(line["quality"], abs=1e-5)
        assert score.correspondence == pytest.approx(line["correspondence"], abs=1e-5)
    alone = [scorer(path).quality for path in sorted(folder.glob("*.png"))]
    batch = [score.quality for score in scorer(sorted(folder.glob("*.png"), reverse=True))]
    assert batch[::-1] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["{folder}", "-o", "scores.xlsx"], "xlsx"),
        (["{folder}", "--prompt", " "], "Expected words in --prompt"),
        (["{folder}", "--modle", "mini"], "--modle"),
        (["{folder}", "--model", "maxi"], "or a model folder, got 'maxi'"),
        (["{folder}", "--precision", "fp8"], "Expected precision auto, fp32, bf16, fp16 or int8, got 'fp8'"),
        (["{folder}", "--device", "tpu"], "Expected a device"),
        (["{folder}", "--batch-size", "0"], "Expected --batch-size to be a whole number of at least 1, got 0."),
    ],
)
def test_wrong_usage_is_said_in_one_sentence(folder: Path, arguments: list[str], message: str) -> None:
    result = run_score(*(a.format(folder=folder) for a in arguments), code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
