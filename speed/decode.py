"""How fast files are decoded, by format and size, beside how fast ``mini`` encodes what they hold.

    python -m speed.decode

Decoding is all that ``score`` does to open a file: checks, colours, orientation. As many threads run as the machine has
cores. Encoding is of views that are ready in memory; where it is slower, a faster decoder would gain little.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model.preprocess import views
from speed.images import EXAMPLES
from speed.machine import median_seconds, run

SIDES = (512, 1024, 4096)
FORMATS = ("jpg", "png", "webp")
SAVING: dict[str, dict[str, Any]] = {
    "jpg": {"quality": 92},
    "png": {"compress_level": 4},
    "webp": {"quality": 92, "method": 0},
}


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return the rate of encoding, and of decoding for each format and size."""
    source = Image.open(EXAMPLES / "coffee.jpg").convert("RGB")
    encoding = encoding_rate(source, images)
    rows = []
    for side in SIDES:
        image = source.resize((side, side), Image.Resampling.BICUBIC)
        for kind in FORMATS:
            file = folder / f"{side}.{kind}"
            image.save(file, **SAVING[kind])
            count = max(2, images * 512**2 // side**2)
            rate = count / median_seconds(partial(decode_all, [file] * count), 3)
            rows.append({"format": kind, "side": side, "images_per_second": rate, "times_encoding": rate / encoding})
    return {"encoding_per_second": encoding, "decoding": rows}


def encoding_rate(image: Image.Image, images: int) -> float:
    """Return the images per second that ``mini`` encodes."""
    pair = load_encoders("mini", "cpu")
    seen = views(image, pair.view)
    coarse = seen.coarse.expand(images, -1, -1, -1)
    fine = None if seen.fine is None else seen.fine.expand(images, -1, -1, -1, -1)
    return images / median_seconds(lambda: encode_views(pair, coarse, fine), 3)


def decode_all(files: list[Path]) -> None:
    """Decode files with a thread per core."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(open_image, files))


if __name__ == "__main__":
    torch.set_num_threads(cpu_count() or 1)
    run(__doc__ or "", measure, images=64)
