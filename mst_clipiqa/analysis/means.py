"""A mean and its bootstrap interval, over images or over groups of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.evaluate.resampling import DEFAULT, Interval, Resampling, draw_counts, group_index, interval


def mean_interval(values: ArrayLike, groups: Sequence[Hashable] | None = None, how: Resampling = DEFAULT) -> Interval:
    """Return the mean of some values with its percentile bootstrap interval.

    Args:
        values: float (n,), n at least 1.
        groups: the group (prompt) of every value; whole groups are resampled. None: each value stands alone.
        how: level, resamples and seed.

    Returns:
        Interval: ``low`` and ``high`` are NaN with fewer than two groups.
    """
    x, index = np.asarray(values, np.float64), group_index(groups, len(np.asarray(values)))
    if index.max() == 0:  # nothing to resample
        return interval(float(x.mean()), x, index, how)
    means = np.concatenate([(counts @ x) / counts.sum(1) for counts in draw_counts(index, how)])
    return interval(float(x.mean()), means, index, how)
