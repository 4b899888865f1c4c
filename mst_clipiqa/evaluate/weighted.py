"""SRCC, PLCC, KRCC and RMSE of images that count several times or not at all, in many resamples at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate.measures import Floats

COUNTS_AT_ONCE = 4_000_000
"""Counts (resamples x images) processed at once: bounds memory, does not affect results."""

ROUNDING = 1e-12
"""A variance below this share of the largest one counts as zero."""


def measure_over(name: str) -> Callable[[Floats, Floats, Floats], Floats]:
    """Return a measure by name: a function of x (n,), y (n,) and counts (r, n) with one value per resample (r,).

    Raises:
        UsageError: the measure is unknown.
    """
    known = {"srcc": _srcc, "plcc": _plcc, "krcc": _krcc, "rmse": _rmse}
    if name not in known:
        raise UsageError(f"Expected one of the measures {', '.join(known)}, got {name!r}.")
    return known[name]


def _rmse(x: Floats, y: Floats, counts: Floats) -> Floats:
    return np.asarray(np.sqrt(counts @ (x - y) ** 2 / counts.sum(axis=1)))


def _plcc(x: Floats, y: Floats, counts: Floats) -> Floats:
    x, y = x - x.mean(), y - y.mean()  # so that the differences of sums below stay accurate
    total = counts.sum(axis=1)
    mean_x, mean_y = counts @ x / total, counts @ y / total
    covariance = counts @ (x * y) / total - mean_x * mean_y
    return _ratio(covariance, counts @ x**2 / total - mean_x**2, counts @ y**2 / total - mean_y**2)


def _srcc(x: Floats, y: Floats, counts: Floats) -> Floats:
    ranks_x, ranks_y = _ranks(x, counts), _ranks(y, counts)
    total = counts.sum(axis=1)
    middle = (total[:, None] + 1) / 2  # the mean of ranks 1..N, whatever the ties
    ranks_x, ranks_y = ranks_x - middle, ranks_y - middle
    covariance = np.einsum("rn,rn,rn->r", counts, ranks_x, ranks_y)
    variances = (np.einsum("rn,rn,rn->r", counts, ranks, ranks) for ranks in (ranks_x, ranks_y))
    return _ratio(covariance, *variances)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Return the mean rank of every image in every resample, ties included: float (r, n)."""
    order = np.argsort(values, kind="stable")
    _, first, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    tied = np.add.reduceat(counts[:, order], first, axis=1)  # images per distinct value
    below = np.cumsum(tied, axis=1) - tied
    back = np.empty_like(order)
    back[order] = inverse
    return np.asarray((below + (tied + 1) / 2)[:, back])


def _krcc(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Return tau-b: the sum of sign(dx) sign(dy) over all pairs, divided by the pairs that are not tied."""
    both, untied_x, untied_y = (np.zeros(len(counts)) for _ in range(3))
    for rows in np.array_split(np.arange(len(x)), max(1, len(x) * len(x) // COUNTS_AT_ONCE)):
        signs_x, signs_y = np.sign(x[rows, None] - x), np.sign(y[rows, None] - y)
        weights = counts[:, rows]
        both += np.sum(weights * (counts @ (signs_x * signs_y).T), axis=1)
        untied_x += np.sum(weights * (counts @ np.abs(signs_x).T), axis=1)
        untied_y += np.sum(weights * (counts @ np.abs(signs_y).T), axis=1)
    return _ratio(both, untied_x, untied_y)


def _ratio(covariance: Floats, variance_x: Floats, variance_y: Floats) -> Floats:
    """Return covariance / sqrt(variances), NaN for a resample in which all values are equal."""
    varies = (variance_x > ROUNDING * variance_x.max()) & (variance_y > ROUNDING * variance_y.max())
    root = np.sqrt(np.where(varies, variance_x * variance_y, np.nan))
    return np.asarray(np.clip(covariance / root, -1.0, 1.0))
