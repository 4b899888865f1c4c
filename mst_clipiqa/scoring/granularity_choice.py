"""Which granularity each image gets, and which images are too unlike those of the calibration for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mst_clipiqa.features.opened import ImagePrompts, Viewed
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.fine_estimator import deviations
from mst_clipiqa.scoring.granularity import COARSE, FINE, Granularity
from mst_clipiqa.scoring.predictor import Predictor

UNLIKE_CALIBRATION = (
    "the image is unlike those of the calibration, so its scores may differ more from those at fine granularity"
)


class GranularityChoice:
    """Chooses by f_c alone.

    Args:
        predictor: scores the estimates.
        calibration: of the predictor's model.
        asked: the granularity that was asked for, if it is not fine.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, asked: Granularity) -> None:
        self.predictor, self.calibration, self.asked = predictor, calibration, asked
        self._price = calibration.price(asked.tolerance) if asked.kind == "auto" else 0.0

    def names(self, f_c: Tensor, prompts: Sequence[ImagePrompts]) -> list[str]:
        """Return the granularity of each image, good for all its prompts; with auto these must be known.

        Args:
            f_c: float32 (images, D).
            prompts: of each image.
        """
        if self.asked.kind != "auto":
            return [str(self.asked)] * len(f_c)
        pairs = [(i, prompt) for i, some in enumerate(prompts) for prompt in some or ()]
        if not pairs:
            return [FINE] * len(f_c)
        rows, asked = torch.tensor([i for i, _ in pairs]), [prompt for _, prompt in pairs]
        estimators = self.calibration.estimators
        spreads = {name: estimator.spread for name, estimator in estimators.items()}
        e = deviations(spreads, self.predictor, f_c[rows], estimators[COARSE].fine(f_c)[rows], asked)
        most = {name: largest_by_image(found, rows, len(f_c)) for name, found in e.items()}
        names = self.calibration.choose(most, self._familiar(f_c), self.asked.tolerance, self._price)
        return [name if some else FINE for name, some in zip(names, prompts, strict=True)]

    def notes(self, f_c: Tensor, viewed: Sequence[Viewed]) -> list[str]:
        """Return the caution about each image's scores; with auto, an unfamiliar image has fine scores."""
        notes = [one.note for one in viewed]
        if self.asked.kind == "auto":
            return notes
        familiar = self._familiar(f_c).tolist()
        return [
            note if fits else "; ".join(filter(None, (note, UNLIKE_CALIBRATION)))
            for note, fits in zip(notes, familiar, strict=True)
        ]

    def _familiar(self, f_c: Tensor) -> Tensor:
        return self.calibration.familiar(f_c, self.predictor.model.reference)


def largest_by_image(e: Tensor, rows: Tensor, images: int) -> Tensor:
    """Return the largest e of each image over its prompts, float32 (images, targets); NaN if none is scored.

    Args:
        e: float32 (prompts, targets).
        rows: the image of each prompt, int64 (prompts,).
        images: how many.
    """
    index = rows.unsqueeze(1).expand_as(e)
    known = torch.where(e.isnan(), -torch.inf, e)
    most = torch.full((images, e.shape[1]), -torch.inf, dtype=e.dtype).scatter_reduce(0, index, known, "amax")
    return torch.where(most == -torch.inf, torch.nan, most)
