"""Is B better than A? A paired answer on the same images, with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.evaluate import measures
from mst_clipiqa.evaluate.measures import paired
from mst_clipiqa.evaluate.resampling import (
    DEFAULT,
    Interval,
    Resampling,
    draw_counts,
    group_index,
    interval,
    measure_over,
)


@dataclass(frozen=True)
class Difference:
    """Two predictors on the same images: `difference` is b - a, with its interval over resampled prompts.

    `better` is "a", "b" or None where the interval holds zero; `sentence` says so in words.
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
    how: Resampling = DEFAULT,
) -> Difference:
    """Compare two predictors on the same images.

    Args:
        predictions_a: float (n,).
        predictions_b: float (n,), of the same images in the same order.
        mos: float (n,).
        groups: the prompt group of every image (n,); None where unknown.
        measure: "srcc", "plcc", "krcc" or "rmse" (where less is better).
        how: level, resamples and seed; both predictors see the same resamples.

    Raises:
        UsageError: no such measure.
        DataError: different lengths, or values that are not finite.
    """
    a, y = paired(predictions_a, mos)
    b, _ = paired(predictions_b, mos)
    index, over = group_index(groups, len(y)), measure_over(measure)
    value_a, value_b = (float(getattr(measures, measure)(x, y)) for x in (a, b))
    if np.isfinite(value_b - value_a):
        values = np.concatenate([over(b, y, counts) - over(a, y, counts) for counts in draw_counts(index, how)])
    else:
        values = np.full(1, np.nan)  # undefined for one of them on all images, so no resample can help
    found = interval(value_b - value_a, values, index, how)
    better = None
    if found.low > 0 or found.high < 0:
        better = "b" if (found.low > 0) != (measure == "rmse") else "a"
    return Difference(
        measure=measure,
        a=value_a,
        b=value_b,
        difference=found.value,
        low=found.low,
        high=found.high,
        level=how.level,
        better=better,
        sentence=_sentence(measure, (value_a, value_b), found, better),
    )


def _sentence(measure: str, values: tuple[float, float], found: Interval, better: str | None) -> str:
    """Say in words what was found."""
    name, (a, b) = measure.upper(), values
    if not np.isfinite(found.value):
        return f"A and B cannot be compared: {name} is undefined for at least one of them."
    if found.undefined is not None:
        return f"A and B cannot be compared by {name}: {found.undefined}."
    figures = (
        f"{name} {a:.3f} for A and {b:.3f} for B, difference {found.value:+.3f} "
        f"({found.level:.0%} interval {found.low:+.3f} to {found.high:+.3f})"
    )
    if better is None:
        return f"No difference between A and B can be told: {figures}."
    return f"{better.upper()} is better than {'A' if better == 'b' else 'B'}: {figures}."
