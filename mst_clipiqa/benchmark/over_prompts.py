"""Intervals over the prompts of a test set that several splits share.

Each split trains a model of its own. If all are tested on the same images, they differ by their training alone, and an
interval over splits would say nothing about other images. Here prompts are resampled instead: the measure is computed
for the model of each split, on the same resample, and averaged over the splits.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from mst_clipiqa.data.record import ALONE
from mst_clipiqa.evaluate import Interval, Resampling
from mst_clipiqa.evaluate.comparison import resampled_mean
from mst_clipiqa.evaluate.resampling import DEFAULT, group_index, interval_of


def interval_over_prompts(
    predictions: Sequence[ArrayLike],
    mos: ArrayLike,
    groups: Sequence[str],
    measure: str = "srcc",
    resampling: Resampling = DEFAULT,
) -> Interval:
    """Return the mean of a measure over the models of several splits, with an interval over resampled prompts.

    Args:
        predictions: for each split, float (n,), for the same images in the same order.
        mos: float (n,).
        groups: the prompt group of each image (n,).
        measure: "srcc", "plcc", "krcc" or "rmse".
        resampling: level, resamples and seed.

    Raises:
        UsageError: the measure is unknown.
        DataError: the lengths differ, or a value is not finite.
    """
    index = group_index(groups, len(groups))
    return interval_of(measure, *resampled_mean(predictions, mos, index, measure, resampling), index, resampling)


def resampled_units(names: Sequence[str], groups: Sequence[str]) -> str:
    """Return the unit of an interval over groups: "prompts", or "images" if no image has a known prompt.

    Args:
        names: what the set calls each image (n,).
        groups: the prompt group of each image (n,).
    """
    alone = all(group.endswith(f"/{ALONE}{name}") for name, group in zip(names, groups, strict=True))
    return "images" if alone else "prompts"
