"""The arithmetic rate of two ViT-B encoders, as a share of the machine's rate for matrix products.

    python -m speed.arithmetic

The rate is that of a product of two 2048 x 2048 matrices in the encoders' own precision, which is what auto takes.
Operations are counted in plain bf16, where torch sees all of them. Views are ready in memory. A page fault is a page of
memory that the system hands out during the timed passes: activations that use the same memory again cause none.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.threads import reuse_freed_memory
from mst_clipiqa.features.encoding import BATCH_SIZE
from speed.machine import matmul_flops, median_seconds, run
from speed.random_pair import random_pair


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return operations per image, both rates and their ratio."""
    pair = random_pair().to("cpu", "bf16")
    reuse_freed_memory()  # as every loaded pair does
    views = torch.randint(0, 256, (images, 224, 224, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for tower in pair.towers:
        cast(VisionTower, tower).release()
    with FlopCounterMode(display=False) as counter, torch.no_grad():  # in this thread: it counts no other
        for stream in ("coarse", "fine"):
            pair.encode_chunk(stream, views[:1])
    operations = counter.get_total_flops()
    pair.to("cpu", "auto")
    dtype = pair.mstfe.dtype

    def work() -> None:
        for batch in views.split(BATCH_SIZE):  # as `score` does
            encode_views(pair, batch)

    before = matmul_flops(dtype)
    work()
    faults = page_faults()
    seconds = median_seconds(work, 3)
    faults = page_faults() - faults
    machine_rate = (before + matmul_flops(dtype)) / 2  # it varies from minute to minute
    rate = operations * images / seconds
    return {
        "precision": pair.precision,
        "gflop_per_image": operations / 1e9,
        "images_per_second": images / seconds,
        "machine_gflops": machine_rate / 1e9,
        "encoder_gflops": rate / 1e9,
        "share": rate / machine_rate,
        "page_faults_per_image": faults / (4 * images),
        "bars": {"share": 0.85},
    }


def page_faults() -> int:
    """Return how many pages the system has handed out to this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    run(__doc__ or "", measure, images=128)
