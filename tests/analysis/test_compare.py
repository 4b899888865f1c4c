"""compare: which, by how much, how sure; with the probabilities worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mst_clipiqa.analysis.compare import Comparison, compare_rows, compare_scores, row_of
from mst_clipiqa.errors import UsageError
from mst_clipiqa.scoring.score import Score

HALF = 1.6448536269514722  # half a 90 % interval of a standard normal error


def scored(quality: float | None, half: float | None = HALF, **more: Any) -> dict[str, Any]:
    if quality is None or half is None:
        return {"quality": quality, **more}
    return {"quality": quality, "quality_low": quality - half, "quality_high": quality + half, **more}


def one(a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    return compare_rows(a, b, ["quality"])[0]


def test_a_standard_deviation_of_difference_is_84_percent() -> None:
    # Both errors have standard deviation 1, so the difference has sqrt(2); Phi(1) = 0.8413.
    found = one(scored(3 + 2**0.5), scored(3))
    assert found.probability == pytest.approx(0.8413, abs=1e-4)
    assert found.verdict == "too close to call"
    assert found.sentence() == (
        "Quality: A is ahead of B by 1.41 (4.41 against 3.00), too close to call (below 95 %): people would "
        "agree with 84 % probability."
    )


@pytest.mark.parametrize(("difference", "verdict"), [(2.33, "A"), (2.32, "too close to call"), (-2.33, "B")])
def test_the_winner_is_called_from_95_percent_on(difference: float, verdict: str) -> None:
    # Phi(1.645) = 0.95, and 1.645 * sqrt(2) = 2.326.
    assert one(scored(3 + difference), scored(3)).verdict == verdict


def test_b_may_win() -> None:
    found = one(scored(1), scored(4))
    assert found.probability == pytest.approx(1 - 0.98305, abs=1e-4)  # Phi(3 / sqrt(2)) = Phi(2.121)
    assert (
        found.sentence() == "Quality: B is ahead of A by 3.00 (4.00 against 1.00); B is better with 98 % probability."
    )


def test_the_end_of_the_scale_does_not_make_a_score_surer() -> None:
    whole = one(scored(4.5), scored(3))
    cut = one({**scored(4.5), "quality_high": 5.0}, scored(3))
    assert cut.probability == whole.probability


def test_wider_intervals_are_less_sure() -> None:
    narrow, wide = one(scored(4, 0.5), scored(3, 0.5)), one(scored(4, 2.0), scored(3, 2.0))
    assert narrow.probability is not None and wide.probability is not None
    assert narrow.probability > wide.probability > 0.5


def test_without_intervals_it_does_not_pretend() -> None:
    empty = {"quality_low": None, "quality_high": None}  # as score --intervals writes them for such a model
    found = one(scored(4, None, **empty), scored(3))
    assert (found.probability, found.verdict) == (None, "uncalibrated")
    assert found.sentence().endswith("there is no probability, because the model is not calibrated.")


def test_equal_scores_are_equal() -> None:
    found = one(scored(3), scored(3))
    assert (found.verdict, found.probability, found.sentence()) == ("equal", 0.5, "Quality: the same score, 3.00.")


def test_a_missing_score_is_not_compared() -> None:
    assert one(scored(None), scored(3)).sentence() == "Quality: not compared, only one has a score."
    assert one(scored(None), scored(None)).sentence() == "Quality: not compared, neither has a score."


def test_near_certainty_is_not_rounded_to_certainty() -> None:
    assert "more than 99 % probability" in one(scored(9, 0.1), scored(3, 0.1)).sentence()


def test_scores_compare_as_their_rows_do() -> None:
    scores = [
        Score(targets={"quality": q, "correspondence": c}, intervals={"quality": (q - HALF, q + 1)})
        for q, c in ((4.0, 2.0), (3.5, None))
    ]
    rows = [scored(s.targets["quality"], correspondence=s.targets["correspondence"]) for s in scores]
    rows = [{**row, "quality_high": row["quality"] + 1} for row in rows]
    found = compare_scores(scores[0], scores[1])
    assert found == compare_rows(rows[0], rows[1])
    assert [one.verdict for one in found] == ["too close to call", "not compared"]


TABLE = [{"file": "x/a.png", "prompt": "cat"}, {"file": "y/a.png", "prompt": "dog"}, {"file": "x/b.png"}]


def test_a_row_is_found_by_name() -> None:
    assert row_of(TABLE, "x/a.png") is TABLE[0]
    assert row_of(TABLE, "b.png") is TABLE[2]
    assert row_of(TABLE, "a.png", "dog") is TABLE[1]


@pytest.mark.parametrize(("file", "count"), [("a.png", 2), ("c.png", 0)])
def test_a_row_that_is_not_one_is_refused(file: str, count: int) -> None:
    with pytest.raises(UsageError, match=f"Expected one row of the table to be '{file}', got {count}"):
        row_of(TABLE, file)


@pytest.mark.parametrize("prompt", ["a bird", "cat"])
def test_a_prompt_that_the_file_does_not_have_is_refused_with_its_own(prompt: str) -> None:
    with pytest.raises(
        UsageError,
        match=f"Expected a row of 'y/a.png' with the prompt '{prompt}', got 'dog': give that prompt, or omit --prompt.",
    ):
        row_of([TABLE[1], {"file": "z.png", "prompt": "cat"}], "y/a.png", prompt)


def test_a_table_without_intervals_says_what_it_lacks() -> None:
    found = one(scored(4, None), scored(3, None))
    assert found.verdict == "no interval"
    assert "the table has no intervals" in found.sentence()
    assert "calibrated" not in found.sentence()
    empty = {"quality_low": None, "quality_high": None}  # score --intervals with a model that has none
    assert one({**scored(4, None), **empty}, {**scored(3, None), **empty}).verdict == "uncalibrated"


@pytest.mark.parametrize(("probability", "whole"), [(0.949, 94), (0.051, 94), (0.57, 57)])
def test_a_probability_that_is_not_yet_certain_is_not_rounded_up_to_it(probability: float, whole: int) -> None:
    close = Comparison("quality", 3.0, 2.5, 0.5, probability, "too close to call")
    assert f"with {whole} % probability" in close.sentence()


def test_a_small_difference_has_the_decimals_that_show_it() -> None:
    assert (
        one(scored(2.504), scored(2.5)).sentence().startswith("Quality: A is ahead of B by 0.004 (2.504 against 2.500)")
    )
