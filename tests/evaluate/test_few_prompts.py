"""Intervals of agreement over few prompts: worked out by hand, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from mst_clipiqa.benchmark.over_prompts import interval_over_prompts
from mst_clipiqa.evaluate import bootstrap, pair_accuracy, paired_difference
from mst_clipiqa.evaluate.comparison import difference_over_prompts
from mst_clipiqa.evaluate.resampling import Resampling, draw_counts, freedom, widened

FACTOR = 2**0.5 * 12.7062 / 1.95996
"""For two prompts: sqrt(n / (n - 1)) and the 97.5 % points of Student's and the normal distribution."""
Images = tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]


def images(rng: np.random.Generator, prompts: int, each: int = 6) -> Images:
    """Return two predictors that are equally good, ratings and prompts; half of each variance is the prompt's."""
    groups = np.repeat(np.arange(prompts), each)

    def one() -> np.ndarray:
        return np.asarray(rng.normal(size=prompts)[groups] + rng.normal(size=len(groups)))

    mos = one()
    return 0.8 * mos + 0.6 * one(), 0.8 * mos + 0.6 * one(), mos, groups.tolist()


def test_resampled_values_are_moved_away_from_the_value() -> None:
    index, values = np.array([0, 0, 1]), np.array([0.4, 0.5, 0.7])
    assert widened(0.5, values, index, Resampling()) == pytest.approx(0.5 + FACTOR * (values - 0.5), abs=1e-4)
    many = widened(0.5, values, np.arange(1000), Resampling())
    assert many == pytest.approx(values, abs=1e-3)


def test_rmse_with_a_perfect_prompt_trusts_fewer_prompts_where_one_has_most_images_too() -> None:
    sizes, errors = [30, 1, 1, 1], np.array([0.0] * 30 + [1.0, 2.0, 3.0])
    groups = np.repeat(np.arange(4), sizes)
    found = bootstrap(errors, np.zeros(33), groups.tolist(), "rmse", how := Resampling(resamples=2000))
    values = np.concatenate([np.sqrt(c @ errors**2 / c.sum(axis=1)) for c in draw_counts(groups, how)])
    assert (values == 0).any()  # in resamples of the first prompt alone
    end = np.quantile(widened(found.value, values, groups, how, freedom(sizes)), 0.975)
    assert found.high == pytest.approx(end) and freedom(sizes) < 2


def test_rmse_of_two_prompts() -> None:
    found = bootstrap([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.1, 1.1], ["a", "a", "b", "b"], "rmse")
    value = (1.105) ** 0.5  # resamples reach 1 and 1.1
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((value * (value / 1.1) ** FACTOR, value * value**FACTOR), abs=1e-4)
    exact = bootstrap([1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.1, 2.1], ["a", "a", "b", "b"], "rmse")
    assert exact.low == 0 and exact.value < exact.high < 1  # a resample without any error: no ratio
    none = bootstrap([1.0, 2.0], [1.0, 2.0], None, "rmse")
    assert (none.low, none.high) == (0.0, 0.0)


@pytest.mark.parametrize("prompts", [5, 10])
def test_rmse_over_few_prompts_is_missed_as_often_on_either_side(prompts: int) -> None:
    rng, runs, how = np.random.default_rng(prompts), 400, Resampling(resamples=150)
    groups = np.repeat(np.arange(prompts), 4)
    above = below = 0
    for _ in range(runs):
        errors = rng.normal(size=prompts)[groups] / 2 + rng.normal(size=len(groups)) * 0.75**0.5
        found = bootstrap(errors, np.zeros(len(errors)), groups.tolist(), "rmse", how)
        above, below = above + (found.high < 1), below + (found.low > 1)  # the true RMSE is 1
    assert above / runs < 0.05 and below / runs < 0.05


@pytest.mark.parametrize("measure", ["rmse", "pairs"])
def test_prompts_with_most_images_are_not_trusted_as_if_they_were_many(measure: str) -> None:
    rng, runs, how = np.random.default_rng(0), 300, Resampling(resamples=100)
    sizes = [40, 24, 14, 8, 5, 3] + [2] * 18
    groups, missed = np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(runs):
        mos, errors = (rng.normal(size=len(sizes))[groups] + rng.normal(size=len(groups)) for _ in range(2))
        if measure == "rmse":
            whole, truth = bootstrap(errors, np.zeros(len(errors)), groups.tolist(), "rmse", how), 2**0.5
            low, high = whole.low, whole.high
        else:  # correlated at 1 / sqrt(2): three pairs of four are in order
            pairs, truth = pair_accuracy(mos + errors, mos, groups.tolist(), resampling=how), 0.75
            low, high = pairs.low, pairs.high
        missed += not low <= truth <= high
    assert missed / runs < 0.06


def test_an_interval_stays_within_what_is_possible() -> None:
    x, other, mos, groups = images(np.random.default_rng(0), 2)
    found = [bootstrap(x, mos, groups, measure) for measure in ("srcc", "plcc", "krcc")]
    found.append(interval_over_prompts([x, other], mos, [str(one) for one in groups]))
    assert all(-1 <= one.low < one.high <= 1 for one in found)
    assert bootstrap(x, mos, groups, "rmse").low >= 0
    accuracy = pair_accuracy(x, mos, groups)
    assert 0 <= accuracy.low < accuracy.high <= 1
    assert -2 <= paired_difference(x, -x, mos, groups).low < 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_of_a_few_images_is_not_certain(sign: int) -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    for measure in ("srcc", "krcc", "plcc"):
        found = bootstrap(x, sign * (x if measure == "plcc" else x**2), None, measure)
        assert found.value == pytest.approx(sign)
        assert found.undefined == f"every resample gives {sign} too"
        assert np.isnan([found.low, found.high]).all()
    assert np.isnan(interval_over_prompts([x, 2 * x], sign * x, ["a", "b", "c", "d"]).low)
    assert bootstrap(x, x**2, None, "plcc").undefined is None


def test_prompts_with_the_same_share_of_right_pairs_leave_it_uncertain() -> None:
    found = pair_accuracy([1.0, 2.0, 3.0, 4.0, 6.0, 5.0] * 2, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] * 2, ["a"] * 6 + ["b"] * 6)
    assert found.accuracy == pytest.approx(14 / 15)
    assert (found.low, found.high) == pytest.approx((0.1265, 1.0), abs=1e-4)  # of two trials


@pytest.mark.parametrize("prompts", [3, 4, 10])
@pytest.mark.parametrize("compare", ["splits", "one"])
def test_of_two_equal_predictors_none_is_better_more_often_than_it_says(prompts: int, compare: str) -> None:
    rng, runs, how = np.random.default_rng(prompts), 200, Resampling(resamples=150)
    named = 0
    for _ in range(runs):
        a, b, mos, groups = images(rng, prompts)
        if compare == "one":
            found = paired_difference(a, b, mos, groups, resampling=how)
        else:
            found = difference_over_prompts([a], [b], mos, [str(one) for one in groups], resampling=how)
        named += found.better is not None
    assert named / runs < 0.075
