"""Is the adapted model better? If not, nothing is written.

Held-out ladders, of images that trained nothing, must become more monotone, by more than chance; and where ratings were
given, no SRCC may fall.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.adapt.ladders import Ladders
from mst_clipiqa.errors import MstClipiqaError
from mst_clipiqa.evaluate import Interval, mean_interval


class NotBetter(MstClipiqaError):
    """The adapted model is no better than the model that it came from, so it is not kept."""


@dataclass(frozen=True)
class LadderGain:
    """How monotone held-out ladders are.

    Attributes:
        images, ladders: how many were held out.
        before, after: share of the pairs of rungs in the right order, 0..1; a tie is wrong.
        gain: the difference, with its 95 % interval over images.
        kinds: kind of distortion -> (before, after).
    """

    images: int
    ladders: int
    before: float
    after: float
    gain: Interval
    kinds: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class RatingGain:
    """How well one score agrees with ratings: number of images, SRCC before and after."""

    images: int
    before: float
    after: float


@dataclass(frozen=True)
class Verdict:
    """What the gate saw.

    Attributes:
        ladders: held-out ladders.
        ratings: target -> agreement with ratings that trained nothing; empty without ratings.
    """

    ladders: LadderGain
    ratings: dict[str, RatingGain] = field(default_factory=dict)

    def refusal(self) -> str:
        """Return why the adapted model is refused; empty if it is not."""
        found = self.ladders
        if not found.gain.low > 0:
            return (
                f"the share of held-out rungs in the right order went from {found.before:.3f} to {found.after:.3f} "
                f"(95 % of the change: {found.gain.low:+.3f} to {found.gain.high:+.3f})"
            )
        for name, one in self.ratings.items():
            if not one.after >= one.before:
                return f"SRCC of {name} with the ratings fell from {one.before:.4f} to {one.after:.4f}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return what was seen as JSON can hold it."""
        return dataclasses.asdict(self)


def right_order(q: Tensor, ladders: Ladders) -> np.ndarray:
    """Return the share of pairs of rungs in the right order, float (images, each); q: (images, versions)."""
    rungs = ladders.plan.rungs()
    on_ladder = q[:, rungs.flatten()].view(len(q), *rungs.shape)
    first, second = torch.triu_indices(rungs.shape[1], rungs.shape[1], 1)
    share: np.ndarray = (on_ladder[..., first] > on_ladder[..., second]).double().mean(dim=2).numpy()
    return share


def ladder_gain(before: Tensor, after: Tensor, ladders: Ladders) -> LadderGain:
    """Compare the scores of all versions of held-out images, float (images, versions) each."""
    was, now = right_order(before, ladders), right_order(after, ladders)
    kinds = np.array(ladders.kinds)
    return LadderGain(
        len(ladders),
        kinds.size,
        float(was.mean()),
        float(now.mean()),
        mean_interval((now - was).mean(axis=1)),
        {str(kind): (float(was[kinds == kind].mean()), float(now[kinds == kind].mean())) for kind in np.unique(kinds)},
    )
