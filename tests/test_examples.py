"""The images that the project ships: small, varied, listed, licensed, and made by the committed script."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "examples"
IMAGES = sorted(path for path in FOLDER.iterdir() if path.suffix in {".jpg", ".png", ".webp"})


def _rows() -> list[dict[str, str]]:
    with (FOLDER / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", FOLDER / "make_examples.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("examples/make_examples.py cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_examples"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    script.main(folder)
    return folder


def test_the_table_lists_every_image_once_with_a_prompt() -> None:
    rows = _rows()
    assert [row["file_name"] for row in rows] == sorted(row["file_name"] for row in rows)
    assert {row["file_name"] for row in rows} == {path.name for path in IMAGES}
    assert len(rows) == len(IMAGES) >= 12
    assert all(row["prompt"].strip() for row in rows)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_is_small(path: Path) -> None:
    with Image.open(path) as image:
        assert 256 <= max(image.size) <= 512
    assert path.stat().st_size <= 64 * 1024


def test_formats_differ() -> None:
    assert {path.suffix for path in IMAGES} == {".jpg", ".png", ".webp"}


def test_every_image_has_its_licence() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in IMAGES if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_the_script_draws_the_same_image(path: Path, drawn: Path) -> None:
    with Image.open(path) as ours, Image.open(drawn / path.name) as again:
        difference = np.asarray(ours.convert("RGB"), dtype=int) - np.asarray(again.convert("RGB"), dtype=int)
    assert np.abs(difference).mean() < 0.5  # of 255; encoders differ a little from version to version


def test_the_script_writes_the_same_table(drawn: Path) -> None:
    assert (drawn / "metadata.csv").read_bytes() == (FOLDER / "metadata.csv").read_bytes()


def test_a_distorted_image_differs_from_its_clean_one() -> None:
    pairs = {"coffee.jpg": "coffee_blur.jpg", "cat.jpg": "cat_jpeg.png", "rocket.jpg": "rocket_small.png"}
    for clean, distorted in pairs.items():
        with Image.open(FOLDER / clean) as a, Image.open(FOLDER / distorted) as b:
            assert a.size == b.size
            difference = np.asarray(a.convert("RGB"), dtype=int) - np.asarray(b.convert("RGB"), dtype=int)
        assert np.abs(difference).mean() > 2
