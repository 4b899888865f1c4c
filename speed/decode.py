"""How fast files are decoded, by format and size, beside how fast ``mini`` encodes what they hold.

    python -m speed.decode

Decoding is all that ``score`` does to open a file: checks, colours, orientation. As many threads run as the machine has
cores. Encoding is of views that are ready in memory; where it is slower, a faster decoder would gain little.

Other JPEG decoders are compared with Pillow where they are installed, on one core: to a Pillow image, as ``score``
needs one to convert its colours, turn and resize it. None is a dependency.

    pip install simplejpeg opencv-python-headless imagecodecs
"""

from __future__ import annotations

import importlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
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
    rows, decoders = [], []
    for side in SIDES:
        image = source.resize((side, side), Image.Resampling.BICUBIC)
        for kind in FORMATS:
            file = folder / f"{side}.{kind}"
            image.save(file, **SAVING[kind])
            if kind == "jpg":
                decoders += [{"side": side, **row} for row in compared(file.read_bytes())]
            count = max(2, images * 512**2 // side**2)
            rate = count / median_seconds(partial(decode_all, [file] * count), 3)
            rows.append({"format": kind, "side": side, "images_per_second": rate, "times_encoding": rate / encoding})
    return {"encoding_per_second": encoding, "decoding": rows, "other_decoders": decoders}


def pillow(data: bytes) -> Image.Image:
    """Decode a JPEG as ``score`` does."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def other_decoders() -> dict[str, Callable[[bytes], Any]]:
    """Return the decoders that are installed: bytes of a JPEG to uint8 pixels (H, W, 3)."""
    found: dict[str, Callable[[bytes], Any]] = {}
    with suppress(ImportError):
        found["simplejpeg"] = importlib.import_module("simplejpeg").decode_jpeg
    with suppress(ImportError):
        cv2 = importlib.import_module("cv2")
        found["opencv"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    with suppress(ImportError):
        found["imagecodecs"] = importlib.import_module("imagecodecs").jpeg8_decode
    return found


def compared(data: bytes, turns: int = 9) -> list[dict[str, Any]]:
    """Return how fast other decoders are, times Pillow, by turns, and by how many levels their pixels differ."""
    reference = np.asarray(pillow(data)).astype(int)
    rows = []
    for name, decode in other_decoders().items():
        ratios = []
        for _ in range(turns):
            start = time.process_time()
            pillow(data)
            middle = time.process_time()
            # The header is read as well: it says how the image is turned and what its colours mean.
            Image.open(io.BytesIO(data))
            Image.fromarray(decode(data))
            ratios.append((middle - start) / (time.process_time() - middle))
        levels = int(np.abs(np.asarray(decode(data)).astype(int) - reference).max())
        rows.append({"decoder": name, "times_pillow": statistics.median(ratios), "largest_difference": levels})
    return rows


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
