"""The images that benchmarks run on: examples/ made into JPEGs of one size, any number of them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageFilter

EXAMPLES = Path(__file__).parent.parent / "examples"
_KINDS = (".jpg", ".png", ".webp")
_BLURS = (0.0, 0.7, 1.5, 3.0)


def jpegs(folder: Path, count: int, side: int = 512) -> list[Path]:
    """Return ``count`` JPEG files of side x side pixels: the examples, sharp and blurred, then hard links."""
    sources = sorted(path for path in EXAMPLES.iterdir() if path.suffix in _KINDS)
    kinds = [(source, blur) for blur in _BLURS for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for i in range(count):
        file = folder / f"{i:06}.jpg"
        if i < len(kinds):
            source, blur = kinds[i]
            image = Image.open(source).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            image.filter(ImageFilter.GaussianBlur(blur)).save(file, quality=92)
        else:
            os.link(files[i % len(kinds)], file)
        files.append(file)
    return files
