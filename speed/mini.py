"""JPEG files of 512 x 512 to scores with ``mini``, and how fast the machine can decode them.

    python -m speed.mini

The decode rate is Pillow's, with as many threads as the machine has cores and nothing else to do. Several sizes of
batch and numbers of threads are tried; the first one is the default. ``with_new_prompts_per_second`` is its rate if
each image has a prompt of fourteen words that did not occur before, and so costs a pass through the text encoder.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

from PIL import Image

from mst_clipiqa.features.encoding import BATCH_SIZE
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import median_seconds, run

PROMPT = "a red fox and two old dogs on a green hill in the rain"
LAYOUTS = ((BATCH_SIZE, 2), (16, 2), (64, 2), (BATCH_SIZE, 1), (BATCH_SIZE, 4))


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return the decode rate and the rate of scoring for each layout."""
    files = [str(file) for file in jpegs(folder, images)]

    def decode(file: str) -> None:
        Image.open(file).convert("RGB")

    def decode_all() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(decode, files))

    decoding = images / median_seconds(decode_all, 3)
    rows = []
    for batch_size, workers in LAYOUTS:
        scorer = Scorer.load("mini", batch_size=batch_size, workers=workers)
        seconds = median_seconds(partial(_score_all, scorer, files), 3)
        rows.append({"batch_size": batch_size, "workers": workers, "images_per_second": images / seconds})
    rate, plain = rows[0]["images_per_second"], Scorer.load("mini")
    new = itertools.count()

    def with_new_prompts() -> None:
        for _ in plain.many((file, f"{next(new)} {PROMPT}") for file in files):
            pass

    return {
        "decode_per_second": decoding,
        "images_per_second": rate,
        "with_new_prompts_per_second": images / median_seconds(with_new_prompts, 3),
        "share_of_decoding": rate / decoding,
        "layouts": rows,
        "bars": {"images_per_second": min(100.0, 0.85 * decoding)},
    }


def _score_all(scorer: Scorer, files: list[str]) -> None:
    for _ in scorer.many(files):
        pass


if __name__ == "__main__":
    run(__doc__ or "", measure, images=200)
