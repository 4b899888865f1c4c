"""The image of a row, also inside a tar or Parquet file: found, shown in a report, copied to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mst_clipiqa.analysis.filter import NOT_MOVED, plan
from mst_clipiqa.analysis.images import NOT_FOUND, ImageFinder
from mst_clipiqa.analysis.transfer import foresee, transfer
from mst_clipiqa.report import write_report
from tests.serving import png
from tests.tables.test_stored import parquet_of, tar_of

IMAGES = [png(seed, seed / 5) for seed in range(3)]
FILES = ["s.tar/x/0.png", "s.tar/x/1.png", "p.parquet/row-1"]
ROWS: list[dict[str, Any]] = [{"file": file, "quality": place, "status": "ok"} for place, file in enumerate(FILES)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tar_of(tmp_path / "s.tar", {"x/0.png": IMAGES[0], "x/1.png": IMAGES[1], "../../out.png": IMAGES[2]})
    parquet_of(tmp_path / "p.parquet", {"image": pa.array([IMAGES[2]])})
    (tmp_path / "b.tar").write_bytes(b"no tar")
    (tmp_path / "b.parquet").write_bytes(b"no table")
    return tmp_path


def test_images_inside_files_are_found_by_the_names_of_the_table(folder: Path) -> None:
    finder = ImageFinder([folder])
    found = [finder.find(file) for file in FILES]
    assert [image and not isinstance(image, Path) and image.read_bytes() for image in found] == IMAGES
    for file in ("s.tar/2.png", "b.tar/0.png", "b.parquet/row-1", "t.tar/0.png", "s.tar", ""):
        assert not finder.find(file) or file == "s.tar"
    assert ImageFinder([]).find(f"{folder}/s.tar/x/0.png") is not None


def test_an_image_inside_a_file_comes_before_another_of_its_name(folder: Path) -> None:
    (folder / "0.png").write_bytes(IMAGES[1])
    found = ImageFinder([folder]).find("s.tar/x/0.png")
    assert found is not None and found.read_bytes() == IMAGES[0]
    assert ImageFinder([folder]).find("gone/0.png") == folder / "0.png"
    assert ImageFinder([folder], by_name=False).find("gone/0.png") is None


def test_they_are_copied_into_a_folder_for_each_file_and_never_moved(folder: Path) -> None:
    rows = [*ROWS, {"file": "s.tar/none.png", "status": "ok"}]
    planned = plan(rows, rows, [folder], folder / "out")
    pairs = [(source, target) for _, source, target in planned.moves]
    assert [to for _, to in pairs] == [folder / "out" / file for file in FILES]
    assert [one.why for one in planned.left_out] == [NOT_FOUND]
    for _ in range(2):  # the second time they are there already
        assert list(foresee(pairs, move=False)) == [to for _, to in pairs]
        assert [done.to for done in transfer(pairs, move=False)] == [to for _, to in pairs]
    assert [to.read_bytes() for _, to in pairs] == IMAGES
    assert sum(path.is_file() for path in (folder / "out").rglob("*")) == 3
    moved = plan(rows, rows, [folder], folder / "out", move=True)
    assert not moved.moves and {one.why for one in moved.left_out} == {NOT_MOVED, NOT_FOUND}


def test_no_name_inside_a_tar_leads_out_of_the_target(folder: Path) -> None:
    rows = [ROWS[0], {"file": "s.tar/../../out.png", "status": "ok"}]
    planned = plan(rows, rows, [folder], folder / "out")
    assert len(planned.moves) == 2
    assert all((folder / "out") in to.parents and ".." not in to.parts for _, _, to in planned.moves)


def test_an_image_of_a_damaged_file_is_not_copied_and_says_why(folder: Path) -> None:
    planned = plan(ROWS[:2], ROWS, [folder], folder / "out")
    whole = (folder / "s.tar").read_bytes()
    (folder / "s.tar").write_bytes(whole[: 512 + len(IMAGES[0]) // 2])
    (first, *_) = transfer([(source, target) for _, source, target in planned.moves], move=False)
    assert first.to is None and "ends within it" in first.reason
    assert not [path for path in (folder / "out").rglob("*") if path.is_file()]


def test_a_report_shows_them(folder: Path) -> None:
    written = write_report(ROWS, folder / "r.html", folders=[folder])
    assert (written.left_out, written.side) == ([], 512)
    without = write_report(ROWS, folder / "r.html", folders=[folder / "none"])
    assert len(without.left_out) == 3
