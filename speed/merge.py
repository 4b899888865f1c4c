"""Two ViT-B encoders with merged tokens: their rate and how far their features move, beside whole ones.

    python -m speed.merge

The encoders have the real sizes and random weights, so the rate is a result and the agreement is not: tokens of trained
encoders are more alike than those of random ones. ``tokens`` is the mean share that a block of the fine encoder still
computes. Whole and merged encoders take turns on the same views; the median ratio is kept.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model.preprocess import views
from speed.images import jpegs
from speed.machine import run
from speed.random_pair import random_pair

COUNTS = (8, 12, 16)
HALF = 16
"""Tokens per block at which the blocks of the fine encoder compute half of them on average."""
TURNS = 3


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return rates, their ratio to whole encoders and the change of features for several numbers of merged tokens."""
    pair = random_pair().to("cpu", "auto")
    seen = torch.stack([views(open_image(file).image, pair.view).coarse for file in jpegs(folder, images)])
    rows = [compared(pair, seen, count) for count in COUNTS]
    half = next(row for row in rows if row["merged"] == HALF)
    return {
        "precision": pair.precision,
        "times_whole_at_half_the_tokens": half["times_whole"],
        "counts": rows,
        "bars": {"times_whole_at_half_the_tokens": 1.5},
    }


def compared(pair: CLIPPair, seen: torch.Tensor, count: int) -> dict[str, float]:
    """Return what merging ``count`` tokens per block does."""
    ratios, rates, cosines = [], [], []
    for _ in range(TURNS):
        seconds, features = [], []
        for merge in (0, count):
            pair.merge_tokens(merge)
            start = time.perf_counter()
            features.append(encode_views(pair, seen))
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
        rates.append(len(seen) / seconds[1])
        whole, some = features
        cosines = [torch.cosine_similarity(a, b).mean().item() for a, b in zip(whole, some, strict=True)]
    pair.merge_tokens(0)
    return {
        "merged": count,
        "tokens": share(197, count),
        "images_per_second": statistics.median(rates),
        "times_whole": statistics.median(ratios),
        "cosine_coarse": cosines[0],
        "cosine_fine": cosines[1],
    }


def share(tokens: int, count: int, blocks: int = 12) -> float:
    """Return the mean share of tokens that a block's MLP computes."""
    left, total = tokens, 0
    for block in range(blocks):
        if block < blocks - 1:
            left -= min(count, (left + 1) // 2 - 1)
        total += left
    return total / blocks / tokens


if __name__ == "__main__":
    run(__doc__ or "", measure, images=32)
