"""How often 90 % intervals contain the rating, calibrated on prompts that chose nothing and are not measured.

The validation part selects the epoch, so residuals on it are too small. The test part chose nothing: each half of its
prompts calibrates the intervals that are measured on the other half. No score and no weight depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from mst_clipiqa.evaluate import grouped_quantile

_LEVEL = 0.9


def crossed_coverage(residuals: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Return the share of images whose rating is inside the interval that the other half of the prompts calibrated.

    Args:
        residuals: prediction - rating on images that chose nothing, float (n,).
        groups: the prompt of each image, (n,).

    Returns:
        0..1; NaN if a half has too few prompts to calibrate (below 9).
    """
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    half = np.array([numbers[group] % 2 for group in groups])
    widths = [_width(residuals, groups, half == side) for side in (0, 1)]
    if not all(map(math.isfinite, widths)):
        return math.nan
    return float(np.mean(np.abs(residuals) <= np.array(widths)[1 - half]))


def coverage_elsewhere(residuals: np.ndarray, groups: Sequence[Hashable], others: np.ndarray) -> float:
    """Return the share of the residuals ``others`` within the 90 % half-width that ``residuals`` calibrate.

    Args:
        residuals, groups: as in ``crossed_coverage``.
        others: prediction - rating on images of another set, on the same scale, float (m,).
    """
    width = _width(residuals, groups, np.ones(len(residuals), bool))
    return float(np.mean(np.abs(others) <= width)) if math.isfinite(width) else math.nan


def _width(residuals: np.ndarray, groups: Sequence[Hashable], kept: np.ndarray) -> float:
    """Return the half-width that some of the residuals give; every prompt weighs the same."""
    names = [group for group, one in zip(groups, kept, strict=True) if one]
    return grouped_quantile(np.abs(residuals[kept]), names, _LEVEL) if names else math.inf
