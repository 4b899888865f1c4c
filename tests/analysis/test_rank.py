"""rank and pick: the answers on tables made by hand, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mst_clipiqa.analysis.rank import parse_weights, rank
from mst_clipiqa.analysis.rows import (
    LeftOut,
    find_image,
    number,
    say_left_out,
    split_failed,
    text,
    with_generator,
)
from mst_clipiqa.errors import DataError, UsageError


def row(file: str, quality: Any = None, correspondence: Any = None, **more: Any) -> dict[str, Any]:
    return {"file": file, "quality": quality, "correspondence": correspondence, "status": "ok", **more}


TABLE = [
    row("a", 2.0, 4.0, prompt="cat"),
    row("b", 3.0, 1.0, prompt="dog"),
    row("c", 2.0, 5.0, prompt="cat"),
    row("d", None, None, prompt="cat", status="error", reason="cut off"),
    row("e", 4.0, None, prompt="dog"),
    row("f", 3.0, 2.0, prompt=""),
]


def places(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["file"], row["rank"]) for row in rows]


def test_rank_puts_the_best_first_and_keeps_equals_in_order() -> None:
    found = rank(TABLE, {"quality": 1})
    assert places(found.rows) == [("e", 1), ("b", 2), ("f", 3), ("a", 4), ("c", 5)]
    assert [(left.row["file"], left.why) for left in found.left_out] == [("d", "cut off")]


def test_rank_by_weights_is_their_mean() -> None:
    # a (2*2+4)/3 = 2.667, b (6+1)/3 = 2.333, c (4+5)/3 = 3, f (6+2)/3 = 2.667: a and f are equal, a came first
    found = rank(TABLE, {"quality": 2, "correspondence": 1})
    assert places(found.rows) == [("c", 1), ("a", 2), ("f", 3), ("b", 4)]
    assert found.rows[0]["weighted"] == 3
    assert [left.why for left in found.left_out] == ["cut off", "no correspondence"]


def test_rank_of_one_column_adds_no_mean_to_the_row() -> None:
    third = rank(TABLE, {"quality": 1, "correspondence": 2.0000001}).rows[0]["weighted"]
    assert third == round(third, 6)
    assert "weighted" not in rank(TABLE, {"quality": 3}).rows[0]


def test_a_negative_weight_turns_the_order() -> None:
    assert [file for file, _ in places(rank(TABLE, {"quality": -1}).rows)] == ["a", "c", "b", "f", "e"]


def test_top_keeps_the_first() -> None:
    assert places(rank(TABLE, {"quality": 1}, top=2).rows) == [("e", 1), ("b", 2)]


def test_rank_per_prompt_counts_from_one_in_each() -> None:
    found = rank(TABLE, {"quality": 1}, per_prompt=True)
    assert places(found.rows) == [("a", 1), ("c", 2), ("e", 1), ("b", 2)]
    assert [(left.row["file"], left.why) for left in found.left_out] == [("d", "cut off"), ("f", "no prompt")]


def test_pick_is_the_best_of_each_prompt() -> None:
    assert places(rank(TABLE, {"quality": 1}, top=1, per_prompt=True).rows) == [("a", 1), ("e", 1)]


def test_rank_changes_no_row_it_is_given() -> None:
    rows = [row("a", 1.0)]
    rank(rows, {"quality": 1})
    assert rows == [row("a", 1.0)]


def test_rank_of_nothing_is_nothing() -> None:
    assert rank([], {"quality": 1}).rows == []


def test_a_missing_column_names_its_neighbour() -> None:
    with pytest.raises(
        UsageError, match=r"Expected a column 'qualty' in the table, found none \(did you mean 'quality'"
    ):
        rank(TABLE, {"qualty": 1})


def test_a_list_without_scores_is_to_be_scored_first() -> None:
    with pytest.raises(UsageError, match=r"found none; the columns are: file, prompt: score the images first\.$"):
        rank([{"file": "a.png", "prompt": "a fox"}], {"quality": 1})


def test_a_cell_that_is_no_number_names_its_row() -> None:
    with pytest.raises(DataError, match="Expected a number in column 'quality', got 'good' for 'a'"):
        rank([row("a", "good")], {"quality": 1})


def test_the_weight_of_a_single_column_makes_no_neighbours_equal() -> None:
    low, high = 1.4000000000000008, 1.400000000000001
    assert 3 * low == 3 * high
    assert [r["file"] for r in rank([row("a", low), row("b", high)], {"quality": 3.0}).rows] == ["b", "a"]
    assert [r["file"] for r in rank([row("a", high), row("b", low)], {"quality": -3.0}).rows] == ["b", "a"]


def test_top_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected to keep at least 1 row, got 0"):
        rank(TABLE, {"quality": 1}, top=0)


@pytest.mark.parametrize(
    ("by", "weights"),
    [
        ("quality", {"quality": 1.0}),
        ("quality=2,correspondence=1", {"quality": 2.0, "correspondence": 1.0}),
        ("quality,negative_match", {"quality": 1.0, "negative_match": -1.0}),  # of which less is better
        ("negative_match=1", {"negative_match": 1.0}),
        (" quality = 0.5 , lpips = -1 ", {"quality": 0.5, "lpips": -1.0}),
    ],
)
def test_weights(by: str, weights: dict[str, float]) -> None:
    assert parse_weights(by) == weights


@pytest.mark.parametrize("by", ["", "quality=", "quality=x", "quality=0", "quality,quality", "=1", "quality=inf"])
def test_weights_that_are_none(by: str) -> None:
    with pytest.raises(UsageError, match="Expected a column, or columns with weights"):
        parse_weights(by)


@pytest.mark.parametrize(("cell", "value"), [("2.5", 2.5), (3, 3.0), ("", None), (None, None), (float("nan"), None)])
def test_numbers(cell: Any, value: float | None) -> None:
    assert number({"q": cell}, "q") == value


def test_infinity_is_no_score() -> None:
    with pytest.raises(DataError, match="got 'inf'"):
        number({"file": "a", "q": "inf"}, "q")


def test_a_prompt_that_is_a_number_is_text() -> None:
    assert (text({"p": 1984.0}, "p"), text({"p": None}, "p"), text({}, "p")) == ("1984", "", "")


def test_a_row_without_status_counts_as_scored() -> None:
    good, failed = split_failed([{"file": "a"}, {"file": "b", "status": "error", "reason": None}])
    assert [r["file"] for r in good] == ["a"]
    assert [left.why for left in failed] == ["no reason given"]


def test_generators_from_names_and_folders() -> None:
    rows = [{"file": "x/sd1.5_low_001.jpg"}, {"file": "y/plain.png"}]
    assert [r["generator"] for r in with_generator(rows, "name")] == ["sd1.5", ""]
    assert [r["generator"] for r in with_generator(rows, "folder")] == ["x", "y"]
    assert with_generator(rows, "column") == rows


def test_images_are_found_beside_the_table_and_in_the_folder_named(tmp_path: Any) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_image("a.png", [tmp_path]) == tmp_path / "a.png"
    assert find_image("elsewhere/before/b.png", [tmp_path, tmp_path / "sub"]) == tmp_path / "sub" / "b.png"
    assert find_image(str(tmp_path / "a.png"), []) == tmp_path / "a.png"
    assert find_image(r"elsewhere\before\b.png", [tmp_path / "sub"]) == tmp_path / "sub" / "b.png"
    assert [find_image(name, [tmp_path]) for name in ("", "c.png", "x\0y", "z" * 5000)] == [None] * 4


def test_what_is_left_out_is_counted_by_reason() -> None:
    left = [LeftOut({"file": f"{i}.png"}, "cut off") for i in range(5)] + [LeftOut({"file": "a\nb"}, "no prompt")]
    assert say_left_out(left) == [
        "6 rows are left out:",
        "  5 x cut off ('0.png', '1.png', '2.png', ...)",
        "  1 x no prompt ('a\\nb')",
    ]
    assert say_left_out([]) == []


def test_the_commonest_reasons_are_named_and_the_others_counted() -> None:
    left = [LeftOut({"file": f"{i}.png"}, f"it has {i} bytes") for i in range(50_000)]  # in seconds, not hours
    lines = say_left_out([*left, LeftOut({"file": "x.png"}, "it has 7 bytes")])
    assert lines[:3] == [
        "50,001 rows are left out:",
        "  2 x it has 7 bytes ('7.png', 'x.png')",
        "  1 x it has 0 bytes ('0.png')",
    ]
    assert lines[20:] == ["  1 x it has 19 bytes ('19.png')", "  49,980 more for 49,980 other reasons"]
    assert say_left_out(left[:21])[-1] == "  1 more for 1 other reason"


def test_spaces_around_a_prompt_make_no_other_prompt() -> None:
    rows = [{"file": f"{i}", "prompt": prompt, "quality": i} for i, prompt in enumerate(["a cat", " a cat", "a cat "])]
    assert places(rank(rows, {"quality": 1}, per_prompt=True).rows) == [("2", 1), ("1", 2), ("0", 3)]
