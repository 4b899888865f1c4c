"""Bootstrap intervals that resample whole prompt groups, because images of one prompt are not independent.

A resample is a count per image: how often its group was drawn. All resamples of a measure are thus a few matrix
products over the counts, and two models are compared on identical resamples. scipy has no bootstrap over groups.

Percentiles of resamples of few groups are too narrow: their variance is (n - 1) / n of what it should be, and their
ends are those of a normal distribution, not of Student's. ``widened`` makes up for both. Its factor is 9 for 2 groups,
1.2 for 10 and 1.04 for 48. It does not repair that, over two groups, intervals of correlations stay too narrow.
For means, shares of pairs and RMSE it trusts fewer groups if some have most of the images (``freedom``): with n - 1,
their intervals miss at least twice as often as they say. Those of correlations depend little on the groups' sizes.

RMSE is a scale: what resampling tells of it is a ratio, resample / all images, which is spread like all images / truth.
Its ends are therefore those of value^2 / resample (the basic bootstrap of its logarithm). Percentiles of RMSE itself
would lie too low: the root of a resampled mean is too small on average, and a few large errors make the upper tail.

Groups are drawn by number, in the order in which they first appear. If rows are in another order, the ends of an
interval move a little, as they do with another seed.

Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), sections 5.2 and 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported when used
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate import measures
from mst_clipiqa.evaluate.measures import Floats, paired, why_undefined
from mst_clipiqa.evaluate.weighted import COUNTS_AT_ONCE, ROUNDING, measure_over

MOST_UNDEFINED = 0.1
"""An interval is given if at most this share of the resamples is undefined (all drawn values equal)."""

_LARGEST_LOG = 700.0
"""Logarithm of about the largest number that a float holds."""

MOST_FOR_KRCC = 5000
"""KRCC is resampled for at most this many images: its cost grows with the number of pairs."""


@dataclass(frozen=True)
class Interval:
    """A measure with its bootstrap interval.

    Attributes:
        value: the measure on all images.
        low, high: ends of the interval; NaN if it is undefined.
        level: the confidence level, such as 0.95.
        resamples: how many resamples were drawn.
        groups: how many prompt groups were resampled.
        undefined: why there is no interval; None if there is one.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    groups: int
    undefined: str | None = None

    @classmethod
    def without_ends(cls, value: float, level: float, resamples: int, groups: int, why: str) -> Interval:
        """Return a value whose interval is undefined, for a reason."""
        return cls(value, math.nan, math.nan, level, resamples, groups, why)


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: confidence level, number of resamples, random seed."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.level < 1 or self.resamples < 1:
            raise UsageError(
                f"Expected a level between 0 and 1 and at least one resample, got {self.level:g} and {self.resamples}."
            )
        if self.seed < 0:
            raise UsageError(f"Expected a seed of 0 or more, got {self.seed}: choose another.")


DEFAULT = Resampling()


def bootstrap(
    predictions: ArrayLike,
    mos: ArrayLike,
    groups: Sequence[Hashable] | None,
    measure: str = "srcc",
    resampling: Resampling = DEFAULT,
) -> Interval:
    """Return a measure with its percentile interval over resampled prompt groups.

    Args:
        predictions: float (n,).
        mos: float (n,).
        groups: the prompt group of each image (n,); None if unknown: each image is then its own group.
        measure: "srcc", "plcc", "krcc" or "rmse".
        resampling: level, resamples and seed.

    Raises:
        UsageError: the measure is unknown.
        DataError: the lengths differ, or a value is not finite.
    """
    x, y = paired(predictions, mos)
    over, index = measure_over(measure), group_index(groups, len(x))
    value = float(getattr(measures, measure)(x, y))
    why = why_undefined(x, y) if measure != "rmse" else None
    if measure == "krcc" and len(x) > MOST_FOR_KRCC:
        why = f"KRCC is resampled for up to {MOST_FOR_KRCC:,} images, got {len(x):,}"
    if why is not None:
        return Interval.without_ends(value, resampling.level, resampling.resamples, group_count(index), why)
    values = np.concatenate([over(x, y, counts) for counts in draw_counts(index, resampling)])
    return interval_of(measure, value, values, index, resampling)


def possible(measure: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a measure can have."""
    return (0.0, math.inf) if measure == "rmse" else (-1.0, 1.0)


def student(free: float, resampling: Resampling) -> float:
    """Return the upper end of Student's distribution at the level, in its own deviations."""
    return float(scipy.special.stdtrit(free, (1 + resampling.level) / 2)) if free > 0 else normal(resampling)


def normal(resampling: Resampling) -> float:
    """Return the upper end of the normal distribution at the level, in deviations."""
    return float(scipy.special.ndtri((1 + resampling.level) / 2))


def binomial_ends(hits: float, misses: float, resampling: Resampling) -> tuple[float, float]:
    """Return the exact interval of a share of independent trials; the counts of hits and misses may be fractions."""
    tail = (1 - resampling.level) / 2
    low = float(scipy.special.betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
    high = float(scipy.special.betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
    return low, high


def full_spread(index: NDArray[np.int64]) -> float:
    """Return by what resampled values must be further apart for their variance to be that of the value."""
    return math.sqrt(group_count(index) / max(group_count(index) - 1, 1))


def freedom(sizes: ArrayLike) -> float:
    """Return the degrees of freedom of the spread of a mean over groups: groups - 1, or less if some are larger.

    Args:
        sizes: how many images (or pairs) each group has, (groups,).

    Returns:
        Satterthwaite's, with all variance between groups; 0 for a single group or none.

    Source: Bell and McCaffrey, "Bias reduction in standard errors for linear regression with multi-stage samples"
    (Survey Methodology 28, 2002).
    """
    w = np.asarray(sizes, np.float64) / np.sum(sizes)
    if not w.size or np.ptp(w) == 0:
        return max(len(w) - 1.0, 0.0)
    # The estimated variance is x' B x of the groups' means x, B = (I - w 1') D (I - 1 w'), D = diag(w^2 / (1 - w)).
    d = w**2 / (1 - w)
    p, q, r, s = w @ w, w @ d, d @ d, d.sum()
    trace = s - 2 * q + s * p
    of_square = r - 4 * (w @ d**2) + 2 * s * (d @ w**2) + 2 * (q**2 + p * r) - 4 * s * p * q + (s * p) ** 2
    return float(min(max(trace**2 / of_square, 1.0), len(w) - 1))  # rounding may exceed either


def widened(
    value: float, values: Floats, index: NDArray[np.int64], resampling: Resampling, free: float | None = None
) -> Floats:
    """Return resampled values as far from the value as the number of groups asks for; see the module."""
    end = student(group_count(index) - 1 if free is None else free, resampling)
    return np.asarray(value + full_spread(index) * end / normal(resampling) * (values - value))


def interval(
    value: float,
    values: Floats,
    index: NDArray[np.int64],
    resampling: Resampling,
    ends: tuple[float, float] = (-math.inf, math.inf),
    free: float | None = None,
) -> Interval:
    """Return the interval of resampled values, widened for few groups, or the reason why there is none.

    Args:
        value: the measure on all images.
        values: in each resample.
        index: the group of each image.
        resampling: level, resamples and seed.
        ends: the lowest and the highest possible value, where the interval is cut off.
        free: degrees of freedom, as ``freedom`` returns them; None for groups - 1.
    """
    found = percentiles(value, widened(value, values, index, resampling, free), index, resampling)
    return replace(found, low=max(found.low, ends[0]), high=min(found.high, ends[1])) if not found.undefined else found


def freedom_of(measure: str, index: NDArray[np.int64]) -> float:
    """Return the degrees of freedom of a measure of agreement over groups."""
    return freedom(np.bincount(index)) if measure == "rmse" else float(group_count(index) - 1)


def interval_of(
    measure: str, value: float, values: Floats, index: NDArray[np.int64], resampling: Resampling
) -> Interval:
    """Return the interval of a measure of agreement; see the module for that of RMSE.

    A perfect correlation stays so in every resample, which says nothing of other prompts: then there is no interval.

    Args:
        measure: "srcc", "plcc", "krcc" or "rmse".
        value, values, index, resampling: as for ``interval``.
    """
    free = freedom_of(measure, index)
    if measure != "rmse" or not (values > 0).all():  # a resample without any error has no logarithm
        found = interval(value, values, index, resampling, possible(measure), free)
        if measure == "rmse" or found.undefined or abs(value) < 1 - ROUNDING:
            return found
        return replace(found, low=math.nan, high=math.nan, undefined=f"every resample gives {value:.0f} too")
    found = interval(math.log(value), 2 * math.log(value) - np.log(values), index, resampling, free=free)
    low, high = (math.exp(min(end, _LARGEST_LOG)) for end in (found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def percentiles(value: float, values: Floats, index: NDArray[np.int64], resampling: Resampling) -> Interval:
    """Return the percentile interval of values, or the reason why there is none; arguments as for ``interval``."""
    count = group_count(index)
    defined = values[np.isfinite(values)]
    why = None
    if count < 2:
        why = f"an interval needs two prompt groups, got {count}"
    elif len(defined) < (1 - MOST_UNDEFINED) * len(values):
        why = f"the measure is undefined in {len(values) - len(defined)} of {len(values)} resamples"
    if why is not None:
        return Interval.without_ends(value, resampling.level, resampling.resamples, count, why)
    low, high = np.quantile(defined, [(1 - resampling.level) / 2, (1 + resampling.level) / 2])
    return Interval(value, float(low), float(high), resampling.level, resampling.resamples, count)


def group_index(groups: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """Return the number of each image's group, in order of first appearance: int (n,).

    Raises:
        DataError: the number of groups is not the number of images.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise DataError(f"Expected the prompt group of each of {n} images, got {len(groups)} groups.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def group_count(index: NDArray[np.int64]) -> int:
    """Return how many groups there are, from what ``group_index`` returns."""
    return int(index.max()) + 1 if index.size else 0


def draw_counts(index: NDArray[np.int64], resampling: Resampling) -> Iterator[Floats]:
    """Yield counts, float (some resamples, n): how often each image was drawn in each resample."""
    generator = np.random.default_rng(resampling.seed)
    groups = group_count(index)
    step = max(1, COUNTS_AT_ONCE // max(len(index), 1))
    for start in range(0, resampling.resamples if groups else 0, step):
        rows = min(step, resampling.resamples - start)
        drawn = generator.integers(groups, size=(rows, groups))
        drawn += groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        del drawn  # as large as the counts
        by_group = np.asfortranarray(counts, dtype=np.float64)
        del counts
        # Image by image in memory, so that sums over them add up in one order, whatever a group holds.
        yield by_group if groups == len(index) else np.take(by_group.T, index, axis=0).T
