"""The rated pictures (AGIQA-3K), how prompts are parted, and the prepared pixels."""

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
    """The rated set, one row a picture."""

    names: list[str]
    prompts: list[str]
    prompt_ids: np.ndarray  # int, (n,)
    groups: np.ndarray  # int, (n,): generator and setting, as the file name says
    group_names: list[str]
    ratings: np.ndarray  # float32, (n, 4): quality, alignment, and the raters' deviation of each
    part: np.ndarray  # str, (n,): train, validation or development


def read_rated(folder: Path) -> Rated:
    """Read ``data.csv`` and keep the rows whose picture is there."""
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
    """Return the part of each picture: a seeded shuffle of the prompt ids, cut at 48 and 48 + 38."""
    order = np.random.default_rng(SEED).permutation(np.unique(prompt_ids))
    development = order[:DEVELOPMENT]
    validation = order[DEVELOPMENT : DEVELOPMENT + VALIDATION]
    names = np.array(["train", "validation", "development"])
    return names[np.isin(prompt_ids, validation) + 2 * np.isin(prompt_ids, development)]


@dataclass(frozen=True)
class Pixels:
    """What ``training.prepare`` wrote: pictures first (in the order of ``Rated``), then photographs.

    All arrays are uint8, (n, height, width, 3), on disk.
    """

    full: np.ndarray  # 512 x 512
    coarse: np.ndarray  # the whole picture at 172: training crops 160 of it
    spoilt_coarse: np.ndarray  # (n * SETS * STEPS, 172, 172, 3)
    spoilt_region: np.ndarray  # (n * SETS * STEPS, 256, 256, 3): one native region, the same for all steps
    kinds: np.ndarray  # int, (n, SETS): which distortion
    strengths: np.ndarray  # float32, (n, SETS, STEPS), rising
    corners: np.ndarray  # int, (n, SETS, 2): y, x of the region


SETS, STEPS, FULL, COARSE, REGION = 2, 3, 512, 172, 256


def open_pixels(work: Path, mode: str = "r") -> Pixels:
    """Open the prepared arrays."""
    meta = np.load(work / "spoilt.npz")
    n = len(meta["kinds"])

    def array(name: str, count: int, side: int) -> np.ndarray:
        return np.memmap(work / f"{name}.u8", np.uint8, mode, shape=(count, side, side, 3))

    return Pixels(
        full=array("full", n, FULL),
        coarse=array("coarse", n, COARSE),
        spoilt_coarse=array("spoilt_coarse", n * SETS * STEPS, COARSE),
        spoilt_region=array("spoilt_region", n * SETS * STEPS, REGION),
        kinds=meta["kinds"],
        strengths=meta["strengths"],
        corners=meta["corners"],
    )


def save_json(path: Path, value: object) -> None:
    """Write a small, readable JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
