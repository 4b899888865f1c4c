"""The arithmetic rate of two ViT-B encoders, as a share of the machine's rate for matrix products.

    python -m speed.arithmetic

The rate is that of a product of two 2048 x 2048 matrices in the encoders' own precision. The encoders' operations are
counted as they run, so work that is saved is not counted as done. Views are ready in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import DTYPES, resolve_precision
from mst_clipiqa.scoring.loading import ScoreOptions
from speed.machine import matmul_flops, median_seconds, run
from speed.random_pair import random_pair


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return operations per image, both rates and their ratio."""
    precision = resolve_precision("auto", torch.device("cpu"))
    pair = random_pair().to("cpu", precision)
    views = torch.randint(0, 256, (images, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    sixteen = views[:1].expand(16, -1, -1, -1)
    with FlopCounterMode(display=False) as counter:
        encode_views(pair, sixteen)
    operations = counter.get_total_flops() / 16

    def work() -> None:
        for batch in views.split(ScoreOptions.batch_size):  # as `score` does
            encode_views(pair, batch)

    before = matmul_flops(DTYPES[precision])
    seconds = median_seconds(work, 3)
    machine_rate = (before + matmul_flops(DTYPES[precision])) / 2  # it varies from minute to minute
    rate = operations * images / seconds
    return {
        "precision": precision,
        "gflop_per_image": operations / 1e9,
        "images_per_second": images / seconds,
        "machine_gflops": machine_rate / 1e9,
        "encoder_gflops": rate / 1e9,
        "share": rate / machine_rate,
        "bars": {"share": 0.85},
    }


if __name__ == "__main__":
    run(__doc__ or "", measure, images=128)
