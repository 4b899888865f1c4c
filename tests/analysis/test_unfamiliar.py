"""Unfamiliar images: counted, named, and no certainty claimed for them."""

from __future__ import annotations

from typing import Any

import pytest

from mst_clipiqa.analysis.compare import compare_rows, compare_scores
from mst_clipiqa.analysis.unfamiliar import (
    Unfamiliar,
    count_unfamiliar,
    say_many_unfamiliar,
    say_unfamiliar,
)
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.caution import is_unfamiliar
from mst_clipiqa.scoring.score import Score


def scored(quality: float, familiarity: float | None, half: float = 0.5) -> dict[str, Any]:
    ends = {"quality_low": quality - half, "quality_high": quality + half}
    return {"file": f"{quality}.png", "quality": quality, **ends, "familiarity": familiarity}


def test_below_the_fifth_percentile_is_unfamiliar() -> None:
    assert [is_unfamiliar(value) for value in (0.0, 0.0499, 0.05, 1.0, None)] == [True, True, False, False, False]


def test_the_share_counts_only_rows_with_a_familiarity() -> None:
    found = count_unfamiliar([scored(1, 0.01), scored(2, 0.5), scored(3, None)])
    assert found == Unfamiliar(1, 2) and found.share == 0.5
    assert count_unfamiliar([scored(1, None)]) is None
    with pytest.raises(DataError, match="Expected a number in column 'familiarity', got 'high'"):
        count_unfamiliar([{"familiarity": "high"}])
    assert say_unfamiliar([{"familiarity": "high"}]) == ""  # a note, after the work


@pytest.mark.parametrize(
    ("a", "b", "who"), [(0.01, 0.9, "A is"), (0.9, 0.01, "B is"), (0.01, 0.04, "both are"), (0.01, None, "A is")]
)
def test_no_winner_is_named_if_an_image_is_unfamiliar(a: float, b: float | None, who: str) -> None:
    found = compare_rows(scored(4, a), scored(2, b), ["quality"])[0]
    assert found.verdict == "unfamiliar"
    assert f"no winner is named, because {who} unlike the images" in found.sentence()
    assert "If both images were like them, A would be better with more than 99 % probability." in found.sentence()
    assert (found.to_row()["familiarity_a"], found.to_row()["familiarity_b"]) == (a, b)
    assert compare_rows(scored(2, b), scored(4, a), ["quality"])[0].verdict == "unfamiliar"


def test_a_close_call_says_on_which_condition_people_would_agree() -> None:
    close = compare_rows(scored(3.1, 0.01), scored(3, 0.9), ["quality"])[0]
    assert close.verdict == "too close to call"
    assert close.sentence().endswith(" probability if both images were like the training images.")
    familiar = compare_rows(scored(3.1, 0.05), scored(3, 0.9), ["quality"])[0]
    assert familiar.sentence().endswith(" probability.")


def test_familiar_images_have_a_winner() -> None:
    assert compare_rows(scored(4, 0.05), scored(2, 0.06), ["quality"])[0].verdict == "A"


def test_what_is_not_computed_has_no_caution() -> None:
    assert compare_rows(scored(3, 0.01), scored(3, 0.01), ["quality"])[0].verdict == "equal"
    bare = {"quality": 4.0, "familiarity": 0.01}, {"quality": 2.0, "familiarity": 0.01}
    assert compare_rows(*bare, ["quality"])[0].verdict == "no interval"


def test_scores_know_their_familiarity_as_rows_do() -> None:
    rows = scored(4, 0.01), scored(2, 0.5)
    scores = [
        Score(
            targets={"quality": row["quality"]},
            intervals={"quality": (row["quality_low"], row["quality_high"])},
            familiarity=row["familiarity"],
        )
        for row in rows
    ]
    assert compare_scores(scores[0], scores[1], ["quality"]) == compare_rows(*rows, ["quality"])


def test_a_note_counts_and_names_the_first() -> None:
    assert say_unfamiliar([scored(1, 0.5), scored(2, None)]) == ""
    assert say_unfamiliar([scored(1, 0.5), scored(2, 0.01)]) == (
        "1 of 2 images is unlike those that the model was trained on, so its scores are less certain: '2.png'."
    )
    many = say_unfamiliar([scored(value, 0.0) for value in range(4)])
    assert many == (
        "4 of 4 images are unlike those that the model was trained on, so their scores are less certain: "
        "'0.png', '1.png', '2.png' and 1 more."
    )


def test_a_table_is_cautioned_above_a_tenth() -> None:
    assert say_many_unfamiliar({"": Unfamiliar(10, 100), "sdxl": None}, "the new table") == ""
    groups = {"a": Unfamiliar(1, 50), "b": Unfamiliar(3, 10), "c": Unfamiliar(1_220, 2_000)}
    assert say_many_unfamiliar({"": Unfamiliar(1_224, 2_060), **groups}, "the new table") == (
        "In the new table, 1,224 of 2,060 images, 1,220 of 2,000 of 'c' and 3 of 10 of 'b' are unlike those "
        "that the model was trained on, so a mean or a difference may come from the model's errors."
    )
    assert say_many_unfamiliar({"": Unfamiliar(1, 7)}, "'new.csv'").startswith("In 'new.csv', 1 of 7 images is unlike ")
