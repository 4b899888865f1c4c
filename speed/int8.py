"""Two ViT-B encoders in int8, alone and with merged tokens, beside the precision that ``auto`` picks on this CPU.

    python -m speed.int8

The encoders have the real sizes and random weights, so the rate is a result and the agreement is not. They take turns
on the same views; the median ratio is kept. Cosines are with features in fp32. On a CPU without int8, only ``auto`` is
measured.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.encoders.int8_weights import sum_bits
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import INT8, Precision
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model.preprocess import views
from speed.images import jpegs
from speed.machine import run
from speed.merge import HALF
from speed.random_pair import random_pair

TURNS = 5


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return rates, their ratio to the precision of ``auto``, and the change of features."""
    exact, usual = random_pair(), random_pair().to("cpu", "auto")
    seen = torch.stack([views(open_image(file).image, exact.view).coarse for file in jpegs(folder, images)])
    want = encode_views(exact, seen)
    settings = {"auto": (usual, 0)}
    if sum_bits() is not None:
        small = random_pair().to("cpu", INT8)
        settings |= {"int8": (small, 0), "int8 and merged tokens": (small, HALF)}
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(TURNS):
        for name, (pair, merge) in settings.items():
            pair.merge_tokens(merge)
            start = time.perf_counter()
            features = encode_views(pair, seen)
            seconds[name].append(time.perf_counter() - start)
            cosines = [torch.cosine_similarity(a, b).mean().item() for a, b in zip(want, features, strict=True)]
            unmerged = replace(Precision.parse(pair.precision), merged=0)
            rows[name] = {"encoders": name, "precision": str(unmerged), "merged": merge}
            rows[name] |= {"cosine_coarse": cosines[0], "cosine_fine": cosines[1]}
    for name, took in seconds.items():
        rows[name]["images_per_second"] = images / statistics.median(took)
        rows[name]["times_auto"] = statistics.median(a / b for a, b in zip(seconds["auto"], took, strict=True))
    return {"auto": usual.precision, "images": images, "encoders": list(rows.values())}


if __name__ == "__main__":
    run(__doc__ or "", measure, images=32)
