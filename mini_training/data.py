"""The rated sets (AGIQA-3K, and LIVE in the Wild beside it), and how prompts are parted."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LOW, HIGH = 0.0, 5.0
"""The range of AGIQA-3K's ratings; the heads answer on 1..5."""

PHOTO_HIGH = 100.0
"""The highest rating of LIVE in the Wild; the lowest is 0."""

DEVELOPMENT, VALIDATION = 48, 38
"""Prompts looked at rarely, and prompts that choose: both never trained on while choosing."""

SEED = 20260


@dataclass(frozen=True)
class Rated:
    """AGIQA-3K, one row per image.

    Attributes:
        names: file names.
        prompts: what each image was made from.
        prompt_ids: int, (n,).
        groups: int, (n,): generator and setting, as the file name says.
        group_names: what the numbers in ``groups`` stand for.
        ratings: float32, (n, 2): mean ratings of quality and alignment.
        part: str, (n,): train, validation or development.
        photos: file names of LIVE in the Wild; empty without it.
        photo_ratings: float32, (photos,): 0..100.
    """

    names: list[str]
    prompts: list[str]
    prompt_ids: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    ratings: np.ndarray
    part: np.ndarray
    photos: list[str]
    photo_ratings: np.ndarray

    @property
    def generators(self) -> np.ndarray:
        """Which generator made each image, str (n,): its group without the setting."""
        return np.array([self.group_names[group].split("_")[0] for group in self.groups])

    @property
    def half(self) -> np.ndarray:
        """Whether each photograph is in the half that the development model is trained on, bool (photos,)."""
        order = np.random.default_rng(1).permutation(len(self.photos))
        return np.isin(np.arange(len(self.photos)), order[: len(order) // 2])


def read_rated(folder: Path, photos: Path | None = None) -> Rated:
    """Read both ``data.csv`` and keep the rows whose image exists; ``photos`` is LIVE in the Wild."""
    rows = _rows(folder)
    names = [row["name"] for row in rows]
    ids = np.array([int(Path(name).stem.rsplit("_", 1)[1]) for name in names])
    group = [name.rsplit("_", 1)[0] for name in names]
    group_names = sorted(set(group))
    taken = _rows(photos) if photos else []
    return Rated(
        names=names,
        prompts=[row["prompt"] for row in rows],
        prompt_ids=ids,
        groups=np.array([group_names.index(g) for g in group]),
        group_names=group_names,
        ratings=np.array([[float(row[c]) for c in ("mos_quality", "mos_align")] for row in rows], np.float32),
        part=part_of(ids),
        photos=[row["name"] for row in taken],
        photo_ratings=np.array([float(row["mos"]) for row in taken], np.float32),
    )


def part_of(prompt_ids: np.ndarray) -> np.ndarray:
    """Return the part of each image: a seeded shuffle of the prompt ids, cut at 48 and 48 + 38."""
    order = np.random.default_rng(SEED).permutation(np.unique(prompt_ids))
    development = order[:DEVELOPMENT]
    validation = order[DEVELOPMENT : DEVELOPMENT + VALIDATION]
    names = np.array(["train", "validation", "development"])
    return names[np.isin(prompt_ids, validation) + 2 * np.isin(prompt_ids, development)]


def unseen(rated: Rated) -> tuple[list[str], list[str]]:
    """Return names that the card's model never saw: images of development prompts, and half of the photographs."""
    images = [name for name, part in zip(rated.names, rated.part, strict=True) if part == "development"]
    return images, [name for name, half in zip(rated.photos, rated.half, strict=True) if not half]


def open_image(path: Path) -> Image.Image:
    """Return an image file as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def save_json(path: Path, value: object) -> None:
    """Write a small, readable JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _rows(folder: Path) -> list[dict[str, str]]:
    existing = {path.name for path in (folder / "images").iterdir()}
    with (folder / "data.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["name"] in existing]
