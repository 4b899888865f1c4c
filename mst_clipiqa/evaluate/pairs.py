"""Does a predictor pick the better of two images of the same prompt, by ratings or by people's preferences?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.evaluate.measures import Floats, paired
from mst_clipiqa.evaluate.resampling import (
    DEFAULT,
    Resampling,
    binomial_ends,
    draw_counts,
    freedom,
    group_count,
    group_index,
    interval,
)
from mst_clipiqa.evaluate.weighted import ROUNDING


@dataclass(frozen=True)
class PairAccuracy:
    """The share of pairs within a prompt that are ordered as the raters order them.

    Attributes:
        accuracy: the share, 0..1; 0.5 is chance, a tie of the predictions counts half, NaN if there is no pair.
        low, high: its interval over resampled prompts. If all prompts have the same share, such as 1, resamples cannot
            differ; then it is the exact binomial interval, with one trial per prompt. Both NaN for fewer than two
            prompts.
        pairs, groups: how many pairs were compared, and of how many prompts.
        threshold: pairs whose ratings differ by this or less are left out, as raters cannot tell them apart.
        undefined: why there is no accuracy or interval; None if there is.
    """

    accuracy: float
    low: float
    high: float
    pairs: int
    groups: int
    threshold: float
    undefined: str | None = None


def pair_accuracy(
    predictions: ArrayLike,
    mos: ArrayLike,
    groups: Sequence[Hashable],
    threshold: float = 0.0,
    resampling: Resampling = DEFAULT,
) -> PairAccuracy:
    """Return how often the better of two images of the same prompt is predicted to be better.

    Args:
        predictions: float (n,).
        mos: float (n,).
        groups: the prompt group of each image (n,).
        threshold: ratings must differ by more than this, in their units.
        resampling: level, resamples and seed of the interval.

    Raises:
        DataError: the lengths differ, or a value is not finite.
    """
    x, y = paired(predictions, mos)
    index = group_index(groups, len(x))
    order = np.argsort(index, kind="stable")
    count = group_count(index)
    hits, pairs = np.zeros(count), np.zeros(count)
    largest = int(np.bincount(index).max()) if index.size else 0
    for step in range(1, largest):  # covers every pair of a group: their distance in the sorted order is one of these
        first, second = order[:-step], order[step:]
        same = index[first] == index[second]
        first, second = first[same], second[same]
        told = np.abs(y[first] - y[second]) > threshold
        first, second = first[told], second[told]
        hit = (np.sign(x[first] - x[second]) * np.sign(y[first] - y[second]) + 1) / 2
        hits += np.bincount(index[first], weights=hit, minlength=count)
        pairs += np.bincount(index[first], minlength=count)
    why = f"no two images of one prompt differ by more than {threshold:g} in rating"
    return _accuracy(hits, pairs, threshold, resampling, why)


def preference_accuracy(
    differences: ArrayLike, preferred: ArrayLike, groups: Sequence[Hashable], resampling: Resampling = DEFAULT
) -> PairAccuracy:
    """Return how often the image that people prefer has the higher score.

    Args:
        differences: score of A minus score of B, float (pairs,).
        preferred: 1 if people prefer A, 0 for B, 0.5 for a tie, which is left out; float (pairs,).
        groups: the prompt group of each pair (pairs,).
        resampling: level, resamples and seed of the interval.

    Raises:
        DataError: the lengths differ, or a value is not finite.

    Example:
        >>> preference_accuracy([0.5, -0.1, 0.0, 2.0], [1, 1, 0, 0.5], ["x", "x", "y", "y"]).accuracy
        0.5
    """
    x, y = paired(differences, preferred)
    index = group_index(groups, len(x))
    told = y != 0.5
    count = group_count(index)
    hit = (np.sign(x[told]) * np.sign(y[told] - 0.5) + 1) / 2
    hits = np.bincount(index[told], weights=hit, minlength=count).astype(np.float64)
    pairs = np.bincount(index[told], minlength=count).astype(np.float64)
    return _accuracy(hits, pairs, 0.0, resampling, "people had no preference in any pair")


def _accuracy(hits: Floats, pairs: Floats, threshold: float, resampling: Resampling, why: str) -> PairAccuracy:
    """Pool the groups that have pairs, and resample them; ``why`` says what it means if none has."""
    hits, pairs = hits[pairs > 0], pairs[pairs > 0]
    if not pairs.size:
        nan = float("nan")
        return PairAccuracy(nan, nan, nan, 0, 0, threshold, why)
    index = np.arange(len(pairs))
    values = np.concatenate([counts @ hits / (counts @ pairs) for counts in draw_counts(index, resampling)])
    value = float(hits.sum() / pairs.sum())
    found = interval(value, values, index, resampling, (0.0, 1.0), freedom(pairs))
    low, high = found.low, found.high
    if found.undefined is None and np.ptp(values) < ROUNDING:  # no resample differs, which says nothing of new prompts
        low, high = binomial_ends(value * len(pairs), (1 - value) * len(pairs), resampling)
    return PairAccuracy(found.value, low, high, int(pairs.sum()), len(pairs), threshold, found.undefined)
