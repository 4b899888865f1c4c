"""Two ViT-B encoders on a CUDA card: share of the card's rate for matrix products, files to scores, and gradients.

    python -m speed.gpu -o docs/performance/gpu.json

One command, two minutes: the fine encoder on chunks of several sizes, started kernel by kernel, replayed from a
recording as the product does, and for one size compiled; decoding, and files to scores; the gradient of a score with
respect to pixels, as a reward needs it, in float32. ``pays after`` is the number of images after which the start of the
compiler is made good. Without a card the same steps run on the CPU, for correctness alone, nothing is recorded or
compiled, and the result says that nothing was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import DTYPES, resolve_precision
from mst_clipiqa.encoders.recorded import Recorded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.differentiable import DifferentiableTarget
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import matmul_flops, median_seconds, run
from speed.random_pair import random_pair

CHUNKS = (16, 32, 64, 128, 256)
COMPILED = 64
"""The chunk that is compiled, which takes a while."""
REWARD_BATCH = 16
ON_CPU = 4
"""The most images without a card."""


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return rates of the encoders, of the whole path and of gradients; without a card they mean nothing."""
    card = torch.cuda.is_available()
    device = torch.device("cuda" if card else "cpu")
    count = images if card else min(images, ON_CPU)
    precision = resolve_precision("auto", device)
    pair = random_pair().to(device, precision)
    files = [str(file) for file in jpegs(folder, count)]
    views = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8)
    found: dict[str, Any] = {
        "measured": card,
        "note": None if card else "not measured: this machine has no CUDA card",
        "precision": precision,
        "cosine_to_fp32": difference(pair, views[:4].to(device)),
        "fp32_largest_difference": largest_difference(views[:4], device),
    }
    rates = whole_path(pair, files, views.to(device))
    operations = rates.pop("operations")
    rates["share_of_slower"] = rates["whole_per_second"] / min(rates["encode_per_second"], rates["decode_per_second"])
    if card:
        machine_rate = matmul_flops(DTYPES[precision], "cuda", 8192)
        rates |= {"share_of_matmul": operations * rates["encode_per_second"] / machine_rate}
        rates |= {"card_tflops": machine_rate / 1e12}
    found |= rates | {"gradient": gradient(device, count)}
    found["fine_encoder"] = [chunk_rates(pair, size) for size in (CHUNKS if card else (2,))]
    return found | ({"bars": {"share_of_matmul": 0.5, "share_of_slower": 0.8}} if card else {})


def wait(device: torch.device) -> None:
    """Wait until a card has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def whole_path(pair: CLIPPair, files: list[str], views: torch.Tensor) -> dict[str, float]:
    """Return the rates of encoding, decoding and files to scores, and the operations per image."""
    size = pair.chunking.size  # as many, so that none is computed to fill a chunk
    towers = cast(VisionTower, pair.mstfe.encoder_coarse), cast(VisionTower, pair.mstfe.encoder_fine)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for tower in towers:  # a recording counts nothing
            tower.computed(torch.zeros(size, 3, 224, 224, device=pair.device))
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, workers=cpu_count() or 2))

    def encode() -> None:
        encode_views(pair, views)
        wait(pair.device)

    def decode_all() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(lambda file: Image.open(file).convert("RGB"), files))

    return {
        "operations": counter.get_total_flops() / size,
        "encode_per_second": len(files) / median_seconds(encode, 3),
        "decode_per_second": len(files) / median_seconds(decode_all, 3),
        "whole_per_second": len(files) / median_seconds(lambda: list(scorer.many(files)), 3),
    }


def gradient(device: torch.device, count: int) -> dict[str, float]:
    """Return how many images per second get a score and its gradient to the pixels, in float32, and the memory."""
    pair = random_pair().to(device, "fp32")
    target = DifferentiableTarget(Scorer(zero_shot_model(pair), ImageEncoder(pair)), "quality")
    size = min(REWARD_BATCH, count)
    images = torch.rand(size, 3, 224, 224, device=device, requires_grad=True)

    def ascend() -> None:
        images.grad = None
        target(images, [None] * size).sum().backward()
        wait(device)

    seconds = median_seconds(ascend, 3)
    if images.grad is None or not bool(images.grad.abs().sum() > 0):
        raise RuntimeError("Expected a gradient to the pixels, got none.")
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return {"batch": size, "images_per_second": size / seconds, "peak_gb": peak}


@torch.inference_mode()
def chunk_rates(pair: CLIPPair, size: int) -> dict[str, float | None]:
    """Return the rates of the fine encoder on chunks of one size: plain, replayed, and for one size compiled."""
    tower = cast(VisionTower, pair.mstfe.encoder_fine)
    pixels = torch.randn(size, 3, 224, 224, device=pair.device)

    def forward(encoder: Callable[[torch.Tensor], torch.Tensor]) -> None:
        encoder(pixels)
        wait(pair.device)

    plain = median_seconds(partial(forward, tower.computed), 5)
    row: dict[str, float | None] = {"chunk": size, "images_per_second": size / plain}
    if pair.device.type != "cuda":
        return row
    replayed = median_seconds(partial(forward, Recorded(tower.computed)), 5)
    row["replayed_images_per_second"] = size / replayed
    if size == COMPILED:
        start = time.perf_counter()
        compiled = torch.compile(tower.computed, mode="reduce-overhead", dynamic=False)
        for _ in range(3):  # compiles, records the graph, replays it
            forward(compiled)
        start = time.perf_counter() - start
        fast = median_seconds(partial(forward, compiled), 5)
        gain = (replayed - fast) / size
        row |= {"compiled_images_per_second": size / fast, "compile_seconds": start}
        row |= {"pays_after_images": start / gain if gain > 0 else None}
    return row


def difference(pair: CLIPPair, views: torch.Tensor) -> float:
    """Return the smallest cosine between a pair's features and those of the same pair in float32 on the CPU."""
    plain = encode_views(random_pair(), views.cpu())
    found = (f.cpu() for f in encode_views(pair, views))
    return min(float(torch.cosine_similarity(a, b).min()) for a, b in zip(found, plain, strict=True))


def largest_difference(views: torch.Tensor, device: torch.device) -> float:
    """Return the largest difference of fp32 features of a device and the CPU, as a share of the largest feature.

    TF32 in the first convolution alone would make it about 1e-3; float32 leaves about 1e-6.
    """
    plain, there = encode_views(random_pair(), views), encode_views(random_pair().to(device, "fp32"), views.to(device))
    return max(float((a - b.cpu()).abs().max() / a.abs().max()) for a, b in zip(plain, there, strict=True))


if __name__ == "__main__":
    run(__doc__ or "", measure, images=1024)
