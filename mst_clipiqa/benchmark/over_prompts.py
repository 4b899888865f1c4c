"""Intervals over the prompts of a test set that several splits share.

Each split trains a model of its own. If all are tested on the same images, they differ by their training alone, and an
interval over splits would say nothing about other images. Here prompts are resampled instead: the measure is computed
for the model of each split, on the same resample, and averaged over the splits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.data.record import ALONE
from mst_clipiqa.evaluate import Difference, Interval, Resampling, difference_of, measures
from mst_clipiqa.evaluate.comparison import farthest
from mst_clipiqa.evaluate.measures import Floats, paired
from mst_clipiqa.evaluate.resampling import DEFAULT, draw_counts, group_index, interval, interval_of, measure_over


def interval_over_prompts(
    predictions: Sequence[ArrayLike],
    mos: ArrayLike,
    groups: Sequence[str],
    measure: str = "srcc",
    how: Resampling = DEFAULT,
) -> Interval:
    """Return the mean of a measure over the models of several splits, with an interval over resampled prompts.

    Args:
        predictions: for each split, float (n,), for the same images in the same order.
        mos: float (n,).
        groups: the prompt group of each image (n,).
        measure: "srcc", "plcc", "krcc" or "rmse".
        how: level, resamples and seed.

    Raises:
        UsageError: the measure is unknown.
        DataError: the lengths differ, or a value is not finite.
    """
    index = group_index(groups, len(groups))
    return interval_of(measure, *_resampled(predictions, mos, index, measure, how), index, how)


def difference_over_prompts(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], mos: ArrayLike, groups: Sequence[str], how: Resampling = DEFAULT
) -> Difference:
    """Compare the mean SRCC of the models of A with that of B on the same resampled prompts.

    Args:
        a, b: for each split, float (n,), for the same images in the same order.
        mos: float (n,).
        groups: the prompt group of each image (n,).
        how: level, resamples and seed.

    Raises:
        DataError: the lengths differ, or a value is not finite.
    """
    index = group_index(groups, len(groups))
    (value_a, drawn_a), (value_b, drawn_b) = (_resampled(side, mos, index, "srcc", how) for side in (a, b))
    found = interval(value_b - value_a, drawn_b - drawn_a, index, how, farthest("srcc"))
    return difference_of("srcc", (value_a, value_b), (found.low, found.high), how.level, found.undefined)


def unit_of(names: Sequence[str], groups: Sequence[str]) -> str:
    """Return what an interval over these groups is over: "prompts", or "images" if no image has a known prompt.

    Args:
        names: what the set calls each image (n,).
        groups: the prompt group of each image (n,).
    """
    alone = all(group.endswith(f"/{ALONE}{name}") for name, group in zip(names, groups, strict=True))
    return "images" if alone else "prompts"


def _resampled(
    predictions: Sequence[ArrayLike], mos: ArrayLike, index: NDArray[np.int64], measure: str, how: Resampling
) -> tuple[float, Floats]:
    """Return the mean of a measure over splits: on all images, and in each resample (resamples,)."""
    over = measure_over(measure)
    sides = [paired(side, mos) for side in predictions]
    value = float(np.mean([getattr(measures, measure)(x, y) for x, y in sides]))
    drawn = [np.mean([over(x, y, counts) for x, y in sides], axis=0) for counts in draw_counts(index, how)]
    return value, np.concatenate(drawn)
