"""Agreement of predictions with mean opinion scores: SRCC, PLCC, KRCC, RMSE.

Predictions and ratings are float (n,); what is not raises a DataError, as in ``paired``. An undefined measure is NaN,
never zero; ``why_undefined`` gives the reason.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when used: stats alone would add half a second to every start
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.errors import DataError

Floats = NDArray[np.float64]

CONSTANT = 1e-12
"""Values whose range is below this share of their size count as constant."""


def paired(predictions: ArrayLike, mos: ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64 (n,) after checking their shapes.

    Raises:
        DataError: the lengths differ, there is more than one dimension, or a value is not finite.
    """
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"Expected one prediction per rating, got shapes {x.shape} and {y.shape}.")
    for name, values in (("predictions", x), ("ratings", y)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DataError(
                f"Expected finite {name}, got {values[bad[0]]} at position {bad[0]} ({bad.size} in all): "
                "remove rows without a score first."
            )
    return x, y


def is_constant(values: Floats) -> bool:
    """Return whether all values are equal up to rounding."""
    return bool(np.ptp(values) <= CONSTANT * max(1.0, float(np.abs(values).max()))) if values.size else True


def why_undefined(predictions: ArrayLike, mos: ArrayLike) -> str | None:
    """Return why a correlation is undefined, or None if it is defined."""
    x, y = paired(predictions, mos)
    if len(x) < 2:
        return f"a correlation needs two images, got {len(x)}"
    if is_constant(x):
        return f"all {len(x)} predictions are the same"
    if is_constant(y):
        return f"all {len(y)} ratings are the same"
    return None


def srcc(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return Spearman's rank correlation, -1 to 1; NaN if undefined."""
    x, y = paired(predictions, mos)
    return float(scipy.stats.spearmanr(x, y).statistic) if why_undefined(x, y) is None else float("nan")


def plcc(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return Pearson's linear correlation, -1 to 1; NaN if undefined."""
    x, y = paired(predictions, mos)
    return float(scipy.stats.pearsonr(x, y).statistic) if why_undefined(x, y) is None else float("nan")


def krcc(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return Kendall's rank correlation tau-b, which accounts for ties; NaN if undefined."""
    x, y = paired(predictions, mos)
    return float(scipy.stats.kendalltau(x, y).statistic) if why_undefined(x, y) is None else float("nan")


def rmse(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return the root mean squared error, in the units of the ratings; NaN if there are no images."""
    x, y = paired(predictions, mos)
    return float(np.sqrt(np.mean((x - y) ** 2))) if x.size else float("nan")
