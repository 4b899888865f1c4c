"""Is B better than A? A paired comparison on the same images, with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.evaluate import measures
from mst_clipiqa.evaluate.measures import Floats, paired
from mst_clipiqa.evaluate.resampling import (
    DEFAULT,
    Resampling,
    draw_counts,
    freedom_of,
    group_index,
    interval,
    possible,
)
from mst_clipiqa.evaluate.weighted import measure_over


@dataclass(frozen=True)
class Difference:
    """Two predictors compared on the same images.

    Attributes:
        measure: "srcc", "plcc", "krcc" or "rmse".
        a, b: the measure for each predictor.
        difference: b - a.
        low, high: interval of the difference over resampled prompts.
        level: the confidence level of the interval, such as 0.95.
        better: "a" or "b"; None if the interval contains zero.
        sentence: the result in words.
    """

    measure: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    level: float
    better: str | None
    sentence: str


def paired_difference(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    mos: ArrayLike,
    groups: Sequence[Hashable] | None,
    measure: str = "srcc",
    *,
    resampling: Resampling = DEFAULT,
) -> Difference:
    """Compare two predictors on the same images.

    Args:
        predictions_a: float (n,).
        predictions_b: float (n,), for the same images in the same order.
        mos: float (n,).
        groups: the prompt group of each image (n,), or None if unknown.
        measure: "srcc", "plcc", "krcc" or "rmse" (lower is better).
        resampling: level, resamples and seed; both predictors see the same resamples.

    Raises:
        UsageError: the measure is unknown.
        DataError: the lengths differ, or a value is not finite.
    """
    return difference_over_prompts([predictions_a], [predictions_b], mos, groups, measure, resampling=resampling)


def difference_over_prompts(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    mos: ArrayLike,
    groups: Sequence[Hashable] | None,
    measure: str = "srcc",
    *,
    resampling: Resampling = DEFAULT,
) -> Difference:
    """Compare the mean of a measure over the models of A with that over those of B, on the same resampled prompts.

    Args:
        a, b: of each model, float (n,), for the same images in the same order.
        mos, groups, measure, resampling: as for ``paired_difference``, which says what is raised.
    """
    index = group_index(groups, np.size(mos))
    (value_a, drawn_a), (value_b, drawn_b) = (resampled_mean(side, mos, index, measure, resampling) for side in (a, b))
    low, high = possible(measure)
    ends, free = (low - high, high - low), freedom_of(measure, index)
    found = interval(value_b - value_a, drawn_b - drawn_a, index, resampling, ends, free)
    return difference_of(measure, (value_a, value_b), (found.low, found.high), resampling.level, found.undefined)


def resampled_mean(
    predictions: Sequence[ArrayLike], mos: ArrayLike, index: NDArray[np.int64], measure: str, resampling: Resampling
) -> tuple[float, Floats]:
    """Return the mean of a measure over several models of the same images: on all images, and in each resample (r,).

    Args:
        predictions: of each model, float (n,).
        mos, measure, resampling: as for ``paired_difference``.
        index: the group of each image.
    """
    over = measure_over(measure)
    sides = [paired(side, mos) for side in predictions]
    value = float(np.mean([getattr(measures, measure)(x, y) for x, y in sides]))
    drawn = [np.mean([over(x, y, counts) for x, y in sides], axis=0) for counts in draw_counts(index, resampling)]
    return value, np.concatenate(drawn)


def difference_of(
    measure: str,
    values: tuple[float, float],
    ends: tuple[float, float],
    level: float = 0.95,
    undefined: str | None = None,
) -> Difference:
    """Return the comparison of two values of a measure.

    Args:
        measure: "srcc", "plcc", "krcc" or "rmse" (lower is better).
        values: the measure for A and for B.
        ends: the interval of B's value less A's; NaN if there is none.
        level: the confidence level of the interval.
        undefined: why there is no interval; None if there is one.
    """
    (a, b), (low, high) = values, ends
    better = None
    if low > 0 or high < 0:
        better = "b" if (low > 0) != (measure == "rmse") else "a"
    found = Difference(measure, a, b, b - a, low, high, level, better, sentence="")
    return replace(found, sentence=_sentence(found, undefined))


def _sentence(found: Difference, undefined: str | None) -> str:
    """Return the result in words; the one that is better is ahead by a positive difference."""
    name, difference, low, high, better = found.measure.upper(), found.difference, found.low, found.high, found.better
    if not np.isfinite(difference):
        return f"A and B cannot be compared: {name} is undefined for at least one of them."
    if undefined is not None:
        return f"A and B cannot be compared by {name}: {undefined}."
    if better is not None and high < 0:
        difference, low, high = -difference, -high, -low
    figures = (
        f"{name} {found.a:.3f} for A and {found.b:.3f} for B, difference {difference:+z.3f} "
        f"({100 * found.level:g} % interval {low:+z.3f} to {high:+z.3f})"
    )
    if better is None:
        return f"No measurable difference between A and B: {figures}."
    return f"{better.upper()} is better than {'A' if better == 'b' else 'B'}: {figures}."
