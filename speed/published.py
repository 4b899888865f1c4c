"""JPEG files to scores with two ViT-B encoders: our procedure against the published one.

    python -m speed.published

Published: float32, batches of 8, opening and encoding one after the other, both encoders whole. Ours: what
``mst-clipiqa score`` does. The encoders have the real sizes and random weights, which cost what trained ones cost; the
head is fitted to the images' sharpness, so that scores spread as real ones do. Both run on the same files, in turns.
``products`` is how much faster this machine multiplies matrices in our precision than in float32.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text
from mst_clipiqa.model.preprocess import centre_view, normalise
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import distinct, jpegs
from speed.machine import matmul_flops, run
from speed.random_pair import random_pair

BATCH, TURNS = 8, 3


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return both rates, their ratio, and how far the scores are from float32's."""
    files = jpegs(folder, images)
    pair = random_pair()
    part = fitted(pair, files[: distinct()])
    fast = random_pair().to("cpu", "auto")
    scorer = Scorer(model_of(pair, part), ImageEncoder(fast))
    theirs, ours, reference = [], [], np.empty(0)
    for _ in range(TURNS):
        start = time.perf_counter()
        reference = published(pair, part, files)
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        scores = np.array([score.quality for score in scorer.many(map(str, files))])
        ours.append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    products = matmul_flops(fast.mstfe.dtype) / matmul_flops(torch.float32)
    # Whether this machine's products allow four times at all, or how much of what they allow is reached.
    bar = {"times_faster": 4.0} if products >= 3.5 else {"share_of_products": 0.95}
    return {
        "images": images,
        "precision": fast.precision,
        "published_per_second": images / statistics.median(theirs),
        "ours_per_second": images / statistics.median(ours),
        "times_faster": statistics.median(ratios),
        "products_times_faster": products,
        "share_of_products": statistics.median(ratios) / products,
        "srcc_with_fp32": srcc(scores[: distinct()], reference[: distinct()]),
        "largest_difference": float(np.abs(scores - reference).max()),
        "bars": {**bar, "srcc_with_fp32": 0.9995, "largest_difference": 0.02},
    }


@torch.inference_mode()
def published(pair: CLIPPair, part: MSTCLIPIQA, files: list[Path]) -> np.ndarray:
    """Return scores as the published code computes them: float32, batches of 8, one step after the other."""
    templates = pair.encode_templates(list(TEMPLATES))
    towers = (pair.mstfe.encoder_coarse, pair.mstfe.encoder_fine)
    encoders = [tower.clip for tower in towers if isinstance(tower, VisionTower)]
    found = []
    for start in range(0, len(files), BATCH):
        views = [centre_view(Image.open(file).convert("RGB"), 224) for file in files[start : start + BATCH]]
        pixels = torch.stack([normalise(torch.from_numpy(np.array(v)).permute(2, 0, 1), pair.view) for v in views])
        f_c, f_f = (encoder(pixel_values=pixels).image_embeds for encoder in encoders)
        found.append(part(f_c, f_f, Text(templates=templates)).q)
    return torch.cat(found).numpy()


def fitted(pair: CLIPPair, files: list[Path]) -> MSTCLIPIQA:
    """Return a trained part whose scores spread over the images, by their sharpness."""
    encoded = ImageEncoder(pair).encode(files)
    f_c, f_f = torch.stack([e.f_c for e in encoded]).clone(), torch.stack([e.f_f for e in encoded]).clone()
    grey = [np.asarray(Image.open(file).convert("L"), dtype=np.float32) for file in files]
    order = np.argsort(np.argsort([np.abs(np.diff(g)).mean() for g in grey]))
    y = torch.tensor(1.5 + 3 * order / max(1, len(order) - 1), dtype=torch.float32)
    torch.manual_seed(0)
    part, templates = MSTCLIPIQA(pair.dim, "template"), pair.encode_templates(list(TEMPLATES)).clone()
    optimiser = torch.optim.Adam(part.parameters(), lr=2e-4)
    for _ in range(300):
        loss = (part(f_c, f_f, Text(templates=templates)).q - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if loss > 0.5:
        raise RuntimeError(f"the head was not fitted, so its scores compare nothing: squared error {loss:.2f}")
    return part.eval().requires_grad_(False)


def model_of(pair: CLIPPair, part: MSTCLIPIQA) -> TrainedModel:
    """Return a trained part as a model on the scale 1..5."""
    config = ModelConfig("benchmark", EncoderRef.of(pair), {"quality": Target("template", 1.0, 5.0)})
    return TrainedModel(config, {"quality": part})


if __name__ == "__main__":
    run(__doc__ or "", measure, images=96)
