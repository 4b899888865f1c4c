"""An export for ONNX Runtime, kept only if it agrees with torch.

    coarse, fine - written - opened as ``score --backend`` opens them - compared with torch on images - kept

An fp32 export is kept only if features and scores equal torch's within ``FEATURES`` and ``SCORES``. An int8 one
differs by design; the caller gets the differences.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.families import FAMILIES
from mst_clipiqa.encoders.onnx_export import write_towers
from mst_clipiqa.encoders.onnx_runtime import MANIFEST
from mst_clipiqa.errors import ModelError, UsageError, need, shown
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.scorer import Scorer

FEATURES = 1e-3
"""Largest difference of a feature, as a share of the largest feature."""
SCORES = 1e-3
"""Largest difference of a score, as a share of its scale."""


@dataclass(frozen=True)
class ExportAgreement:
    """How an export agrees with torch's fp32.

    Attributes:
        images: compared.
        features: largest difference of a feature, as a share of the largest feature.
        scores: largest difference of each target's score that needs no prompt, in its own units.
        srcc: rank correlation of these scores; None for fewer than three images.
    """

    images: int
    features: float
    scores: dict[str, float]
    srcc: dict[str, float | None]


def export(
    model: str,
    folder: Path,
    *,
    int8: bool = False,
    images: Sequence[Any] = (),
    encoders: str | None = None,
) -> ExportAgreement:
    """Write a model's image encoders for ONNX Runtime, and compare them with torch's.

    Args:
        model: as ``Scorer.load`` takes it.
        folder: new, empty, or an earlier export, which is replaced.
        int8: store the weights of matrix products in 8 bits.
        images: to compare on; by default, synthetic ones.
        encoders: where the model's encoders are now, if they have moved.

    Raises:
        ModelError: the export differs from torch by more than the tolerances; nothing is kept.
        UsageError: a package is missing, the folder holds something else, or the encoders' families cannot be exported.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise UsageError(
            f"Expected an empty folder or an earlier export at {shown(folder)}, got other files: name another."
        )
    for name in ("onnx", "onnxscript", "onnxruntime"):
        need(name, extra="onnx")
    options = ScoreOptions(device="cpu", precision="fp32", encoders=encoders)
    plain = Scorer.load(model, options)
    pair = plain.encoder.encoders
    if not isinstance(pair, CLIPPair) or not pair.is_clip_like:
        families = ", ".join(name for name, family in FAMILIES.items() if family.fast)
        raise UsageError(f"Expected encoders of {families} to export, got {pair.source}: score it without an export.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as beside:
        made = Path(beside) / "made"
        made.mkdir()
        write_towers(pair, made, int8)
        other = Scorer.load(model, options, precision="auto", backend=str(made))
        found = compare_scorers(plain, other, images or synthetic_images())
        if not int8:
            _check(found, plain)
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
    return found


def compare_scorers(plain: Scorer, other: Scorer, images: Sequence[Any]) -> ExportAgreement:
    """Return how well two scorers of one model agree on images."""
    sides = [scorer.encode(images) for scorer in (plain, other)]
    f, g = (torch.stack([torch.cat([one.f_c, one.f_f]) for one in side]) for side in sides)
    scores = [
        scorer.score_encoded(side, [None] * len(side)) for scorer, side in zip((plain, other), sides, strict=True)
    ]
    gaps, order = {}, {}
    for name in plain.ranges:
        a, b = (np.array([one.targets[name] for one in side], dtype=np.float64) for side in scores)
        if not np.isnan(a).any():  # it needs a prompt
            gaps[name] = float(np.abs(a - b).max())
            order[name] = srcc(a, b) if len(a) > 2 else None
    return ExportAgreement(len(f), ((f - g).abs().max() / f.abs().max()).item(), gaps, order)


def synthetic_images() -> list[Image.Image]:
    """Return images that differ in structure, noise and sharpness; always the same ones."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 256, (4 + i, 4 + i, 3), dtype=np.uint8))
        large = np.asarray(small.resize((320 + 16 * i, 320), Image.Resampling.BICUBIC), dtype=np.float64)
        noisy = (large + 12 * i * rng.standard_normal(large.shape)).clip(0, 255).astype(np.uint8)
        found += [(image := Image.fromarray(noisy)), image.filter(ImageFilter.GaussianBlur(3))]
    return found


def _check(found: ExportAgreement, plain: Scorer) -> None:
    worst = max(
        (gap / (plain.ranges[name][1] - plain.ranges[name][0]) for name, gap in found.scores.items()), default=0
    )
    if not (found.features <= FEATURES and worst <= SCORES):  # NaN fails too
        raise ModelError(
            f"Expected features within {FEATURES:g} and scores within {SCORES:g} of torch's, "
            f"got {found.features:.2g} and {worst:.2g} on {found.images} images, so nothing was kept: use torch."
        )
