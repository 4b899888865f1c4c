"""gate: means, quantiles, shares and intervals worked out by hand; nothing passes for want of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mst_clipiqa.analysis.drift import drift
from mst_clipiqa.analysis.gate import Checked, check_failures, check_not_worse, check_scored, is_worse
from mst_clipiqa.analysis.thresholds import Measure, Threshold, check_thresholds, parse_threshold
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate.means import mean_interval, quantile_interval, share_interval, unpaired_difference
from mst_clipiqa.evaluate.resampling import Resampling


def rows(*cells: tuple[str, float | None], **more: Any) -> list[dict[str, Any]]:
    return [{"file": f"{i}.png", "prompt": p, "quality": q, "status": "ok", **more} for i, (p, q) in enumerate(cells)]


WIDER = 1.5**0.5 * 4.30265 / 1.95996
"""For three prompts: sqrt(n / (n - 1)) and the 97.5 % points of Student's and the normal distribution."""
FOUR = rows(("cat", 1.0), ("cat", 2.0), ("dog", 3.0), ("owl", 4.0))
WORSE = rows(("cat", 0.5625), ("cat", 1.5625), ("dog", 2.5), ("owl", 3.4375))
"""Each of the three prompts is worse, by -0.5 on average; the ends are 1/16 ``WIDER`` from it."""
FAILED = {"file": "e.png", "prompt": "cat", "status": "error", "reason": "cut off"}


def one(table: Sequence[dict[str, Any]], words: str, measure: Measure = "mean", **how: Any) -> Checked:
    return check_thresholds(table, [parse_threshold(measure, words)], **how)[0]


def test_a_mean_is_over_images_and_its_interval_over_prompts() -> None:
    found = one(FOUR, "quality=2.5")
    end = stats.t.ppf(0.975, 1.6)  # cat has half of the images, so there are fewer than two degrees of freedom
    # A resample of three prompts is all owl (4) in 1 of 27 cases, more than 2.5 %. None is below cat (1.5), which is
    # nearer than Student's end: cat, dog and owl have 2, 1 and 1 of four images, and are off by -2, 0.5 and 1.5 in all.
    deviation = ((2**2 / (1 - 1 / 2) + 0.5**2 / (1 - 1 / 4) + 1.5**2 / (1 - 1 / 4)) / 4**2) ** 0.5
    wider = WIDER / 4.30265 * end
    assert (found.low, found.high) == pytest.approx((2.5 - end * deviation, 2.5 + 1.5 * wider), abs=1e-4)
    assert (found.passed, found.value) == (True, 2.5)
    assert found.sentence == "mean quality is 2.50 (95 % -2.14 to 7.67 over 3 prompts), at least 2.5"
    above = one(FOUR, "quality=2.501")
    assert above.sentence == "mean quality is 2.50 (95 % -2.14 to 7.67 over 3 prompts), below 2.501"
    assert not above.passed


def test_a_value_just_below_its_limit_does_not_look_equal() -> None:
    assert one(rows(("a", 2.7996), ("b", 2.7996)), "quality=2.8").sentence.startswith("mean quality is 2.7996 (")


def test_confident_asks_the_lower_end() -> None:
    assert one(FOUR, "quality=-2.15", confident=True).passed
    found = one(FOUR, "quality=-2.14", confident=True)
    assert (found.passed, one(FOUR, "quality=-2.14").passed) == (False, True)
    assert found.sentence.endswith("over 3 prompts), but not certainly at least -2.14")


def test_a_lower_end_at_the_limit_passes() -> None:
    assert one(rows(("cat", 3.0), ("dog", 3.0)), "quality=3", confident=True).passed


def test_one_prompt_has_no_interval_and_is_never_certain() -> None:
    alone = rows(("cat", 3.0), ("cat", 4.0))
    assert (
        one(alone, "quality=1").sentence == "mean quality is 3.50 (over 1 prompt, too few for an interval), at least 1"
    )
    assert not one(alone, "quality=1", confident=True).passed


def test_images_without_a_prompt_are_resampled_one_by_one() -> None:
    table = [{**row, "prompt": ""} for row in FOUR]
    assert "over 4 images" in one(table, "quality=1").sentence
    assert "over 3 prompts or images" in one([*FOUR[:2], *table[2:]], "quality=1").sentence  # one prompt, two images


@pytest.mark.parametrize(("q", "value"), [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (1.0, 4.0)])
def test_a_quantile_is_one_of_the_values(q: float, value: float) -> None:
    found = one(FOUR, f"quality:{q}=2", "quantile")
    assert (found.value, found.passed) == (value, value >= 2)
    assert f"the {100 * q:g} % quantile of quality is {value:.2f}" in found.sentence


def test_a_share_counts_images_that_reach_the_value() -> None:
    found = one(FOUR, "quality:2=0.75", "share")
    assert (found.passed, found.value) == (True, 0.75)
    assert found.sentence.startswith("75 % of the images reach quality 2 (95 % ")
    assert found.sentence.endswith("over 3 prompts), at least 75 %")
    assert not one(FOUR, "quality:2=0.76", "share").passed


def test_rows_without_the_score_are_said_and_none_is_a_failure() -> None:
    table = [*FOUR, FAILED, *rows(("fox", None))]
    assert one(table, "quality=2").sentence.endswith("over 3 prompts; 1 without it left out), at least 2")
    assert one(rows(("a", None)), "quality=0").sentence == "no row has a value of quality"
    assert not one(rows(("a", None)), "quality=0").passed
    assert not one([], "quality=0").passed
    with pytest.raises(UsageError, match=r"Expected a column 'qualty' in the table.*did you mean 'quality'"):
        one(FOUR, "qualty=1")


def test_a_score_of_zero_is_a_score() -> None:
    assert one(rows(("cat", 0.0), ("dog", 2.0)), "quality=1").value == 1.0


def test_frames_of_an_image_count_once() -> None:
    frames = [
        {"file": "a.gif", "prompt": "", "quality": q, "status": "ok", "frame": i} for i, q in enumerate((1.0, 2.0))
    ]
    found = one([*frames, *rows(("", 4.0))], "quality=1")
    assert found.value == 2.75


def test_failures_are_counted_in_rows_or_percent() -> None:
    table = [*FOUR[:3], FAILED]
    found = check_failures(table, "0")
    assert (found.passed, found.sentence) == (False, "1 of 4 rows failed, at most 0 allowed")
    assert check_failures(table, "1").passed
    assert check_failures(table, "25%").passed
    assert not check_failures(table, "24.9 %").passed
    assert check_failures([FAILED] * 29 + FOUR[:1] * 71, "29%").passed  # in floats, 29 % of 100 is less than 29
    assert not check_failures([], "5").passed
    assert check_scored(table, 3).passed
    assert check_scored(table, 4).sentence == "3 rows are scored, at least 4 required"
    assert not check_scored(table, 4).passed


def test_rows_without_the_score_do_not_count() -> None:
    table: list[dict[str, Any]] = [
        {"file": "a.png", "quality": 3.0, "correspondence": 2.0, "status": "ok"},
        {"file": "b.png", "quality": 3.0, "correspondence": None, "status": "ok"},
        {"file": "c.png", "quality": None, "correspondence": "", "status": "ok"},
    ]
    assert check_scored(table, 2).value == 2  # any score will do
    assert check_scored(table, 2, ["quality"]).passed
    found = check_scored(table, 2, ["quality", "correspondence"])
    assert (found.passed, found.value) == (False, 1)
    assert found.sentence == "1 row has a value of correspondence, at least 2 required"
    assert check_scored([{"file": "a.png", "size": 3}], 1).passed  # a table without scores
    assert check_scored([{"file": "a.png", "quality": None, "authenticity": 3.0}], 1).passed  # of another target


def test_a_percentage_is_needed_in_the_right_form() -> None:
    with pytest.raises(
        UsageError, match="Expected --max-failed as a number or a percentage, such as 0 or 2%, got '-1'"
    ):
        check_failures(FOUR, "-1")


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        *[("mean", words) for words in ("quality", "=2", "quality=x", "quality=nan")],
        *[("quantile", words) for words in ("quality=2", "quality:10=2", "quality:1.5=2", "quality:-0.1=2")],
        *[("share", words) for words in ("quality:2.5=90", "quality:2.5=1.5", ":2=0.5")],
    ],
)
def test_a_condition_of_another_form_is_refused(measure: Measure, words: str) -> None:
    with pytest.raises(UsageError, match=f"Expected --min-{measure} COLUMN.*such as quality.*got '{words}'"):
        parse_threshold(measure, words)


def test_a_column_may_have_a_colon() -> None:
    assert parse_threshold("share", "a:b:2.5=0.9") == Threshold("share", "a:b", 0.9, 2.5)


def better(by: float) -> list[dict[str, Any]]:
    return [{**row, "quality": row["quality"] + by} for row in FOUR]


def test_not_worse_pairs_prompts_and_says_no_more_than_it_measured() -> None:
    (found,) = check_not_worse(FOUR, WORSE, "old.csv")
    assert str(found.limit) == "0.0"  # and not -0.0
    assert (found.passed, found.value) == (False, -0.5)
    assert found.sentence == "quality is worse than in old.csv by 0.50 (95 % 0.33 to 0.67) over 3 prompts"
    (found,) = check_not_worse(FOUR, rows(("cat", 2.5), ("dog", 2.0), ("owl", 4.0)), "old.csv")
    assert found.passed
    assert found.sentence == (
        "quality is not measurably worse than in old.csv: 0.00 (95 % -2.69 to 2.69) over 3 prompts"
    )


def test_a_margin_asks_for_evidence() -> None:
    new = rows(("cat", 2.5), ("dog", 2.0), ("owl", 4.0))
    (found,) = check_not_worse(FOUR, new, "old", margin=0.9)
    assert (found.passed, found.limit) == (False, -0.9)
    assert (
        found.sentence == "quality may be worse than in old by more than 0.9: 0.00 (95 % -2.69 to 2.69) over 3 prompts"
    )
    assert check_not_worse(FOUR, new, "old", margin=2.7)[0].passed
    assert check_not_worse(FOUR, WORSE, "old", margin=0.67)[0].passed  # worse, but by no more than allowed
    assert not check_not_worse(FOUR, WORSE, "old", margin=0.66)[0].passed


@pytest.mark.parametrize(
    ("prompts", "least", "most"), [(100, 0.01, 0.045), (10, 0.01, 0.045), (3, 0.01, 0.045), (2, 0.01, 0.055)]
)
def test_how_often_an_unchanged_generator_fails(prompts: int, least: float, most: float) -> None:
    rng, runs, how = np.random.default_rng(0), 600, Resampling(resamples=300)
    failed = sum(mean_interval(rng.normal(0, 1, prompts), resampling=how).high < 0 for _ in range(runs))
    assert least < failed / runs < most  # docs/gate.md: about one of 40


def test_a_score_that_is_no_longer_there_fails() -> None:
    old = [{**row, "correspondence": 3.0} for row in FOUR]
    quality, found = check_not_worse(old, FOUR, "old")
    assert (quality.passed, found.passed, found.value) == (True, False, None)
    assert str(found.limit) == str(quality.limit) == "0.0"  # not -0.0
    assert found.sentence == "nothing can be compared with the correspondence in old"
    elsewhere = [*FOUR, {**old[0], "prompt": "a fox"}]  # it has one, but of none of the old prompts
    assert [one.passed for one in check_not_worse(old, elsewhere, "old")] == [True, False]
    assert [one.passed for one in check_not_worse(FOUR, old, "old")] == [True]  # nothing to be worse than


@pytest.mark.parametrize("new", [[], [{**FAILED, "quality": None}], [{**row, "quality": None} for row in FOUR]])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_a_new_table_without_any_score_fails(new: list[dict[str, Any]], margin: float | None) -> None:
    (found,) = check_not_worse(FOUR, new, "old", margin=margin)
    assert (found.passed, found.sentence) == (False, "nothing can be compared with the quality in old")


def test_two_tables_without_any_score_cannot_be_checked() -> None:
    with pytest.raises(DataError, match="Expected values of quality or correspondence"):
        check_not_worse([FAILED], [FAILED], "old")


def test_one_prompt_is_too_few_to_pass() -> None:
    (found,) = check_not_worse(rows(("a", 1.0)), rows(("a", 5.0)), "old")
    assert not found.passed
    assert found.sentence == "unknown whether quality is worse than in old: over 1 prompt, too few for an interval"


def test_a_change_that_cannot_be_told_counts_as_worse() -> None:
    (change,) = drift(rows(("a", 1.0)), rows(("a", 2.0))).changes
    assert (change.verdict, is_worse(change)) == ("unknown", True)


def test_a_measured_loss_above_the_margin_is_no_maybe() -> None:
    # At worst the loss is above the margin, at best below it.
    old, new = rows(("a", 4.0), ("b", 4.0), ("c", 4.0)), rows(("a", 2.95), ("b", 3.0), ("c", 3.05))
    (found,) = check_not_worse(old, new, "old", margin=1.0)
    assert not found.passed
    assert found.sentence.startswith("quality is worse than in old by 1.00 ")


def test_without_common_prompts_means_are_compared_and_this_is_said() -> None:
    new = [{**row, "prompt": f"a {row['prompt']}"} for row in better(-10)]
    (found,) = check_not_worse(FOUR, new, "old")
    assert not found.passed
    assert found.sentence.endswith("over 3 old and 3 new prompts that are not paired")


def test_without_prompts_files_are_paired_below_their_folders() -> None:
    old, new = (
        [{"file": f"{folder}/{i}.png", "quality": i + shift} for i in range(20)]
        for folder, shift in (("runs/1", 0.0), ("runs/2", -0.01))
    )
    (found,) = check_not_worse(old, new, "old")
    assert not found.passed  # paired, a small loss is seen; unpaired, it is not
    assert (
        found.sentence == "quality is worse than in old by 0.010 (95 % 0.007 to 0.011) over 20 images of the same name"
    )


def test_pairs_may_have_to_share_a_seed() -> None:
    old, new = ([{**row, "seed": i} for i, row in enumerate(table)] for table in (FOUR, WORSE))
    (found,) = check_not_worse(old, new, "old", also=["seed"])
    assert found.sentence == "quality is worse than in old by 0.50 (95 % 0.33 to 0.67) over 3 prompts, paired by seed"
    with pytest.raises(DataError, match="or leave out --pair-by"):  # and not the means, which are of no pairs
        check_not_worse(old, [{**row, "prompt": f"a {row['prompt']}"} for row in new], "old", also=["seed"])


def test_scores_of_two_models_are_refused() -> None:
    with pytest.raises(UsageError, match="Expected tables scored by one model, got 'mini' in 'old' and 'ours': score"):
        check_not_worse(rows(("a", 1.0), model="mini"), rows(("a", 1.0), model="ours"), "old")
    mixed = [*rows(("a", 1.0), model="mini"), *rows(("b", 1.0), model="ours")]
    with pytest.raises(UsageError, match="Expected rows scored by one model, got 'mini', 'ours'"):
        check_not_worse(mixed, mixed, "old")


@pytest.mark.parametrize(("images", "each"), [(20, 1), (60, 1), (200, 1), (40, 5)])
@pytest.mark.parametrize("share", [0.05, 0.9, 1.0])
def test_a_share_is_certain_only_as_often_as_it_says(images: int, each: int, share: float) -> None:
    rng, runs, prompts = np.random.default_rng(1), 400, [i // each for i in range(images)]
    missed = 0
    for _ in range(runs):
        has = rng.random(images) < share
        if each > 1:  # images of a prompt are alike
            has = np.where(rng.random(images) < 0.8, has[np.array(prompts) * each], has)
        found = share_interval(has, prompts)
        missed += not found.low <= share <= found.high
    assert missed / runs < 0.075


def test_two_good_images_prove_nothing() -> None:
    found = one(rows(("a", 3.0), ("b", 3.0)), "quality:2=0.99", "share", confident=True)
    assert not found.passed
    assert found.sentence == (
        "100 % of the images reach quality 2 (95 % 15.81 % to 100 % over 2 prompts), but not certainly at least 99 %"
    )


@pytest.mark.parametrize("q", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("images", [10, 30, 100])
def test_a_quantile_is_certain_only_as_often_as_it_says(images: int, q: float) -> None:
    rng, runs = np.random.default_rng(2), 400
    found = [quantile_interval(rng.random(images), q) for _ in range(runs)]
    assert sum(one.low > q for one in found) / runs < 0.04
    assert sum(one.high < q for one in found) / runs < 0.04
    known = sum(one.undefined is None for one in found)
    assert known == (runs if (1 - q) ** images < 0.025 else 0)  # else even the lowest value may be above the quantile
    if known:
        assert one(rows(*((str(i), v) for i, v in enumerate(rng.random(images)))), f"quality:{q}=0", "quantile").passed


def test_a_quantile_of_few_images_is_never_certain() -> None:
    found = one(FOUR, "quality:0.1=1", "quantile", confident=True)
    assert (found.passed, found.low) == (False, None)
    assert found.sentence == (
        "the 10 % quantile of quality is 1.00 (over 3 prompts, too few for an interval), but not certainly at least 1"
    )


@pytest.mark.parametrize(("q", "value"), [(0.07, 7), (0.14, 14), (0.28, 28), (0.55, 55), (0.561, 57)])
def test_a_quantile_is_exact_where_floats_are_not(q: float, value: int) -> None:
    assert quantile_interval(np.arange(1, 101), q).value == value


def test_an_unpaired_interval_has_the_width_of_two_independent_means() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, 200), rng.normal(0.5, 2, 300)
    found = unpaired_difference(old, new, resampling=Resampling(resamples=4000))
    error = (old.var() / 200 + new.var() / 300) ** 0.5
    assert found.value == pytest.approx(new.mean() - old.mean())
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)
    assert unpaired_difference([1.0], new).undefined is not None
