"""``mini`` in int8 beside fp32 and bf16: images per second, and how far scores move.

    python -m speed.precisions

JPEG files of 512 x 512 to scores; for CLIP, what auto takes beside the rates of products that decide it. Precisions
take turns on the same files; the median ratio to fp32 is kept. bf16 is left out on a CPU without instructions for it,
where it is only emulated. The name of int8 ends in ``-pairs`` on a CPU without VNNI.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from mst_clipiqa.encoders.precision import DTYPES
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import matmul_flops, run
from speed.random_pair import random_pair

TURNS = 5


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return, for each precision that this CPU has, its rate, its ratio to fp32 and what it does to qualities."""
    files = [str(file) for file in jpegs(folder, images)]
    names = [*_floats(), "auto"]
    scorers = {name: Scorer.load("mini", device="cpu", precision=name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    qualities = {name: _qualities(scorer, files[: len(files) // 2 + 1]) for name, scorer in scorers.items()}  # warm up
    for _ in range(TURNS):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            qualities[name] = _qualities(scorer, files)
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {
            "precision": scorers[name].encoder.encoders.precision,
            "images_per_second": images / statistics.median(took),
            "times_fp32": statistics.median(a / b for a, b in zip(seconds["fp32"], took, strict=True)),
            "srcc_with_fp32": float(stats.spearmanr(qualities["fp32"], qualities[name]).statistic),
            "largest_difference": float(np.abs(qualities["fp32"] - qualities[name]).max()),
        }
        for name, took in seconds.items()
    ]
    auto = scorers["auto"].encoder.encoders.precision
    return {"auto": auto, "auto_of_clip": _of_clip(), "products": _products(), "precisions": rows}


def _of_clip() -> str:
    """Return what auto takes for CLIP's encoders, whose products are larger."""
    return random_pair().to("cpu", "auto").precision


def _products() -> list[dict[str, Any]]:
    """Return the machine's own rates of products of matrices, GFLOP/s."""
    return [{"precision": name, "gflops": matmul_flops(DTYPES[name]) / 1e9} for name in _floats()]


def _floats() -> list[str]:
    return ["fp32", "bf16"] if torch.cpu._is_avx512_bf16_supported() else ["fp32"]


def _qualities(scorer: Scorer, files: list[str]) -> np.ndarray:
    return np.array([score.quality for score in scorer.many(files)], float)


if __name__ == "__main__":
    run(__doc__ or "", measure, images=100)
