"""What a model says of distorted photographs and of pure noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mini_training.data import open_image
from mini_training.distort import KINDS, LADDER, distort
from mini_training.noise import KINDS as NOISES
from mini_training.noise import noise
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

_UNSEEN = 1000
"""The first seed of noise that no training sees."""


def ladders(scorer: Scorer, folder: Path) -> dict[str, list[float]]:
    """Return the mean quality of photographs, clean and at four strengths of each distortion."""
    images = [open_image(path) for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"]
    clean = _mean(scorer, images)
    return {
        kind: [clean, *(_mean(scorer, [distort(im, kind, s, i) for i, im in enumerate(images)]) for s in LADDER)]
        for kind in KINDS
    }


def noises(scorer: Scorer, each: int = 8) -> list[float]:
    """Return the highest quality that images of pure noise get, by kind of noise."""
    return [max(_scores(scorer, [noise(_UNSEEN + NOISES * i + kind) for i in range(each)])) for kind in range(NOISES)]


def _mean(scorer: Scorer, images: list[Image.Image]) -> float:
    return float(np.mean(_scores(scorer, images)))


def _scores(scorer: Scorer, images: list[Image.Image]) -> list[float]:
    found = [score.quality for score in scorer.many(ScoreRequest(image) for image in images)]
    return [np.nan if quality is None else quality for quality in found]
