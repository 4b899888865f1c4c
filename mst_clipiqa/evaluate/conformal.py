"""Intervals around a score that contain the human rating with a chosen frequency (split conformal)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError, UsageError


def conformal_halfwidth(residuals: ArrayLike, coverage: float = 0.9) -> float:
    """Return the half-width h such that prediction +- h contains a new rating with at least this frequency.

    The guarantee holds for images exchangeable with those of the residuals. Images of new prompts are exchangeable
    only if the residuals come from prompts that were not seen in training.

    Args:
        residuals: prediction - rating on images not used in training, float (n,); the sign does not matter.
        coverage: the frequency, between 0 and 1.

    Returns:
        The ceil((n + 1) coverage)-th smallest absolute residual, in rating units; infinite if n is too small to
        guarantee the coverage (below 9 for 0.9).

    Raises:
        UsageError: the coverage is outside 0..1.
        DataError: there are no residuals, or some are not finite.

    Source: Lei et al., Distribution-free predictive inference for regression, 2018, algorithm 2.

    Example:
        >>> conformal_halfwidth([0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8, 0.9])
        0.9
    """
    if not 0 < coverage < 1:
        raise UsageError(f"Expected a coverage between 0 and 1, got {coverage:g}.")
    sizes = np.sort(np.abs(np.asarray(residuals, dtype=np.float64)).ravel())
    if not sizes.size or not np.isfinite(sizes).all():
        raise DataError("Expected finite residuals of at least one image: remove rows without a score first.")
    rank = math.ceil(round((len(sizes) + 1) * coverage, 9))  # 100 x 0.55 is 55, not 55.00000000000001
    return float(sizes[rank - 1]) if rank <= len(sizes) else math.inf


def interval_coverage(mos: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Return the share of ratings inside [low, high], both ends included; NaN if there are no images.

    Args:
        mos: float (n,).
        low: lower ends, float (n,) or a single number.
        high: upper ends, float (n,) or a single number.

    Raises:
        DataError: the shapes do not match, or a value is NaN.
    """
    y, below, above = (np.asarray(values, dtype=np.float64) for values in (mos, low, high))
    if any(ends.shape not in ((), y.shape) for ends in (below, above)):
        raise DataError(
            f"Expected an interval per rating ({y.size}), got ends of shapes {below.shape} and {above.shape}."
        )
    if any(np.isnan(values).any() for values in (y, below, above)):
        raise DataError("Expected ratings and interval ends, got NaN: remove rows without a score first.")
    return float(np.mean((below <= y) & (y <= above))) if y.size else float("nan")
