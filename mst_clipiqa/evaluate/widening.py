"""Intervals that widen with the distance from the training images (locally weighted split conformal).

    half-width = interval * (1 + growth * excess)

The excess is 0 up to the distance of the median held-out image, and 1 at the 95th percentile (``Reference.excess``).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError

GROWTHS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)
"""The growths that are tried; the one with the narrowest mean interval is kept."""


@dataclass(frozen=True)
class HeldOut:
    """Images that a model has not seen: new prompts of known generators, or one generator that was left out.

    Attributes:
        residuals: prediction - rating, in rating units, float (n,).
        excess: ``Reference.excess`` of each image, float (n,).
        groups: the prompt of each image; (n,).
    """

    residuals: np.ndarray
    excess: np.ndarray
    groups: Sequence[Hashable]


@dataclass(frozen=True)
class Widening:
    """The half-width of a 90 % interval as a function of the excess; see the module."""

    interval: float
    growth: float

    def halfwidth(self, excess: ArrayLike) -> np.ndarray:
        """Return the half-width at each excess, float (n,), in rating units."""
        return np.asarray(self.interval * (1 + self.growth * np.asarray(excess)))


def fit_widening(
    known: HeldOut, left_out: Sequence[HeldOut] = (), coverage: float = 0.9, *, choosing: HeldOut | None = None
) -> Widening | None:
    """Return the intervals that cover this share of the ratings, of new prompts and of new generators.

    For each growth, the interval is the larger of two quantiles of |residual| / (1 + growth * excess): that of the new
    prompts, where each prompt counts the same, and that of the generators left out, where each generator does. The
    growth is the one with the narrowest mean half-width.

    The guarantee is for new prompts of the generators that the model knows, if other images choose the growth: of nine
    growths, the narrowest on the same images is too narrow, by up to four points of coverage over a few dozen prompts.
    For other generators there is none, because a few generators are no sample: if they are like those left out, a
    random image of a random one is covered as often. A single one may be covered less.

    Args:
        known: new prompts of known generators, which chose nothing.
        left_out: one generator each, scored by a model that was trained without it.
        coverage: the frequency, between 0 and 1.
        choosing: other new prompts of known generators, which choose the growth; None: ``known`` does.

    Returns:
        Widening; None if there are too few new prompts to guarantee the coverage (below 9 for 0.9).

    Raises:
        DataError: a part is empty, or a residual is not finite.

    Source: Lei et al., Distribution-free predictive inference for regression, 2018, section 5.2 (locally weighted);
    Dunn et al., Distribution-free prediction sets for two-layer hierarchical models, 2022 (groups).
    """
    choosing = choosing or known
    if any(not len(p.residuals) or not np.isfinite(p.residuals).all() for p in (known, choosing, *left_out)):
        raise DataError("Expected finite residuals in every held-out part: remove rows without a score first.")

    def mean_width(growth: float) -> float:
        scales = [1 + growth * np.asarray(part.excess) for part in (choosing, *left_out)]
        return _interval(choosing, left_out, growth, coverage) * float(np.mean([scale.mean() for scale in scales]))

    growth = min(GROWTHS, key=mean_width)
    interval = _interval(known, left_out, growth, coverage)
    return Widening(interval, growth) if math.isfinite(interval) else None


def _interval(known: HeldOut, left_out: Sequence[HeldOut], growth: float, coverage: float) -> float:
    """Return the interval at a growth; infinite with too few new prompts."""
    ratios = [np.abs(part.residuals) / (1 + growth * np.asarray(part.excess)) for part in (known, *left_out)]
    interval = grouped_quantile(ratios[0], known.groups, coverage)
    if not left_out:
        return interval
    names = np.repeat(np.arange(len(left_out)), [len(part.residuals) for part in left_out])
    return max(interval, grouped_quantile(np.concatenate(ratios[1:]), names.tolist(), coverage, new=0))


def grouped_quantile(values: np.ndarray, groups: Sequence[Hashable], coverage: float, new: int = 1) -> float:
    """Return the value below which a random image of a new group is with at least this frequency; infinite if too few.

    Each group weighs the same, whatever its size.

    Args:
        values: float (n,).
        groups: of each value, (n,).
        coverage: between 0 and 1.
        new: groups with an infinite value that stand for the new one; without it there is no guarantee.
    """
    codes = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.array([codes[group] for group in groups])
    weights = 1 / np.bincount(index)[index] / (len(codes) + new)
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    place = int(np.searchsorted(share, coverage - 1e-9))
    return float(values[order[place]]) if place < len(values) else math.inf
