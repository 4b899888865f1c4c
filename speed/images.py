"""The images that benchmarks run on: examples/ made into JPEGs of one size, any number of them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
_KINDS = (".jpg", ".png", ".webp")
_BOXES = ((0, 0, 1, 1), (0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1))  # the whole, quarters


def jpegs(folder: Path, count: int, side: int = 512) -> list[Path]:
    """Return ``count`` JPEG files of side x side pixels: the first ``distinct`` differ, then hard links.

    The examples come first, then their quarters: blurred copies of one image would score alike.
    """
    kinds = [(source, box) for box in _BOXES for source in _sources()]
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for i in range(count):
        file = folder / f"{i:06}.jpg"
        if i < len(kinds):
            source, (left, top, right, bottom) = kinds[i]
            image = Image.open(source).convert("RGB")
            box = left * image.width, top * image.height, right * image.width, bottom * image.height
            image.resize((side, side), Image.Resampling.BICUBIC, box=box).save(file, quality=92)
        else:
            os.link(files[i % len(kinds)], file)
        files.append(file)
    return files


def distinct() -> int:
    """Return how many of the files hold different images."""
    return len(_BOXES) * len(_sources())


def _sources() -> list[Path]:
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix in _KINDS)
