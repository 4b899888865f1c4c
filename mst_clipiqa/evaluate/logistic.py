"""PLCC after a logistic curve has been fitted to the ratings, as papers on image quality report it.

    4 parameters: f(x) = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2
    5 parameters: f(x) = b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5

Given where a curve is steepest and how steep it is, all other parameters are linear, and least squares gives them in
closed form. So the fit is a search over two numbers, and PLCC after it is the largest multiple correlation that it
finds. A search over all four or five at once often stops before it has converged: where the curve is nearly straight,
parameters of very different size give the same curve.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when used
from numpy.typing import ArrayLike

from mst_clipiqa.evaluate.measures import Floats, paired, why_undefined

_SLOPES = np.geomspace(0.05, 20, 12)  # where the search looks first, per deviation of the predictions
_MIDDLES = np.linspace(-3, 3, 25)  # in deviations from their mean
_BOUNDS = ((np.log(0.01), np.log(100.0)), (-10.0, 10.0))  # almost straight, almost a jump; almost exponential


def plcc_logistic4(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return PLCC, 0 to 1, after fitting f(x) = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2 to the ratings.

    NaN if undefined or for fewer than 5 images.
    Source: VQEG, final report on the validation of objective models of video quality assessment, phase II, 2003.
    """
    return _plcc_after(4, predictions, mos)


def plcc_logistic5(predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return PLCC, 0 to 1, after fitting f(x) = b1 (1/2 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5 to the ratings.

    NaN if undefined or for fewer than 6 images.
    Source: Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality assessment
    algorithms, 2006, equation 13.
    """
    return _plcc_after(5, predictions, mos)


def _plcc_after(parameters: int, predictions: ArrayLike, mos: ArrayLike) -> float:
    """Return the correlation with the best curve found: the best of a grid, then improved until it converges."""
    x, y = paired(predictions, mos)
    if why_undefined(x, y) is not None or len(x) <= parameters:
        return float("nan")
    x, y = ((v - v.mean()) / v.std() for v in (x, y))
    line = x if parameters == 5 else None

    def lost(curve: Floats) -> float:
        return -_explained(x, y, line, float(np.exp(curve[0])), float(curve[1]))

    start = min((np.array((np.log(slope), middle)) for slope in _SLOPES for middle in _MIDDLES), key=lost)
    fit = scipy.optimize.minimize(lost, start, method="L-BFGS-B", bounds=_BOUNDS, options={"ftol": 1e-13})
    best = min(lost(start), fit.fun)  # where the curve is nearly a jump, the search can end worse than it began
    return float(np.sqrt(min(-best, 1.0)))  # rounding may exceed 1


def _explained(x: Floats, y: Floats, line: Floats | None, slope: float, middle: float) -> float:
    """Return the share of the variance of ``y`` that a curve explains, with the ``line`` beside it if there is one."""
    curve = _standardised(scipy.special.expit(slope * (x - middle)))
    by_curve = float(curve @ y) / len(x)
    if line is None:
        return by_curve**2
    by_line, shared = float(line @ y) / len(x), float(line @ curve) / len(x)
    rest = 1 - shared**2  # what the curve has that the line has not
    return by_line**2 + ((by_curve - shared * by_line) ** 2 / rest if rest > 1e-9 else 0.0)


def _standardised(values: Floats) -> Floats:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros_like(values)  # below, rounding is left
