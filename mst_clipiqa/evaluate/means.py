"""Intervals of means, differences of means, shares and quantiles over prompts, few or many.

Images of one prompt are not independent, so a prompt is what counts. Percentiles of resampled means are too narrow for
few prompts, so they are widened (``resampling.py``) by a factor on the distance from the mean:

    sqrt(n / (n - 1)) t(f) / z

f is n - 1 if all prompts have as many images, and less if some have most of them (``freedom``).
Few resamples of few prompts reach far out, so an interval is at least as wide, on each side, as Student's own.
The values should be spread symmetrically. If they are very skewed, intervals over few prompts stay too narrow.

If a difference d is the same for all n prompts, as may happen with whole numbers, no resample differs. Its interval is
then Student's of one prompt more, which shows the opposite, -d. It contains zero unless there are as many prompts as a
sign test needs: 6 at 95 %, 8 at 99 %.

A share that all or no images have does not vary among resamples, and a quantile is always one of the values.
Their ends come from the binomial distribution of as many independent images as would be as certain:

    n_eff = p (1 - p) / var(p) (t(images - 1) / t(m - 1))^2,    at most the images; m, if p is 0 or 1
    m     = 1 / sum_g w_g^2,                                    w_g: share of prompt g among the images

If all prompts have as many images, m is the number of prompts. If one has most of them, the others say little, and m is
near 1.

Sources: Hesterberg, "What Teachers Should Know About the Bootstrap" (The American Statistician 69, 2015) for the
factor; Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated
from survey data" (Survey Methodology 24, 1998) for n_eff; Kish, "Survey Sampling" (1965) for m; Bell and McCaffrey,
"Bias reduction in standard errors for linear regression with multi-stage samples" (Survey Methodology 28, 2002) for
var(p).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy  # its parts are imported when used: only a quantile needs stats, which take half a second
from numpy.typing import ArrayLike, NDArray

from mst_clipiqa.evaluate.measures import Floats
from mst_clipiqa.evaluate.resampling import (
    DEFAULT,
    Interval,
    Resampling,
    binomial_ends,
    draw_counts,
    freedom,
    full_spread,
    group_count,
    group_index,
    interval,
    normal,
    percentiles,
    student,
)

_ROUND = 10**6  # ends of the interval of a share are rounded outwards to multiples of one in so many
_ALIKE = 1e-9  # differences that are closer, as a share of the largest, differ by rounding alone


def mean_interval(
    values: ArrayLike, groups: Sequence[Hashable] | None = None, resampling: Resampling = DEFAULT
) -> Interval:
    """Return the mean of some values with its interval over resampled groups.

    Args:
        values: float (n,), n at least 1.
        groups: the group (prompt) of each value; None: each value is its own group.
        resampling: level, resamples and seed.
    """
    return mean_intervals([values], groups, resampling)[0]


def mean_intervals(
    columns: Sequence[ArrayLike], groups: Sequence[Hashable] | None = None, resampling: Resampling = DEFAULT
) -> list[Interval]:
    """Return what ``mean_interval`` does for each of several columns; the resamples, which take longest, are shared.

    Args:
        columns: float (n,) each, n at least 1.
        groups: the group (prompt) of each value, the same for all columns; None: each value is its own group.
        resampling: level, resamples and seed.
    """
    xs = [np.asarray(values, np.float64) for values in columns]
    index = group_index(groups, len(xs[0]))
    count = group_count(index)
    if count < 2:  # as for each prompt of a report: there is no interval, so nothing is drawn
        return [interval(float(x.mean()), np.empty(0), index, resampling) for x in xs]
    free, found = freedom(np.bincount(index)), []
    for x, resampled in zip(xs, _resampled(xs, index, resampling), strict=True):
        one = interval(float(x.mean()), resampled, index, resampling, free=free)
        found.append(_at_least(one, student(free, resampling) * math.sqrt(_variance(x, index))))
    return found


def mean_differences(
    columns: Sequence[ArrayLike], groups: Sequence[Hashable] | None = None, resampling: Resampling = DEFAULT
) -> list[Interval]:
    """Return what ``mean_intervals`` does for columns of differences; see the module for those that are all the same.

    Args:
        columns, groups, resampling: as for ``mean_intervals``.
    """
    index = group_index(groups, np.size(columns[0]))
    found = []
    for values, one in zip(columns, mean_intervals(columns, groups, resampling), strict=True):
        means = np.bincount(index, weights=np.asarray(values, np.float64)) / np.bincount(index)
        is_same = np.ptp(means) <= _ALIKE * np.abs(means).max()
        found.append(_of_the_same(one, resampling) if is_same else one)
    return found


def unpaired_difference(old: ArrayLike, new: ArrayLike, resampling: Resampling = DEFAULT) -> Interval:
    """Return mean(new) - mean(old) with its interval; both sides are resampled independently.

    The degrees of freedom are Welch's, but at most those of sides whose values are spread alike: if the two or three
    values of a small side happen to be alike, Welch's trust the larger side too much.

    Args:
        old, new: float (n,) and (m,), at least one value each, such as the mean of each prompt.
        resampling: level, resamples and seed.

    Returns:
        The difference; ``groups`` is the smaller number of values, and with fewer than two there is no interval.
    """
    sides = []
    for seed, values in ((2 * resampling.seed, old), (2 * resampling.seed + 1, new)):
        x = np.asarray(values, np.float64)
        index = group_index(None, len(x))
        means = x.mean() + full_spread(index) * (_resampled([x], index, replace(resampling, seed=seed))[0] - x.mean())
        sides.append((float(x.mean()), means, index, _variance(x, index)))
    (was, before, first, spread), (now, after, second, other) = sides
    counts = group_count(first), group_count(second)
    free = min(_welch((spread, other), counts), _welch((1 / counts[0], 1 / counts[1]), counts))
    end = student(free, resampling) if spread + other > 0 else normal(resampling)
    deviations = (after - now) - (before - was)
    difference, fewest = now - was, min(first, second, key=np.max)
    found = percentiles(difference, difference + end / normal(resampling) * deviations, fewest, resampling)
    if spread + other == 0:
        return _of_the_same(found, resampling)
    return _at_least(found, end * math.sqrt(spread + other))


def share_interval(
    has: ArrayLike, groups: Sequence[Hashable] | None = None, resampling: Resampling = DEFAULT
) -> Interval:
    """Return the share of images that have something, 0..1, with its interval over groups.

    Args:
        has: bool (n,), n at least 1.
        groups: the group (prompt) of each image; None: each image is its own group.
        resampling: the level; nothing is resampled.
    """
    x = np.asarray(has, bool)
    index, value = group_index(groups, len(x)), float(x.mean())
    if group_count(index) < 2:
        return _too_few(value, index, resampling)
    size = max(_independent(x, index, resampling), 1 / _ROUND)
    low, high = binomial_ends(value * size, size - value * size, resampling)
    low, high = math.floor(low * _ROUND) / _ROUND, math.ceil(high * _ROUND) / _ROUND
    return Interval(value, low, high, resampling.level, 0, group_count(index))


def quantile_interval(
    values: ArrayLike, q: float, groups: Sequence[Hashable] | None = None, resampling: Resampling = DEFAULT
) -> Interval:
    """Return a quantile of some values with its interval over groups; all three are among the values.

    With too few images, no value is certain to be below the quantile, or above it; then there is no interval.

    Args:
        values: float (n,), n at least 1.
        q: the share of values, 0..1, that are at most the quantile.
        groups: the group (prompt) of each value; None: each value is its own group.
        resampling: the level; nothing is resampled.
    """
    x = np.asarray(values, np.float64)
    ordered, index = np.sort(x), group_index(groups, len(x))
    value = _at(ordered, q)
    if group_count(index) < 2:
        return _too_few(value, index, resampling)
    size, tail = math.floor(_independent(x <= value, index, resampling)), (1 - resampling.level) / 2
    below, above = (float(end) for end in scipy.stats.binom.ppf([tail, 1 - tail], size, q))
    above += 1
    if size < 1 or below < 1 or above > size:
        return _too_few(value, index, resampling)
    low = ordered[max(math.floor(len(x) * below / size), 1) - 1]
    return Interval(value, float(low), _at(ordered, above / size), resampling.level, 0, group_count(index))


def _welch(variances: tuple[float, float], counts: tuple[int, int]) -> float:
    """Return Welch's degrees of freedom of a difference of two means, from their variances and group counts."""
    each = sum(variance**2 / max(count - 1, 1) for variance, count in zip(variances, counts, strict=True))
    return sum(variances) ** 2 / each if each > 0 else math.inf


def _resampled(xs: Sequence[Floats], index: NDArray[np.int64], resampling: Resampling) -> Floats:
    """Return the means of each resample, float (columns, resamples)."""
    means = []
    for counts in draw_counts(index, resampling):
        images = counts.sum(1)
        means.append([(counts @ x) / images for x in xs])
    return np.concatenate(means, axis=1)


def _at_least(found: Interval, half: float) -> Interval:
    """Return an interval whose ends are at least so far from its value, if it has any."""
    if found.undefined is not None:
        return found
    return replace(found, low=min(found.low, found.value - half), high=max(found.high, found.value + half))


def _of_the_same(found: Interval, resampling: Resampling) -> Interval:
    """Return the interval of a difference that is the same for all groups, if it has any; see the module."""
    if found.undefined is not None:
        return found
    more = found.groups + 1
    middle = found.value * (found.groups - 1) / more
    half = 2 * abs(found.value) / more * student(found.groups, resampling)
    return replace(found, low=min(middle - half, found.value), high=max(middle + half, found.value))


def _variance(x: NDArray[Any], index: NDArray[np.int64]) -> float:
    """Return the variance of the mean over groups; a group with many images draws the mean to itself."""
    weight = np.bincount(index) / len(x)
    off = np.bincount(index, weights=x - x.mean()) / len(x)
    return float(off @ (off / (1 - weight))) if len(weight) > 1 else 0.0


def _independent(has: NDArray[np.bool_], index: NDArray[np.int64], resampling: Resampling) -> float:
    """Return how many independent images would be as certain about a share: n_eff."""
    share, images = float(has.mean()), len(has)
    weight = np.bincount(index) / images
    groups, variance = float(1 / (weight @ weight)), _variance(has, index)
    if share in (0.0, 1.0) or variance == 0:
        return groups
    certain = (student(images - 1, resampling) / student(groups - 1, resampling)) ** 2
    return min(images, share * (1 - share) / variance * certain)


def _at(ordered: Floats, q: float) -> float:
    """Return the lowest value that at least a share q does not exceed."""
    place = math.ceil(round(q * len(ordered), 9))  # 0.07 * 100 is a little above 7
    return float(ordered[min(max(place, 1), len(ordered)) - 1])


def _too_few(value: float, index: NDArray[np.int64], resampling: Resampling) -> Interval:
    return Interval.without_ends(value, resampling.level, 0, group_count(index), "too few for an interval")
