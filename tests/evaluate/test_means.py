"""means: intervals over few prompts, over prompts of unequal size, and at high levels miss as often as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mst_clipiqa.evaluate.means import (
    mean_differences,
    mean_interval,
    quantile_interval,
    share_interval,
    unpaired_difference,
)
from mst_clipiqa.evaluate.resampling import Resampling, binomial_ends, freedom

ONE_PROMPT_HAS_MOST = ["a"] * 90 + [f"b{i}" for i in range(10)]


@pytest.mark.parametrize("level", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("prompts", [2, 3, 4, 6])
def test_a_mean_of_few_prompts_reaches_as_far_as_students_interval(level: float, prompts: int) -> None:
    values = np.random.default_rng(prompts).normal(size=prompts)
    found = mean_interval(values, resampling=Resampling(level, 500))
    low, high = stats.t.interval(level, prompts - 1, values.mean(), values.std(ddof=1) / prompts**0.5)
    assert found.low <= low + 1e-9
    assert found.high >= high - 1e-9


def test_a_high_level_is_kept_over_few_prompts() -> None:
    rng, runs, how = np.random.default_rng(0), 1200, Resampling(0.99, 50)
    found = [mean_interval(rng.normal(size=4), resampling=how) for _ in range(runs)]
    assert sum(one.low > 0 or one.high < 0 for one in found) / runs < 0.015


@pytest.mark.parametrize("many", [20, 200])
def test_two_prompts_beside_many_are_not_trusted_as_if_they_were_many(many: int) -> None:
    rng, runs, how = np.random.default_rng(0), 1000 if many < 50 else 400, Resampling(resamples=100)
    found = [unpaired_difference(rng.normal(size=2), rng.normal(size=many), resampling=how) for _ in range(runs)]
    assert sum(one.low > 0 or one.high < 0 for one in found) / runs < 0.06


def test_a_prompt_with_most_images_leaves_a_share_and_a_quantile_uncertain() -> None:
    reach = np.array([True] * 89 + [False] + [True, False] * 5)
    found = share_interval(reach, ONE_PROMPT_HAS_MOST)
    assert (found.low, found.high) == (0.0, 1.0)  # of eleven prompts, nearly all that is seen is one
    assert share_interval(reach).low > 0.85  # of a hundred
    assert quantile_interval(np.arange(100.0), 0.5, ONE_PROMPT_HAS_MOST).undefined == "too few for an interval"


@pytest.mark.parametrize("largest", [20, 180])
def test_a_share_misses_as_seldom_where_one_prompt_is_larger(largest: int) -> None:
    rng, runs, prompts = np.random.default_rng(3), 400, 20
    index = np.repeat(np.arange(prompts), [largest] + [1] * (prompts - 1))
    missed = 0
    for _ in range(runs):
        values = rng.normal(size=prompts)[index] + rng.normal(size=len(index))  # half of the variance is the prompt's
        found = share_interval(values > 0, index.tolist())
        missed += not found.low <= 0.5 <= found.high
    assert missed / runs < 0.06


@pytest.mark.parametrize("sizes", [[50, 50, 50] + [1] * 60, [40, 24, 14, 8, 5, 3, 1] + [1] * 17, [4] * 12])
def test_a_mean_misses_as_seldom_where_a_few_prompts_have_most_images(sizes: list[int]) -> None:
    rng, runs, how = np.random.default_rng(4), 500, Resampling(resamples=100)
    index = np.repeat(np.arange(len(sizes)), sizes)
    missed = 0
    for _ in range(runs):
        values = rng.normal(size=len(sizes))[index] + rng.normal(size=len(index))
        found = mean_interval(values, index.tolist(), how)
        missed += not found.low <= 0 <= found.high
    assert missed / runs < 0.06


def test_prompts_with_more_images_leave_fewer_degrees_of_freedom() -> None:
    w = np.array([5, 3, 1, 1]) / 10
    off = np.eye(4) - np.outer(np.ones(4), w)
    spread = off.T @ np.diag(w**2 / (1 - w)) @ off
    assert freedom([5, 3, 1, 1]) == pytest.approx(np.trace(spread) ** 2 / np.trace(spread @ spread))
    assert [freedom(sizes) for sizes in ([], [9], [1, 1], [7, 1], [4] * 12)] == [0, 0, 1, 1, 11]
    assert freedom([10**6] + [1] * 50) == pytest.approx(1, abs=1e-3)


def test_nothing_is_drawn_for_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mst_clipiqa.evaluate.means.draw_counts", None)
    found = mean_interval([1.0, 2.0], ["a", "a"])
    assert (found.value, found.resamples, found.groups) == (1.5, 1000, 1)
    assert found.undefined == "an interval needs two prompt groups, got 1"


@pytest.mark.parametrize("hits", [0, 1, 5, 9, 10])
def test_the_ends_of_a_share_of_few_trials_are_those_of_clopper_and_pearson(hits: int) -> None:
    exact = stats.binomtest(hits, 10).proportion_ci(0.9, method="exact")
    assert binomial_ends(hits, 10 - hits, Resampling(level=0.9)) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_a_difference_that_is_the_same_for_all_prompts_is_as_certain_as_with_one_prompt_to_the_contrary() -> None:
    for n in (2, 5, 6, 20):
        (found,) = mean_differences([[-1.0] * n])
        against = np.array([-1.0] * n + [1.0])
        half = stats.t.ppf(0.975, n) * against.std(ddof=1) / (n + 1) ** 0.5
        assert (found.value, found.groups) == (-1.0, n)
        assert (found.low, found.high) == pytest.approx((against.mean() - half, against.mean() + half))
        assert (found.high < 0) == (stats.binomtest(n, n).pvalue < 0.05)  # as for a sign test
        assert unpaired_difference([3.0] * n, [2.0] * (n + 1)) == replace(found, resamples=1000)
    (same,) = mean_differences([[0.0] * 4])
    assert (same.low, same.high) == (0.0, 0.0)  # two tables of the same scores
    (lone,) = mean_differences([[1.0]])
    assert lone.undefined is not None
    (alike,) = mean_differences([[0.5, 0.5, 0.5]], ["a", "a", "b"], Resampling(level=0.5))
    assert alike.low <= 0.5 <= alike.high  # Student's end alone would be below


@pytest.mark.parametrize("prompts", [2, 3, 4, 6])
def test_whole_numbers_differ_by_chance_no_more_often_than_the_level_says(prompts: int) -> None:
    rng, runs, how = np.random.default_rng(0), 600, Resampling(resamples=200)
    found = [mean_differences([rng.integers(-1, 2, prompts)], resampling=how)[0] for _ in range(runs)]
    assert sum(one.low > 0 or one.high < 0 for one in found) / runs < 0.09  # 0.22 over two, if equal ones are certain
