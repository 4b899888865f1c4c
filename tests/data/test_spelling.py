"""File names whose accents are composed in one place and not in another: macOS writes them so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mst_clipiqa.benchmark.match import match_rows
from mst_clipiqa.data import load_preferences, load_rated_set
from mst_clipiqa.data.split_files import read_parts
from mst_clipiqa.tables.spelling import on_disk
from tests.rated_files import images, write

COMPOSED, APART = "caf\u00e9", "cafe\u0301"
SPELLINGS = pytest.mark.parametrize(("said", "disk"), [(COMPOSED, APART), (APART, COMPOSED)])


@SPELLINGS
@pytest.mark.parametrize("name", ["{}.png", "{}/1.png", "{0}/{0}.png"])
def test_the_images_of_a_rated_set(tmp_path: Path, name: str, said: str, disk: str) -> None:
    images(tmp_path / "images", [name.format(disk)])
    write(tmp_path / "data.csv", "file,mos", f"{name.format(said)},3.5")
    (record,) = load_rated_set("csv", tmp_path).records
    assert record.name == name.format(said)
    assert Path(str(record.file)).read_bytes() == b"image " + name.format(disk).encode()


@SPELLINGS
def test_the_images_of_pairs(tmp_path: Path, said: str, disk: str) -> None:
    images(tmp_path, [f"{disk}.png", "b.png"])
    table = write(tmp_path / "pairs.csv", "image_a,image_b,preferred", f"{said}.png,b.png,a")
    (pair,) = load_preferences(table).pairs
    assert Path(str(pair.a.file)).read_bytes() == b"image " + f"{disk}.png".encode()


@SPELLINGS
def test_the_rows_of_a_table_of_scores(tmp_path: Path, said: str, disk: str) -> None:
    write(tmp_path / "data.csv", "file,mos", f"{said}/1.png,3.5", "other/1.png,1.5")
    rows = [{"file": f"images/{folder}/1.png"} for folder in (disk, "other")]
    found = match_rows(rows, load_rated_set("csv", tmp_path, images=False).records)
    assert found == {f"{said}/1.png": rows[0], "other/1.png": rows[1]}


@SPELLINGS
def test_the_names_of_a_split_file(tmp_path: Path, said: str, disk: str) -> None:
    path = write(tmp_path / "split.csv", "file,split", f"{said}.png,train", f"{said}.jpg,test")
    names = [f"{disk}.png", f"folder/{disk}.jpg"]
    assert read_parts(path, names) == ({"train": names[:1], "test": names[1:]}, ())


@pytest.mark.parametrize(("folder", "file"), [(COMPOSED, APART), (APART, COMPOSED)])
@SPELLINGS
def test_each_folder_of_a_path_may_be_spelled_in_its_own_way(
    tmp_path: Path, folder: str, file: str, said: str, disk: str
) -> None:
    images(tmp_path / disk, [f"{folder}/{file}.png"])
    found = on_disk(f"{tmp_path}/{said}/{COMPOSED}/{COMPOSED}.png")
    assert Path(found).read_bytes() == b"image " + f"{folder}/{file}.png".encode()
    missing = os.fspath(tmp_path / said / f"{COMPOSED}.gif")
    assert on_disk(missing) == missing
