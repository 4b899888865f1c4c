"""Intervals around a score that hold the score of people with a chosen frequency (split-conformal)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError, UsageError


def conformal_halfwidth(residuals: ArrayLike, coverage: float = 0.9) -> float:
    """Return the half width h for which prediction +- h holds a new score with at least this frequency.

    The frequency is guaranteed over images exchangeable with those of the residuals; images of new prompts
    are so only where the residuals come from prompts that training has not seen.

    Args:
        residuals: prediction - score on images that were not trained on, float (n,); only the size counts.
        coverage: the frequency, between 0 and 1.

    Returns:
        The ceil((n + 1) coverage)-th smallest absolute residual, in units of the scores; infinite where n is too
        small to promise the coverage (below 9 for 0.9).

    Raises:
        UsageError: a coverage outside 0..1.
        DataError: no residuals, or some that are not finite.

    Source: Lei et al., Distribution-free predictive inference for regression, 2018, algorithm 2.

    Example:
        >>> conformal_halfwidth([0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8, 0.9])
        0.9
    """
    if not 0 < coverage < 1:
        raise UsageError(f"expected a coverage between 0 and 1, got {coverage:g}")
    sizes = np.sort(np.abs(np.asarray(residuals, dtype=np.float64)).ravel())
    if not sizes.size or not np.isfinite(sizes).all():
        raise DataError("expected finite residuals of at least one image; take rows without a score out first")
    rank = math.ceil(round((len(sizes) + 1) * coverage, 9))  # 100 x 0.55 is 55, not 55.00000000000001
    return float(sizes[rank - 1]) if rank <= len(sizes) else math.inf


def interval_coverage(mos: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Return the share of scores inside [low, high], both ends included. NaN for no images.

    Args:
        mos: float (n,).
        low: lower ends, float (n,) or one for all.
        high: upper ends, float (n,) or one for all.

    Raises:
        DataError: ends that do not fit the scores, or a NaN.
    """
    y, below, above = (np.asarray(values, dtype=np.float64) for values in (mos, low, high))
    if any(ends.shape not in ((), y.shape) for ends in (below, above)):
        raise DataError(f"expected an interval for each of {y.size} scores, got {below.shape} and {above.shape}")
    if any(np.isnan(values).any() for values in (y, below, above)):
        raise DataError("expected scores and interval ends, got NaN; take rows without a score out first")
    return float(np.mean((below <= y) & (y <= above))) if y.size else float("nan")
