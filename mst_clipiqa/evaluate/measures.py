"""Agreement of predictions with mean opinion scores: SRCC, PLCC, KRCC, RMSE.

An undefined measure is NaN, never zero; ``why_undefined`` gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when used: stats alone would add half a second to every start
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.errors import DataError

Floats = NDArray[np.float64]

CONSTANT = 1e-12
"""Values whose range is below this share of their size count as constant."""


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with ratings; an undefined measure is NaN.

    Attributes:
        n: the number of images.
        srcc, plcc, krcc: Spearman, Pearson and Kendall (tau-b) correlation.
        plcc_logistic4: PLCC after a four-parameter logistic fit, as papers report it; the fit uses the same ratings.
        rmse: root mean squared error, in the units of the ratings.
        undefined: why the correlations are undefined; None if they are defined.
    """

    n: int
    srcc: float
    plcc: float
    plcc_logistic4: float
    krcc: float
    rmse: float
    undefined: str | None = None


def agreement(predictions: ArrayLike, mos: ArrayLike) -> Agreement:
    """Return all measures at once.

    Args:
        predictions: float (n,), finite.
        mos: float (n,), finite, in the same units.

    Raises:
        DataError: the lengths differ, or a value is not finite.
    """
    x, y = paired(predictions, mos)
    correlations = (srcc(x, y), plcc(x, y), plcc_logistic4(x, y), krcc(x, y))
    return Agreement(len(x), *correlations, rmse(x, y), why_undefined(x, y))


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


def plcc_logistic4(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return PLCC after fitting f(x) = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2 to the ratings.

    NaN if undefined or for fewer than 5 images.
    Source: VQEG, final report on the validation of objective models of video quality assessment, phase II, 2003.
    """
    return _plcc_after(_logistic4, 4, predictions, mos)


def plcc_logistic5(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return PLCC after fitting f(x) = b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5 to the ratings.

    NaN if undefined or for fewer than 6 images.
    Source: Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality assessment
    algorithms, 2006, equation 13.
    """
    return _plcc_after(_logistic5, 5, predictions, mos)


def _logistic4(x: Floats, b1: float, b2: float, b3: float, b4: float) -> Floats:
    return np.asarray((b1 - b2) * scipy.special.expit((x - b3) * b4) + b2)  # b4 as a slope: no division by zero


def _logistic5(x: Floats, b1: float, b2: float, b3: float, b4: float, b5: float) -> Floats:
    return np.asarray(b1 * (scipy.special.expit(b2 * (x - b3)) - 0.5) + b4 * x + b5)


def _starts(parameters: int, x: Floats, y: Floats) -> list[Sequence[float]]:
    """Return initial guesses on standardised axes: a steep and a gentle curve, rising or falling like the data."""
    slope = float(x @ y) / len(x)  # PLCC, as both are standardised
    ends, sign = (float(y.max()), float(y.min())), 1.0 if slope >= 0 else -1.0
    if parameters == 4:
        return [(*ends, 0.0, sign * steep) for steep in (1.0, 4.0)]
    line = (0.0, 1.0, 0.0, slope, 0.0)  # so that the fit never does worse than no curve
    return [line, *((ends[0] - ends[1], sign * steep, 0.0, 0.0, 0.0) for steep in (1.0, 4.0))]


def _plcc_after(curve: Callable[..., Floats], parameters: int, predictions: ArrayLike, mos: ArrayLike) -> float:
    """Fit the curve from each initial guess and return PLCC of the best fit."""
    x, y = paired(predictions, mos)
    if why_undefined(x, y) is not None or len(x) <= parameters:
        return float("nan")
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()  # leaves PLCC unchanged; the fit converges better
    starts = _starts(parameters, x, y)
    fits = [
        scipy.optimize.least_squares(lambda b: curve(x, *b) - y, start, method="lm", max_nfev=500) for start in starts
    ]
    return plcc(curve(x, *min(fits, key=lambda fit: float(fit.cost)).x), y)
