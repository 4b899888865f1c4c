"""Two ViT-B encoders on a CUDA card: share of the card's rate for matrix products, and files to scores.

    python -m speed.gpu

Without a card it runs the same steps on the CPU, for correctness alone, and says that nothing was measured.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import DTYPES, resolve_precision
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import matmul_flops, median_seconds, run
from speed.random_pair import random_pair


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return the rates of the encoders and of the whole path; without a card, only the agreement with fp32."""
    card = torch.cuda.is_available()
    device = torch.device("cuda" if card else "cpu")
    count = images if card else min(images, 8)
    precision = resolve_precision("auto", device)
    pair = random_pair().to(device, precision)
    files = jpegs(folder, count)
    views = torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8)
    agreement = difference(pair, views[:4].to(device))
    if not card:
        return {"measured": False, "note": "not measured: this machine has no CUDA card", "cosine_to_fp32": agreement}
    with FlopCounterMode(display=False) as counter:
        encode_views(pair, views[:1].expand(32, -1, -1, -1).to(device))
    operations, ready = counter.get_total_flops() / 32, views.to(device)

    def encode() -> None:
        encode_views(pair, ready)
        torch.cuda.synchronize()

    def decode_all() -> None:
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(lambda file: Image.open(file).convert("RGB"), files))

    encoding, decoding = count / median_seconds(encode, 3), count / median_seconds(decode_all, 3)
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=128, workers=cpu_count() or 2))
    whole = count / median_seconds(lambda: list(scorer.many(map(str, files))), 3)
    machine_rate = matmul_flops(DTYPES[precision], "cuda", 8192)
    return {
        "measured": True,
        "precision": precision,
        "fp32_largest_difference": largest_difference(views[:4]),
        "cosine_to_fp32": agreement,
        "encode_per_second": encoding,
        "decode_per_second": decoding,
        "whole_per_second": whole,
        "share_of_matmul": operations * encoding / machine_rate,
        "share_of_slower": whole / min(encoding, decoding),
        "bars": {"share_of_matmul": 0.5, "share_of_slower": 0.8},
    }


def difference(pair: Any, views: torch.Tensor) -> float:
    """Return the smallest cosine between a pair's features and those of the same pair in float32 on the CPU."""
    plain = encode_views(random_pair(), views.cpu())
    found = (f.cpu() for f in encode_views(pair, views))
    return min(float(torch.cosine_similarity(a, b).min()) for a, b in zip(found, plain, strict=True))


def largest_difference(views: torch.Tensor) -> float:
    """Return the largest difference of fp32 features of card and CPU, as a share of the largest feature.

    TF32 in the first convolution alone would make it about 1e-3; float32 leaves about 1e-6.
    """
    plain, card = encode_views(random_pair(), views), encode_views(random_pair().to("cuda", "fp32"), views.cuda())
    return max(float((a - b.cpu()).abs().max() / a.abs().max()) for a, b in zip(plain, card, strict=True))


if __name__ == "__main__":
    run(__doc__ or "", measure, images=1024)
