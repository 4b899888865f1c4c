"""The rated images (AGIQA-3K), and how prompts are parted."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LOW, HIGH = 0.0, 5.0
"""The range of AGIQA-3K's ratings; the heads answer on 1..5."""

DEVELOPMENT, VALIDATION = 48, 38
"""Prompts looked at rarely, and prompts that choose: both never trained on while choosing."""

SEED = 20260


@dataclass(frozen=True)
class Rated:
    """The rated set, one row an image."""

    names: list[str]
    prompts: list[str]
    prompt_ids: np.ndarray  # int, (n,)
    groups: np.ndarray  # int, (n,): generator and setting, as the file name says
    group_names: list[str]
    ratings: np.ndarray  # float32, (n, 4): quality, alignment, and the raters' deviation of each
    part: np.ndarray  # str, (n,): train, validation or development

    @property
    def generators(self) -> np.ndarray:
        """Which generator made each image, str (n,): its group without the setting."""
        return np.array([self.group_names[group].split("_")[0] for group in self.groups])


def read_rated(folder: Path) -> Rated:
    """Read ``data.csv`` and keep the rows whose image is there."""
    there = {path.name for path in (folder / "images").iterdir()}
    with (folder / "data.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] in there]
    names = [row["name"] for row in rows]
    ids = np.array([int(Path(name).stem.rsplit("_", 1)[1]) for name in names])
    group = [name.rsplit("_", 1)[0] for name in names]
    group_names = sorted(set(group))
    columns = ("mos_quality", "mos_align", "std_quality", "std_align")
    return Rated(
        names=names,
        prompts=[row["prompt"] for row in rows],
        prompt_ids=ids,
        groups=np.array([group_names.index(g) for g in group]),
        group_names=group_names,
        ratings=np.array([[float(row[c]) for c in columns] for row in rows], np.float32),
        part=part_of(ids),
    )


def part_of(prompt_ids: np.ndarray) -> np.ndarray:
    """Return the part of each image: a seeded shuffle of the prompt ids, cut at 48 and 48 + 38."""
    order = np.random.default_rng(SEED).permutation(np.unique(prompt_ids))
    development = order[:DEVELOPMENT]
    validation = order[DEVELOPMENT : DEVELOPMENT + VALIDATION]
    names = np.array(["train", "validation", "development"])
    return names[np.isin(prompt_ids, validation) + 2 * np.isin(prompt_ids, development)]


def save_json(path: Path, value: object) -> None:
    """Write a small, readable JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
