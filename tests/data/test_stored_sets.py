"""Rated sets that hold their images: how images are named, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mst_clipiqa.data import load_rated_set
from mst_clipiqa.errors import DataError


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def store(path: Path, names: list[str], low: float = 1.0) -> None:
    """Write a Parquet file of images with ratings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(i), "path": name} for i, name in enumerate(names)]
    ratings = [low + i for i in range(len(names))]
    pq.write_table(pa.table({"image": images, "prompt": [f"a {n}" for n in names], "mos": ratings}), path)


def test_images_of_several_files_are_named_below_the_folder(tmp_path: Path) -> None:
    store(tmp_path / "set" / "one.parquet", ["a.png", "b.png"])
    store(tmp_path / "set" / "deep" / "two.parquet", ["a.png"], 3.0)
    rated = load_rated_set("parquet", tmp_path / "set")
    ratings = {record.name: record.targets for record in rated.records}
    assert list(ratings) == ["deep/two.parquet/a.png", "one.parquet/a.png", "one.parquet/b.png"]
    assert [next(iter(one.values())) for one in ratings.values()] == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("root", ["set", "set/one.parquet"])
def test_images_of_one_file_keep_their_names(tmp_path: Path, root: str) -> None:
    store(tmp_path / "set" / "one.parquet", ["a.png", "b.png"])
    assert [record.name for record in load_rated_set("parquet", tmp_path / root).records] == ["a.png", "b.png"]


def test_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected files with images that end in \.parquet in .*, got none"):
        load_rated_set("parquet", tmp_path)
    pq.write_table(pa.table({"mos": [1.0]}), tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"Expected a \.parquet with images, got .*: use --data csv for a table"):
        load_rated_set("parquet", tmp_path / "table.parquet")
