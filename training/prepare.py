"""Stage 1: decode every picture once, and draw its spoilt versions.

    python -m training.prepare --data DIR --work DIR

DIR is AGIQA-3K: ``data.csv`` and ``images/``. Photographs come with scikit-image. Seven gigabytes, about six minutes.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as photographs

from training.data import COARSE, FULL, REGION, SETS, STEPS, open_pixels, read_rated
from training.distort import KINDS, spoil

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "moon",
    "retina", "rocket", "immunohistochemistry",
)  # fmt: skip
CROPS = 6  # views of each photograph


def main() -> None:
    """Write the arrays that ``training.data.open_pixels`` reads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    prepare(args.data, args.work)


def prepare(data: Path, work: Path) -> None:
    """Decode, spoil, write."""
    work.mkdir(parents=True, exist_ok=True)
    files = [data / "images" / name for name in read_rated(data).names]
    n = len(files) + len(PHOTOGRAPHS) * CROPS
    _plan(n, work)
    for name, count, side in (
        ("full", n, FULL), ("coarse", n, COARSE),
        ("spoilt_coarse", n * SETS * STEPS, COARSE), ("spoilt_region", n * SETS * STEPS, REGION),
    ):  # fmt: skip
        np.memmap(work / f"{name}.u8", np.uint8, "w+", shape=(count, side, side, 3)).flush()
    jobs: list[Path | int] = [*files, *range(len(PHOTOGRAPHS) * CROPS)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_one, range(n), jobs, [work] * n, chunksize=16))


def _plan(n: int, work: Path) -> None:
    """Draw which distortions, how strong, and where: two sets a picture, three rising strengths a set."""
    rng = np.random.default_rng(0)
    kinds = np.stack([rng.permutation(len(KINDS))[:SETS] for _ in range(n)])
    # One strength in each third of the range: neighbours differ, and all strengths occur.
    strengths = (np.arange(STEPS) + rng.uniform(0.1, 0.9, (n, SETS, STEPS))) / STEPS
    corners = rng.integers(0, FULL - REGION + 1, (n, SETS, 2))
    np.savez(work / "spoilt.npz", kinds=kinds, strengths=strengths.astype(np.float32), corners=corners)


def _one(index: int, job: Path | int, work: Path) -> None:
    out = open_pixels(work, "r+")
    image = _photograph(job) if isinstance(job, int) else Image.open(job).convert("RGB")
    if image.size != (FULL, FULL):
        image = image.resize((FULL, FULL), Image.Resampling.BICUBIC)
    out.full[index] = np.asarray(image)
    out.coarse[index] = _small(image)
    names = list(KINDS)
    for s in range(SETS):
        y, x = out.corners[index, s]
        for step in range(STEPS):
            spoilt = spoil(image, names[out.kinds[index, s]], float(out.strengths[index, s, step]), seed=index)
            row = (index * SETS + s) * STEPS + step
            out.spoilt_coarse[row] = _small(spoilt)
            out.spoilt_region[row] = np.asarray(spoilt)[y : y + REGION, x : x + REGION]


def _small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((COARSE, COARSE), Image.Resampling.BICUBIC))


def sample_photographs() -> list[Image.Image]:
    """Return the central square of every sample photograph."""
    return [_photograph(CROPS * i) for i in range(len(PHOTOGRAPHS))]


def _photograph(number: int) -> Image.Image:
    """Return a square view of a sample photograph: the centre first, then random squares."""
    pixels = getattr(photographs, PHOTOGRAPHS[number // CROPS])()
    image = Image.fromarray(pixels).convert("RGB")
    rng = np.random.default_rng(number)
    side = min(image.size)
    if number % CROPS:
        side = int(side * rng.uniform(0.6, 1))
    left, top = (int(rng.integers(0, s - side + 1)) for s in image.size)
    return image.crop((left, top, left + side, top + side))


if __name__ == "__main__":
    main()
