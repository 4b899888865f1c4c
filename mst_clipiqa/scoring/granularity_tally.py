"""How many images had which granularity, and how far from fine those were whose true difference was measured."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mst_clipiqa.errors import percent
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.granularity import FINE, Granularity
from mst_clipiqa.scoring.risk import COVERAGE


class GranularityTally:
    """Counts images; safe to use from the threads of several batches.

    Args:
        calibration: whose promise the summary repeats.
        asked: the granularity that was asked for.
        check: of how many images below fine to measure the true difference.
    """

    def __init__(self, calibration: Calibration, asked: Granularity, check: int) -> None:
        self._calibration, self._asked = calibration, asked
        self._check_left = check
        self._counts: Counter[str] = Counter()
        self._errors: list[Tensor] = []  # of the images checked, shares of the scale, float32 (targets,)
        self._lock = threading.Lock()  # of the three above

    def take_checks(self, names: Sequence[str]) -> list[int]:
        """Return which of the images of these granularities to check; no other batch checks in their place."""
        with self._lock:
            checked = [i for i, name in enumerate(names) if name != FINE][: self._check_left]
            self._check_left -= len(checked)
        return checked

    def count(self, names: Sequence[str]) -> None:
        """Count images of these granularities."""
        with self._lock:
            self._counts.update(names)

    def add_errors(self, errors: Tensor) -> None:
        """Add the differences of images that were checked, shares of the scale, float32 (images, targets)."""
        with self._lock:
            self._errors += errors.unbind(0)

    def summary(self) -> str:
        """Return how many images had which granularity, and the results of calibration and checks below fine."""
        images, parts = self._counts.total(), [f"{name} for {count:,}" for name, count in self._counts.most_common()]
        text = f"Granularity: {', '.join(parts)} of {images:,} images. " if images else ""
        text += _promise(self._calibration, self._asked)
        if self._errors:
            errors = torch.stack(self._errors).nan_to_num(0.0)
            some = "1 image, which got its fine scores" if len(errors) == 1 else ""
            some = some or f"{len(errors):,} images, which got their fine scores"
            text += f" Checked {some}: the largest difference was {percent(float(errors.max()), 1)} of the scale"
            if self._asked.kind == "auto":
                good = int((errors <= self._asked.tolerance).all(dim=1).sum())
                text += f", and {good:,} were within {self._asked.tolerance:.3g} of it"
            text += "."
        return text


def _promise(calibration: Calibration, asked: Granularity) -> str:
    """Return the promise of the calibration for a granularity, in one sentence."""
    if asked.kind == "auto":
        found = calibration.promise(asked.tolerance)
        return (
            f"In calibration, {percent(found.within, 1)} of {found.below:,} images below fine had no score that "
            f"changed by more than {asked.tolerance:g} of its scale."
        )
    sizes = [f"{target} {percent(size, 1)}" for target, size in calibration.differences(str(asked)).items()]
    most = f"{', '.join(sizes)} of the scale"
    return f"In calibration, {percent(COVERAGE)} of scores differed from those at fine granularity by at most: {most}."
