"""Agreement, pairs, baseline, conformal: closed forms and scipy are the judges."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray
from scipy import stats

from mst_clipiqa import evaluate as ev
from mst_clipiqa.errors import DataError, UsageError

RNG = np.random.default_rng(0)
MOS = RNG.uniform(0, 5, 200)
PREDICTIONS = MOS + RNG.normal(0, 1, 200)
TIED = np.round(MOS), np.round(PREDICTIONS)


@pytest.mark.parametrize(("mos", "predictions"), [(MOS, PREDICTIONS), TIED], ids=["different values", "ties"])
def test_measures_are_those_of_scipy(mos: NDArray[np.float64], predictions: NDArray[np.float64]) -> None:
    assert ev.srcc(predictions, mos) == pytest.approx(stats.spearmanr(predictions, mos).statistic, abs=1e-12)
    assert ev.plcc(predictions, mos) == pytest.approx(stats.pearsonr(predictions, mos).statistic, abs=1e-12)
    assert ev.krcc(predictions, mos) == pytest.approx(stats.kendalltau(predictions, mos).statistic, abs=1e-12)
    assert ev.rmse(predictions, mos) == pytest.approx(math.sqrt(np.mean((predictions - mos) ** 2)), abs=1e-12)


def test_measures_in_closed_form() -> None:
    assert ev.srcc([1, 2, 3, 4], [10, 20, 40, 80]) == pytest.approx(1.0)
    assert ev.srcc([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert ev.srcc([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(3 / math.sqrt(10))  # the tie counts as rank 2.5
    assert ev.plcc([0, 0, 1, 1], [0, 1, 0, 1]) == 0.0
    assert ev.krcc([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert ev.krcc([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert ev.rmse([1, 2], [4, 6]) == pytest.approx(math.sqrt(12.5))


@pytest.mark.parametrize(
    ("predictions", "mos", "why"),
    [
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "all 3 predictions are the same"),
        ([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0], "all 3 predictions are the same"),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0], "all 3 ratings are the same"),
        ([1.0], [1.0], "a correlation needs two images, got 1"),
        ([], [], "a correlation needs two images, got 0"),
    ],
)
def test_what_is_undefined_is_nan_and_says_why(predictions: list[float], mos: list[float], why: str) -> None:
    found = ev.agreement(predictions, mos)
    assert found.undefined == why == ev.why_undefined(predictions, mos)
    assert all(math.isnan(value) for value in (found.srcc, found.plcc, found.krcc, found.plcc_logistic4))
    assert math.isnan(found.rmse) == (not mos)


def test_small_differences_on_a_large_offset_are_not_called_constant() -> None:
    assert ev.plcc([1000.001, 1000.002, 1000.003], [1, 2, 3]) == pytest.approx(1.0)
    assert ev.srcc([1e-9, 2e-9, 3e-9], [1, 2, 3]) == pytest.approx(1.0)


def test_what_does_not_belong_together_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Expected one prediction per rating, got shapes \(2,\) and \(3,\)"):
        ev.srcc([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match=r"Expected finite predictions, got nan at position 1 \(2 in all\)"):
        ev.rmse([1, math.nan, math.inf], [1, 2, 3])
    with pytest.raises(DataError, match="Expected finite ratings, got inf at position 0"):
        ev.plcc([1, 2], [math.inf, 2])


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("fit", [ev.plcc_logistic4, ev.plcc_logistic5])
def test_a_logistic_curve_is_fitted_away(fit: Callable[..., float], direction: int) -> None:
    x = np.linspace(-4, 6, 80)
    mos = 1 + 3 / (1 + np.exp(-direction * (x - 1) / 0.7))
    assert abs(ev.plcc(x, mos)) < 0.96
    assert fit(x, mos) == pytest.approx(1.0, abs=1e-6)
    assert fit(1000 * x + 500, mos / 100) == pytest.approx(1.0, abs=1e-6)  # whatever the units


def test_a_logistic_fit_does_not_lose_against_none() -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        mos = rng.uniform(0, 5, 60)
        predictions = mos + rng.normal(0, 1.5, 60)
        assert ev.plcc_logistic4(predictions, mos) >= ev.plcc(predictions, mos) - 1e-6
        assert ev.plcc_logistic5(predictions, mos) >= ev.plcc_logistic4(predictions, mos) - 1e-3


@pytest.mark.parametrize("noise", [0.3, 1.0, 6.0])
def test_a_logistic_fit_finds_the_best_curve(noise: float) -> None:
    """SciPy's fit of all four parameters at once, begun from many places, finds no better one."""
    rng = np.random.default_rng(3)
    x = rng.normal(3, 1, 200)
    mos = 5 / (1 + np.exp(-2 * (x - 3))) + rng.normal(0, noise, 200)
    found, best = ev.plcc_logistic4(x, mos), 0.0
    for slope in (0.1, 0.5, 2.0, 8.0):
        for middle in (1.0, 3.0, 5.0):
            start = [5 / slope, slope, middle, 2.5 - 2.5 / slope]
            curve = scipy.optimize.least_squares(lambda b: _logistic(x, b) - mos, start, method="lm", max_nfev=300).x
            best = max(best, abs(ev.plcc(_logistic(x, curve), mos)))
    assert found == pytest.approx(best, abs=1e-4)


def test_a_nearly_straight_relation_keeps_its_plcc() -> None:
    """The four parameters grow without bound here, and a search over all of them stops before it converges."""
    x = np.linspace(1, 5, 50)
    mos = 0.8 * x + np.tile([0.2, -0.2], 25)
    for fit in (ev.plcc_logistic4, ev.plcc_logistic5):
        assert ev.plcc(x, mos) - 1e-6 < fit(x, mos) < ev.plcc(x, mos) + 0.001


def test_where_a_curve_saturates_nothing_but_rounding_is_no_fit() -> None:
    x = np.array([-1e3, *np.linspace(0, 1, 20)])
    mos = np.array([3.0, *np.tile([2.0, 4.0], 10)])
    assert 0 <= ev.plcc_logistic4(x, mos) < 0.6


def test_a_logistic_fit_is_no_worse_where_the_curve_has_to_jump() -> None:
    """Predictions form two lumps: a curve that tells only these apart is among those that are searched."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, mos = np.concatenate([rng.normal(0, 0.1, 10), rng.normal(3, 0.1, 10)]), rng.normal(size=20)
        jump = abs(ev.plcc(x > 1.5, mos))
        for fit in (ev.plcc_logistic4, ev.plcc_logistic5):
            assert fit(x, mos) > jump - 1e-6


def test_a_logistic_fit_of_a_straight_line_is_at_most_1() -> None:
    for seed in range(50):
        x = np.random.default_rng(seed).normal(size=6)
        assert 1 - 1e-6 < ev.plcc_logistic5(x, 2 * x + 1) <= 1


def _logistic(x: Any, b: Any) -> Any:
    return b[0] / (1 + np.exp(-np.clip(b[1] * (x - b[2]), -500, 500))) + b[3]


def test_too_few_images_for_a_logistic_fit() -> None:
    assert math.isnan(ev.plcc_logistic4([1, 2, 3, 4], [1, 2, 3, 5]))
    assert math.isnan(ev.plcc_logistic5([1, 2, 3, 4, 5], [1, 2, 3, 5, 6]))


# pairs ------------------------------------------------------------------------------------------------------


def test_pairs_are_counted_within_prompts() -> None:
    # prompt a: 3 pairs, of which 2 are right; prompt b: 1 pair, wrong; pairs across prompts do not count
    found = ev.pair_accuracy([1, 3, 2, 9, 8], [1, 2, 3, 1, 2], ["a", "a", "a", "b", "b"])
    assert found.pairs == 4
    assert found.groups == 2
    assert found.accuracy == pytest.approx(2 / 4)


def test_pairs_that_raters_do_not_tell_apart_are_left_out() -> None:
    predictions, mos = [1, 2, 3], [1.0, 1.0, 1.5]
    assert ev.pair_accuracy(predictions, mos, ["a"] * 3).pairs == 2
    assert ev.pair_accuracy(predictions, mos, ["a"] * 3, threshold=0.4).pairs == 2
    assert ev.pair_accuracy(predictions, mos, ["a"] * 3, threshold=0.5).pairs == 0  # more than, not at least


def test_a_tie_of_the_predictions_is_half_a_hit() -> None:
    assert ev.pair_accuracy([2, 2], [1, 3], ["a", "a"]).accuracy == 0.5


def test_no_pairs_is_said() -> None:
    found = ev.pair_accuracy([1, 2], [1, 3], ["a", "b"])
    assert math.isnan(found.accuracy)
    assert found.undefined == "no two images of one prompt differ by more than 0 in rating"


def test_pairs_match_a_plain_count() -> None:
    groups = [f"p{i % 17}" for i in range(200)]
    hits = [
        (PREDICTIONS[i] > PREDICTIONS[j]) == (MOS[i] > MOS[j])
        for i, j in itertools.combinations(range(200), 2)
        if groups[i] == groups[j] and abs(MOS[i] - MOS[j]) > 0.5
    ]
    found = ev.pair_accuracy(PREDICTIONS, MOS, groups, threshold=0.5)
    assert found.pairs == len(hits)
    assert found.accuracy == pytest.approx(np.mean(hits))
    assert found.low < found.accuracy < found.high


# baseline and conformal -------------------------------------------------------------------------------------


def test_the_baseline_is_the_mean_of_the_generator() -> None:
    predicted = ev.generator_mean([1, 3, 5], ["a", "a", "b"], ["b", "a", "unknown"])
    assert predicted.tolist() == [5, 2, 3]
    with pytest.raises(DataError, match="Expected one generator per training image, got 2 ratings and 1"):
        ev.generator_mean([1, 2], ["a"], ["a"])


def test_the_conformal_half_width_has_the_finite_sample_correction() -> None:
    residuals = [0.1, -0.2, 0.3, -0.4, 0.5, 0.6, 0.7, 0.8, -0.9]
    assert ev.conformal_halfwidth(residuals, 0.9) == 0.9  # rank ceil(10 * 0.9) = 9 of 9; the plain quantile is 0.8
    assert ev.conformal_halfwidth(residuals, 0.8) == 0.8
    assert ev.conformal_halfwidth(residuals, 0.5) == 0.5
    assert ev.conformal_halfwidth(residuals[:8], 0.9) == math.inf  # eight cannot promise nine in ten
    assert ev.conformal_halfwidth(np.arange(1, 100), 0.55) == 55  # 100 * 0.55 is 55.00000000000001 in floats


def test_the_conformal_half_width_covers_what_it_promises() -> None:
    rng = np.random.default_rng(3)
    residuals = rng.standard_t(3, size=(4000, 21))  # 20 to calibrate on, 1 new one
    covered = [abs(row[20]) <= ev.conformal_halfwidth(row[:20], 0.9) for row in residuals]
    assert np.mean(covered) == pytest.approx(19 / 21, abs=0.015)  # exact: ceil(21 * 0.9) / 21


def test_coverage_counts_both_ends() -> None:
    assert ev.interval_coverage([1, 2, 3, 4], [1, 0, 3.5, 0], [2, 2, 5, 3]) == 0.5
    assert ev.interval_coverage([1, 2, 3, 4], 2, 3) == 0.5
    assert ev.interval_coverage([1, 2], [0, 0], [math.inf, 1]) == 0.5


def test_conformal_messages() -> None:
    with pytest.raises(UsageError, match="Expected a coverage between 0 and 1, got 90"):
        ev.conformal_halfwidth([1], 90)
    with pytest.raises(DataError, match="Expected finite residuals of at least one image"):
        ev.conformal_halfwidth([])
    with pytest.raises(DataError, match=r"Expected an interval per rating \(3\), got ends of shapes \(2,\) and \(3,\)"):
        ev.interval_coverage([1, 2, 3], [0, 0], [1, 1, 1])
    with pytest.raises(DataError, match="got NaN"):
        ev.interval_coverage([1], [math.nan], [1])


# all together -----------------------------------------------------------------------------------------------


def test_evaluate_reports_everything_and_turns_into_json() -> None:
    groups = [f"p{i // 10}" for i in range(200)]
    generators = ["good" if i % 2 else "bad" for i in range(200)]
    extras = ev.Extras({"generator": generators, "style": ["", *["x"] * 199]}, (PREDICTIONS - 1, PREDICTIONS + 1), 0.5)
    found = ev.evaluate(PREDICTIONS, MOS, groups, extras)
    assert found.agreement == ev.agreement(PREDICTIONS, MOS)
    assert found.groups == 20
    assert set(found.intervals) == {"srcc", "plcc", "krcc", "rmse"}
    bad, good = found.tables["generator"]
    assert (bad.label, good.label, bad.agreement.n) == ("bad", "good", 100)
    assert bad.agreement == ev.agreement(PREDICTIONS[::2], MOS[::2])
    assert bad.mean_mos == pytest.approx(MOS[::2].mean())
    assert bad.mean_prediction == pytest.approx(PREDICTIONS[::2].mean())
    assert found.pairs == ev.pair_accuracy(PREDICTIONS, MOS, groups, 0.5)
    assert found.coverage == pytest.approx(np.mean(np.abs(PREDICTIONS - MOS) <= 1))
    report = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert report["agreement"]["srcc"] == found.agreement.srcc
    assert report["tables"]["style"][0]["agreement"]["srcc"] is None  # one image has no correlation
    assert report["tables"]["style"][0]["agreement"]["undefined"] == "a correlation needs two images, got 1"


def test_evaluate_without_groups_has_no_pairs() -> None:
    found = ev.evaluate(PREDICTIONS, MOS)
    assert found.pairs is None
    assert found.coverage is None
    assert found.groups == 200


def test_evaluate_messages() -> None:
    with pytest.raises(DataError, match="Expected predictions to evaluate, got none"):
        ev.evaluate([], [])
    with pytest.raises(DataError, match="Expected one label for each of 2 images, got 1"):
        ev.table([1, 2], [1, 2], ["a"])
    with pytest.raises(DataError, match="Expected the prompt group of each of 2 images, got 1 groups"):
        ev.evaluate([1, 2], [1, 2], ["a"])


def test_preferences_count_pairs_by_hand() -> None:
    gaps = [0.5, -0.1, 0.0, 2.0, -3.0]
    found = ev.preference_accuracy(gaps, [1, 1, 0, 0.5, 0], ["x", "x", "y", "z", "z"])
    assert (found.accuracy, found.pairs, found.groups) == ((1 + 0 + 0.5 + 1) / 4, 4, 3)  # the tie is left out
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    turned = ev.preference_accuracy([-gap for gap in gaps], [0, 0, 1, 0.5, 1], ["x", "x", "y", "z", "z"])
    assert turned == found
    none = ev.preference_accuracy([1.0], [0.5], ["x"])
    assert (none.pairs, none.undefined) == (0, "people had no preference in any pair")


def test_an_interval_of_pairs_that_are_all_right_is_that_of_a_binomial_with_a_trial_per_prompt() -> None:
    for gap, low, high in ((1.0, 0.025**0.25, 1.0), (-1.0, 0.0, 1 - 0.025**0.25)):  # Clopper and Pearson, 4 of 4
        found = ev.preference_accuracy([gap] * 8, [1] * 8, list("aabbccdd"))
        assert [found.low, found.high] == pytest.approx([low, high])
    assert math.isnan(ev.preference_accuracy([1.0], [1], ["a"]).high)  # one prompt: no interval at all
    for gap in (1.0, -1.0):
        one = ev.preference_accuracy([gap], [1], ["a"])
        assert math.isnan(one.low)
        assert math.isnan(one.high)
        assert one.undefined == "an interval needs two prompt groups, got 1"


def test_the_interval_of_preferences_resamples_prompts() -> None:
    # In one prompt all 50 pairs are right, in the other none: only the two prompts count, not the 100 pairs.
    right = ev.preference_accuracy([1.0] * 100, [1] * 50 + [0] * 50, ["a"] * 50 + ["b"] * 50)
    assert (right.accuracy, right.low, right.high) == (0.5, 0.0, 1.0)
