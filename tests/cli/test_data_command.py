"""``mst-clipiqa data check``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mst_clipiqa.cli import group
from mst_clipiqa.data import SETS
from tests.rated_files import agiqa_1k, agiqa_3k, images, write


def check(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["data", "check", *map(str, arguments)], prog_name="mst-clipiqa")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A little AGIQA-3K with two identical images across prompts."""
    images(tmp_path / "images", agiqa_3k(tmp_path))
    for name in ("sd1.5_normal_001.jpg", "sd1.5_normal_004.jpg"):
        (tmp_path / "images" / name).write_bytes(b"black")
    return tmp_path


def test_all_there(root: Path) -> None:
    result = check("AGIQA-3K", "--root", root)
    assert result.exit_code == 0, result.output
    assert "18 of 18 rated images found\n" in result.stdout
    assert (
        "2 images in 1 set are the same file (1 of the sets across prompts): "
        "sd1.5_normal_001.jpg = sd1.5_normal_004.jpg" in result.stdout
    )
    assert "sd1.5 12, xl2.2 6" in result.stdout
    assert "quality on 0..5: 18 scores, lowest 0.500, mean 1.750 (sd 0.858), highest 3.000" in result.stdout
    assert "    0.5 .. 1            5 ████████████████████████████████████████\n" in result.stdout
    assert "      2 .. 2.5          0 \n" not in result.stdout
    assert result.stderr == ""


def test_one_score_is_one(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,quality,correspondence\na.jpg,2,\nb.jpg,3,1\n")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    result = check("csv", "--root", tmp_path / "labels.csv", "--range", "0", "5")
    assert "quality on 0..5: 2 scores, " in result.stdout
    assert "correspondence on 0..5: 1 score, " in result.stdout


def test_images_in_no_official_part_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "file,mos,split", "a.jpg,1,train", "b.jpg,2,test", "c.jpg,3,holdout", "d.jpg,4,")
    images(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    assert "split      test 1, train 1; 2 images in no part\n" in check("csv", "--root", tmp_path).stdout
    write(tmp_path / "labels.csv", "file,mos,split", "a.jpg,1,train", "b.jpg,2,test")
    assert "split      test 1, train 1\n" in check("csv", "--root", tmp_path).stdout


def test_images_missing(root: Path) -> None:
    for name in ("sd1.5_normal_002.jpg", "xl2.2_normal_000.jpg"):
        (root / "images" / name).unlink()
    result = check("agiqa-3k", "--root", root)
    assert result.exit_code == 1
    assert "16 of 18 rated images found, 2 missing: xl2.2_normal_000.jpg, sd1.5_normal_002.jpg\n" in result.stdout
    assert "quality on 0..5: 18 scores" in result.stdout


def test_labels_without_any_image_can_be_looked_at(tmp_path: Path) -> None:
    agiqa_3k(tmp_path)
    result = check("agiqa-3k", "--root", tmp_path)
    assert result.exit_code == 1
    assert "0 of 18 rated images found, 18 missing: " in result.stdout


def test_json(root: Path) -> None:
    (root / "images" / "sd1.5_normal_002.jpg").unlink()
    result = check("agiqa-3k", "--root", root, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["rated"] == 18
    assert report["found"] == 17
    assert report["missing"] == ["sd1.5_normal_002.jpg"]
    assert report["identical"] == [["sd1.5_normal_001.jpg", "sd1.5_normal_004.jpg"]]
    assert report["identical_across_prompts"] == 1
    assert report["prompts"] == 6
    quality = report["targets"][0]
    assert quality["target"] == "quality"
    assert quality["score_range"] == [0, 5]
    assert quality["histogram"] == [0, 5, 1, 5, 1, 5, 1, 0, 0, 0]
    assert sum(quality["histogram"]) == quality["count"] == 18


def test_what_the_reader_did_is_a_note(tmp_path: Path) -> None:
    agiqa_1k(tmp_path, [("dreamStudio_8_9_1_1.jpg", "alien, wearing shirt, wild, realistic style", 0.4414)])
    result = check("agiqa-1k", "--root", tmp_path)
    assert "note       row 10 of AIGC_MOS_Zscore.xlsx is left out" in result.stdout
    assert "arXiv 2303.12618" in result.stdout


def test_the_highest_score_is_in_the_last_step_of_a_given_scale(tmp_path: Path) -> None:
    write(tmp_path / "mine.csv", "name,mos", "a.png,1", "b.png,5")
    images(tmp_path, ["a.png", "b.png"])
    report = json.loads(check("csv", "--root", tmp_path, "--range", 1, 5, "--json").stdout)
    assert report["targets"][0]["histogram"] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_labels_of_another_set_are_named(tmp_path: Path) -> None:
    write(tmp_path / "data.csv", "name,mos", "a.png,1")
    assert check("agiqa-3k", "--root", tmp_path).stderr == (
        f"Error: Expected the scores of AGIQA-3K in '{tmp_path}' (columns mos_quality, mos_align), got label files "
        "without them: check the folder.\n"
    )
    write(tmp_path / "full.csv", "Generated_image,MOS", "a.png,1")
    assert "Expected an image in column 'Image' in line 2 of full.csv, got no such column: check the folder." in (
        check("agiqa-1k", "--root", tmp_path).stderr
    )


@pytest.mark.parametrize(
    ("name", "said"), [("agiqa-3k", "Expected the labels of AGIQA-3K"), ("agiqa", "Expected the name of a rated set")]
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    result = check(name, "--root", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {said}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_label_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for part in ("train", "test"):
        images(tmp_path / part, [f"{part}.png"])
        write(tmp_path / part / "metadata.csv", "file_name,quality", f"{part}.png,3")
    result = check("imagefolder", "--root", tmp_path)
    assert "labels     test/metadata.csv, train/metadata.csv (licence" in result.stdout


def test_the_help_names_every_set() -> None:
    words = check("--help").output.replace(",", " ").replace(";", " ").replace(".", " ").split()
    assert [name for name in SETS if name not in words] == []
