"""Raise the score of an image by gradient ascent on its pixels, and see how little that says about the image.

    python examples/raise_score.py examples/cat.jpg --noise 0.1 -o raised.png

Noise of a known strength is added to a square from the middle of the image. Then every step moves each pixel by the
same small amount in the direction in which the score rises. JSON on stdout compares the square before and after with
the clean one.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa import Scorer
from mst_clipiqa.integrations.metric import MSTClipIQAMetric


def raise_score(metric: MSTClipIQAMetric, image: Tensor, steps: int, size: float) -> Tensor:
    """Return an image (1, 3, H, W) in [0, 1] after some steps of sign gradient ascent, rounded to bytes."""
    for _ in range(steps):
        image = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(metric(image).sum(), image)
        image = (image + size * gradient.sign()).clamp(0, 1)
    return _bytes(image.detach())


def measure(
    path: Path, *, noise: float, steps: int, size: float, side: int, model: str
) -> tuple[dict[str, Any], Tensor]:
    """Return the figures, and the raised image."""
    clean = _square(Image.open(path).convert("RGB"), side)
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = _bytes((clean + noise * drawn).clamp(0, 1))
    metric = MSTClipIQAMetric(Scorer.from_pretrained(model, precision="fp32"), as_loss=True)
    raised = raise_score(metric, noisy, steps, size)
    scores = {name: _score(metric, image) for name, image in (("clean", clean), ("noisy", noisy), ("raised", raised))}
    return {
        "image": path.name,
        "model": metric.metric_name,
        "model_sha256": metric.scorer.model.sha256,
        "side": side,
        "noise": noise,
        "steps": steps,
        "step_size": size,
        "score": scores,
        "psnr_to_clean": {"noisy": _psnr(noisy, clean), "raised": _psnr(raised, clean)},
        "largest_change": (raised - noisy).abs().max().item(),
        "mean_change": (raised - noisy).abs().mean().item(),
    }, raised


def _square(image: Image.Image, side: int) -> Tensor:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.array(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255


def _bytes(image: Tensor) -> Tensor:
    return (image * 255).round() / 255


def _psnr(image: Tensor, clean: Tensor) -> float:
    return -10 * math.log10((image - clean).square().mean().item())


def _score(metric: MSTClipIQAMetric, image: Tensor) -> float:
    """Return the score that ``mst-clipiqa score`` gives the image once it is a file."""
    score = metric.scorer(image[0])
    return float(score.targets[metric.target] or 0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="where to save the raised square")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation; pixels are 0 to 1")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--step-size", type=float, default=1 / 255, help="by how much a step changes a pixel")
    parser.add_argument("--side", type=int, default=224, help="of the square, pixels")
    parser.add_argument("--model", default="mini", help="model: mini, a folder or a hub id")
    how = parser.parse_args(arguments)
    found, raised = measure(
        how.image, noise=how.noise, steps=how.steps, size=how.step_size, side=how.side, model=how.model
    )
    if how.output is not None:
        pixels = (raised[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(how.output)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
