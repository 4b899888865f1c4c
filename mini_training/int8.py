"""Measures the ranges of int8 on images and writes them beside small encoders: ``encoders/int8.json``.

    python -m mini_training.int8 DIR [DIR ...] [--model FOLDER] [--images 100]

Without this file, or after the encoders changed, they compute in bf16 or fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from mst_clipiqa.encoders.mini.folder import load_mini_pair
from mst_clipiqa.encoders.mini.int8 import measured_ranges, write_ranges
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model.preprocess import normalise, views
from mst_clipiqa.scoring.folders import MINI_MODEL

IMAGES = 100
"""Of each folder, how many are measured."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def chosen(folders: Iterable[Path], count: int) -> list[Path]:
    """Return ``count`` image files of each folder and what is below it, evenly spread over their names."""
    found = []
    for folder in folders:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        found += files[:: max(1, len(files) // count)][:count]
    if not found:
        raise SystemExit("Expected image files in the folders, got none: check the paths.")
    return found


def measure_int8(folder: Path, files: Iterable[Path]) -> MiniPair:
    """Write the ranges over image files beside the encoders in a folder; return those encoders with them."""
    pair = load_mini_pair(folder)
    seen = [views(open_image(file).image, pair.view) for file in files]
    coarse: list[Tensor] = [normalise(one.coarse, pair.view).unsqueeze(0) for one in seen]
    fine = [normalise(one.coarse.unsqueeze(0) if one.fine is None else one.fine, pair.view) for one in seen]
    write_ranges(folder, pair.sha256, measured_ranges(pair.coarse, coarse), measured_ranges(pair.fine, fine))
    return load_mini_pair(folder)


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of images")
    parser.add_argument("--model", type=Path, default=MINI_MODEL, help="model folder (default: mini)")
    parser.add_argument("--images", type=int, default=IMAGES, help="images per folder (default 100)")
    args = parser.parse_args()
    measure_int8(args.model / "encoders", chosen(args.folders, args.images))


if __name__ == "__main__":
    main()
