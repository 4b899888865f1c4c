"""All measures of agreement between predictions and ratings at once."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mst_clipiqa.evaluate.logistic import plcc_logistic4
from mst_clipiqa.evaluate.measures import krcc, paired, plcc, rmse, srcc, why_undefined


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
