"""Is the adapted model better? If not, nothing is written.

Something must become better by more than chance: held-out ladders, of images that trained nothing, or SRCC with ratings
that trained nothing. And nothing may become worse: ladders not by more than chance, SRCC not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.adapt.ladders import Ladders
from mst_clipiqa.errors import MstClipiqaError
from mst_clipiqa.evaluate import Interval, mean_interval, paired_difference, why_undefined

FEWEST_SCORED = 5
"""Rated images with a score that SRCC needs; with fewer it would say nothing."""


class NotBetter(MstClipiqaError):
    """The adapted model is no better than the model that it came from, so it is not kept.

    Attributes:
        skipped: images that could not be read -> why.
    """

    def __init__(self, text: str, skipped: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.skipped = dict(skipped or {})


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
    """How well one score agrees with ratings.

    Attributes:
        images: how many were compared.
        before, after: SRCC.
        low, high: 95 % interval of the difference, over prompts where all images have one, else over images.
        unscored: how many other rated images the model gives no score, so that they were left out on both sides.
    """

    images: int
    before: float
    after: float
    low: float
    high: float
    unscored: int = 0


@dataclass(frozen=True)
class Verdict:
    """What the gate saw.

    Attributes:
        ladders: held-out ladders.
        ratings: target -> agreement with ratings that trained nothing; empty without ratings.
        unmeasured: target -> why its agreement was not measured; it decides nothing.
    """

    ladders: LadderGain
    ratings: dict[str, RatingGain] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)

    def refusal(self) -> str:
        """Return why the adapted model is refused; empty if it is not."""
        for name, one in self.ratings.items():
            if not one.after >= one.before:
                return f"SRCC of {name} with the ratings fell from {one.before:.4f} to {one.after:.4f}"
        gain, rated = self.ladders.gain, any(one.low > 0 for one in self.ratings.values())
        if gain.low > 0 or (rated and gain.high >= 0):
            return ""
        ladders = (
            f"the share of held-out rungs in the right order went from {self.ladders.before:.3f} to "
            f"{self.ladders.after:.3f} (95 % of the change: {gain.low:+.3f} to {gain.high:+.3f})"
        )
        if rated or not self.ratings:
            return ladders
        name, one = next(iter(self.ratings.items()))
        return (
            f"{ladders}, and SRCC of {name} with the ratings from {one.before:.4f} to {one.after:.4f} "
            f"({one.low:+.4f} to {one.high:+.4f})"
        )

    def not_measured(self) -> list[str]:
        """Return a sentence for each target whose agreement with the ratings was not measured."""
        return [f"SRCC of {name} was not measured: {why}." for name, why in self.unmeasured.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
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


def rating_gain(
    before: np.ndarray, after: np.ndarray, ratings: np.ndarray, prompts: Sequence[str | None]
) -> RatingGain | str:
    """Compare a target's scores with its ratings, or return why they cannot be compared.

    Args:
        before: float (n,), NaN for an image that the model gives no score; such images are left out on both sides.
        after: float (n,).
        ratings: float (n,), NaN for an image without a rating of the target; it does not count.
        prompts: (n,), None for an image without one.

    Raises:
        DataError: an image that had a score before has none that is finite after.
    """
    rated = np.isfinite(ratings)
    scored = rated & np.isfinite(before)
    count, of = int(scored.sum()), int(rated.sum())
    if count < FEWEST_SCORED:
        return f"it needs {FEWEST_SCORED} rated images with a score, got {count} of {of}"
    if why := why_undefined(before[scored], ratings[scored]):
        return why
    own = [prompt for prompt, has in zip(prompts, scored, strict=True) if has]
    found = paired_difference(before[scored], after[scored], ratings[scored], None if None in own else own)
    return RatingGain(count, found.a, found.b, found.low, found.high, of - count)
