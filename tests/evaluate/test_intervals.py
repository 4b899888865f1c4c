"""Bootstrap intervals over prompts, and paired comparison on the same resamples."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from mst_clipiqa import evaluate as ev
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate import means, measures, resampling, weighted

Floats = NDArray[np.float64]
MEASURES = ["srcc", "plcc", "krcc", "rmse"]


def rated(prompts: int, each: int, seed: int, of_prompt: float = 0.0) -> tuple[Floats, Floats, list[int]]:
    """Return predictions, scores and groups; ``of_prompt`` is the share of the error that a prompt's images share."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(prompts), each)
    mos = rng.normal(3, 1, len(groups))
    shared = rng.normal(0, 1, prompts)[groups]
    error = math.sqrt(of_prompt) * shared + math.sqrt(1 - of_prompt) * rng.normal(0, 1, len(groups))
    return mos + error, mos, groups.tolist()


@pytest.mark.parametrize("digits", [0, 6], ids=["ties", "different values"])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_resample_is_measured_as_if_it_were_written_out(measure: str, digits: int) -> None:
    x, y, groups = rated(12, 5, seed=1)
    x, y = np.round(x, digits), np.round(y, digits)
    index = resampling.group_index(groups, len(x))
    for counts in resampling.draw_counts(index, ev.Resampling(resamples=30)):
        values = weighted.measure_over(measure)(x, y, counts)
        for row, value in zip(counts, values, strict=True):
            written_out = np.repeat(np.arange(len(x)), row.astype(int))
            expected = getattr(measures, measure)(x[written_out], y[written_out])
            assert value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("measure", ["srcc", "plcc", "krcc"])
def test_rounding_makes_neither_a_correlation_of_equal_values_nor_one_above_1(measure: str) -> None:
    rng, over = np.random.default_rng(0), weighted.measure_over(measure)
    twice, other = np.repeat(rng.normal(3, 1, 50), 2), rng.normal(3, 1, 100)
    pairs, mixed = 3 * np.repeat(np.eye(50), 2, axis=1), rng.integers(1, 9, (50, 100)).astype(float)
    for x, y in ((twice, other), (other, twice)):  # in the first 50 resamples, one of them is the same everywhere
        assert np.isnan(over(x, y, np.concatenate([pairs, mixed]))).tolist() == [True] * 50 + [False] * 50
    assert (over(other, 3 * other + 0.1, mixed) <= 1).all()


def test_opposite_orders_differ_by_2() -> None:
    x, _, groups = rated(12, 1, seed=1)
    found = ev.paired_difference(-x, x, x, groups)
    assert (found.difference, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_draws_of_a_seed_stay() -> None:
    drawn = np.random.default_rng(3).integers(4, size=(50, 4))  # all at once
    expected = [[np.count_nonzero(row == group) for group in (0, 1, 0, 2, 3)] for row in drawn]
    (counts,) = resampling.draw_counts(np.array([0, 1, 0, 2, 3]), ev.Resampling(resamples=50, seed=3))
    assert np.array_equal(counts, expected)
    assert counts.flags.f_contiguous  # sums over images add up in this order: the last digit depends on it
    (alone,) = resampling.draw_counts(np.arange(4), ev.Resampling(resamples=50, seed=3))
    assert np.array_equal(alone, counts[:, [0, 1, 3, 4]])
    assert alone.flags.f_contiguous


def test_whole_prompts_are_drawn() -> None:
    index = resampling.group_index(["b", "a", "b", "c"], 4)
    assert index.tolist() == [0, 1, 0, 2]
    (counts,) = resampling.draw_counts(index, ev.Resampling(resamples=500))
    assert np.array_equal(counts[:, 0], counts[:, 2])  # the two images of "b" come and go together
    assert np.array_equal(counts[:, [0, 1, 3]].sum(axis=1), np.full(500, 3.0))
    assert counts[:, 1].mean() == pytest.approx(1.0, abs=0.1)


def test_the_memory_bound_does_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = rated(20, 5, seed=2)
    at_once = ev.bootstrap(x, y, groups, "plcc")
    monkeypatch.setattr(resampling, "COUNTS_AT_ONCE", 7 * len(x))
    in_pieces = ev.bootstrap(x, y, groups, "plcc")
    assert (in_pieces.low, in_pieces.high) == pytest.approx((at_once.low, at_once.high), abs=1e-12)


def test_images_that_share_a_prompt_make_the_interval_wider() -> None:
    x, y, groups = rated(60, 10, seed=3, of_prompt=0.9)
    by_prompt, by_image = ev.bootstrap(x, y, groups, "rmse"), ev.bootstrap(x, y, None, "rmse")
    assert by_prompt.groups == 60
    assert by_image.groups == 600
    assert by_prompt.high - by_prompt.low > 1.8 * (by_image.high - by_image.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = 1 / math.sqrt(2)  # plcc of mos and mos + noise of the same size
    held = 0
    for seed in range(200):
        x, y, groups = rated(60, 5, seed=100 + seed, of_prompt=0.5)
        found = ev.bootstrap(x, y, groups, "plcc", ev.Resampling(level=0.9, resamples=200))
        held += found.low <= truth <= found.high
    assert 0.83 <= held / 200 <= 0.95


@pytest.mark.parametrize("measure", MEASURES)
def test_same_seed_same_interval(measure: str) -> None:
    x, y, groups = rated(30, 4, seed=4)
    assert ev.bootstrap(x, y, groups, measure) == ev.bootstrap(x, y, groups, measure)
    assert ev.bootstrap(x, y, groups, measure) != ev.bootstrap(x, y, groups, measure, ev.Resampling(seed=1))
    found = ev.bootstrap(x, y, groups, measure)
    assert found.value == getattr(ev, measure)(x, y)
    assert found.low < found.value < found.high


def test_intervals_are_quick() -> None:
    x, y, groups = rated(60, 10, seed=5)
    start = time.perf_counter()
    for measure in MEASURES:
        ev.bootstrap(x, y, groups, measure)
    assert time.perf_counter() - start < 5  # 0.2 s on an idle core; a loop over resamples takes longer than this


@pytest.mark.parametrize(
    ("x", "y", "groups", "why"),
    [
        ([1, 1, 1, 1], [1, 2, 3, 4], [0, 0, 1, 1], "all 4 predictions are the same"),
        ([1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0], "an interval needs two prompt groups, got 1"),
        ([1], [1], [0], "a correlation needs two images, got 1"),
    ],
)
@pytest.mark.parametrize("measure", ["srcc", "plcc", "krcc"])
def test_an_interval_that_is_undefined_says_why(
    x: list[float], y: list[float], groups: list[int], why: str, measure: str
) -> None:
    found = ev.bootstrap(x, y, groups, measure)
    assert found.undefined == why
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_resamples_of_one_value_are_left_out_or_said() -> None:
    x, y = [3.1, 3.1, 3.1, 4.1, 4.1, 4.1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = ev.bootstrap(x, y, None, "plcc")  # one resample in 32 holds one prediction only
    assert found.undefined is None
    assert np.isfinite([found.low, found.high]).all()
    found = ev.bootstrap([0.1] * 9 + [0.7], range(10), [0] * 9 + [1], "plcc")  # here every other one does
    assert found.undefined is not None
    assert re.fullmatch(r"the measure is undefined in [45]\d\d of 1000 resamples", found.undefined)
    assert math.isnan(found.low)


def test_krcc_of_very_many_images_is_not_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MOST_FOR_KRCC", 100)
    x, y, groups = rated(30, 4, seed=6)
    found = ev.bootstrap(x, y, groups, "krcc")
    assert found.undefined == "KRCC is resampled for up to 100 images, got 120"
    assert found.value == ev.krcc(x, y)


def test_messages() -> None:
    with pytest.raises(UsageError, match="Expected one of the measures srcc, plcc, krcc, rmse, got 'mae'"):
        ev.bootstrap([1, 2], [1, 2], None, "mae")
    with pytest.raises(UsageError, match="Expected a level between 0 and 1 and at least one resample, got 95 and 10"):
        ev.Resampling(level=95, resamples=10)
    with pytest.raises(UsageError, match="and at least one resample, got 0\\.9 and 0"):
        ev.Resampling(level=0.9, resamples=0)
    assert ev.Resampling(resamples=1).resamples == 1
    with pytest.raises(DataError, match="Expected the prompt group of each of 2 images, got 3 groups"):
        ev.bootstrap([1, 2], [1, 2], [0, 1, 2])


# comparison -------------------------------------------------------------------------------------------------


def test_a_better_predictor_is_told_and_the_sentence_says_so() -> None:
    x, y, groups = rated(60, 8, seed=7)
    better = (x + y) / 2
    found = ev.paired_difference(x, better, y, groups)
    assert found.better == "b"
    assert found.difference == pytest.approx(ev.srcc(better, y) - ev.srcc(x, y))
    assert 0 < found.low < found.difference < found.high
    assert found.sentence == (
        f"B is better than A: SRCC {found.a:.3f} for A and {found.b:.3f} for B, difference {found.difference:+.3f} "
        f"(95 % interval {found.low:+.3f} to {found.high:+.3f})."
    )
    swapped = ev.paired_difference(better, x, y, groups)
    assert swapped.better == "a"
    assert swapped.sentence.startswith("A is better than B: SRCC")
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_less_error_is_better() -> None:
    x, y, groups = rated(60, 8, seed=8)
    found = ev.paired_difference(x, (x + y) / 2, y, groups, "rmse")
    assert found.difference < 0
    assert found.better == "b"
    assert found.sentence.startswith("B is better than A: RMSE")


def test_a_difference_within_chance_is_not_claimed() -> None:
    x, y, groups = rated(60, 8, seed=9)
    rng = np.random.default_rng(0)
    found = ev.paired_difference(y + rng.normal(0, 1, len(y)), y + rng.normal(0, 1, len(y)), y, groups)
    assert found.better is None
    assert found.low < 0 < found.high
    assert found.sentence.startswith("No measurable difference between A and B: SRCC")
    assert ev.paired_difference(x, x, y, groups).better is None


def test_pairing_makes_the_interval_narrower() -> None:
    x, y, groups = rated(60, 8, seed=10)
    other = x + np.random.default_rng(1).normal(0, 0.1, len(x))
    alone = [ev.bootstrap(p, y, groups) for p in (x, other)]
    found = ev.paired_difference(x, other, y, groups)
    assert found.high - found.low < 0.5 * min(a.high - a.low for a in alone)


def test_what_cannot_be_compared_is_said() -> None:
    found = ev.paired_difference([1, 1, 1], [1, 2, 3], [1, 2, 3], ["a", "b", "c"])
    assert found.better is None
    assert found.sentence == "A and B cannot be compared: SRCC is undefined for at least one of them."
    found = ev.paired_difference([1, 2, 4], [1, 3, 2], [1, 2, 3], ["a", "a", "a"])
    assert found.sentence == "A and B cannot be compared by SRCC: an interval needs two prompt groups, got 1."


@pytest.mark.parametrize("measure", ["srcc", "rmse"])
def test_the_better_one_leads_by_a_positive_number(measure: str) -> None:
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 5, 200)
    good, bad = (mos + rng.normal(0, noise, 200) for noise in (0.2, 2.0))
    for a, b, words in ((good, bad, "A is better than B"), (bad, good, "B is better than A")):
        sentence = ev.paired_difference(a, b, mos, None, measure).sentence
        assert sentence.startswith(words)
        assert "-" not in sentence


def test_the_difference_of_two_samples_is_as_uncertain_as_both_together() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(3.2, 0.5, 200), rng.normal(3.7, 1.0, 300)
    found = means.unpaired_difference(old, new)
    assert found.value == pytest.approx(new.mean() - old.mean())
    half = 1.96 * math.sqrt(old.var() / len(old) + new.var() / len(new))
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.15)
    assert found.groups == 200
    backwards = means.unpaired_difference(new, old)
    assert (backwards.low, backwards.high) == pytest.approx((-found.high, -found.low), abs=0.03)


def test_a_mean_and_a_quantile_are_as_uncertain_as_theory_says() -> None:
    x = np.random.default_rng(0).normal(3.2, 1.0, 400)
    mean, median = means.mean_interval(x), means.quantile_interval(x, 0.5)
    half = 1.96 * x.std() / 20
    assert (mean.value - mean.low, mean.high - mean.value) == pytest.approx((half, half), rel=0.15)
    assert median.high - median.low == pytest.approx(2 * half * math.sqrt(math.pi / 2), rel=0.35)
    assert {median.value, median.low, median.high} <= set(x)


def test_columns_that_share_resamples_get_the_intervals_they_get_alone() -> None:
    rng = np.random.default_rng(5)
    some, others = rng.normal(size=(2, 30))
    prompts = [place // 3 for place in range(30)]
    for groups in (None, prompts, [0] * 30):
        together = means.mean_intervals([some, others], groups, ev.Resampling(resamples=50, seed=1))
        alone = [means.mean_interval(values, groups, ev.Resampling(resamples=50, seed=1)) for values in (some, others)]
        assert str(together) == str(alone)  # NaN is not equal to itself
