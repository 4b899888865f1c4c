"""Frames of one animated image as one row: the means of their scores, and what was noted of them."""

from __future__ import annotations

from typing import Any

from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.rank import rank
from mst_clipiqa.images.decode import _go_to_frame
from mst_clipiqa.images.frames import MOST_FRAMES

BROKEN = "Expected a whole GIF image, got a damaged one."


def frame(number: int | None, quality: float | None, reason: str, **more: Any) -> dict[str, Any]:
    row = {"file": "a.gif", "prompt": "cat", "quality": quality, "reason": reason, "frame": number}
    return row | {"status": "error" if quality is None else "ok"} | more


def test_the_mean_says_of_how_many_frames_it_is_and_what_was_noted_of_them() -> None:
    rows = [
        frame(1, 1.0, "frame 1 of 4; one flat colour; no prompt", correspondence=1.0, familiarity=0.1),
        frame(2, 2.0, "frame 2 of 4; no prompt", correspondence=None, familiarity=0.2),
        frame(3, 6.0, "frame 3 of 4; no prompt", correspondence=2.0, familiarity=0.6),
    ]
    (merged,) = mean_of_frames(rows, ["quality"])
    assert merged["reason"] == "mean of 3 frames; one flat colour (1 frame); no prompt"
    assert [merged[name] for name in ("quality", "correspondence", "familiarity")] == [3.0, 1.5, 0.3]


def test_what_is_noted_of_some_frames_says_of_how_many() -> None:
    rows = [frame(place, 1.0, note) for place, note in enumerate(("dark", "dark; blurred", ""), 1)]
    assert mean_of_frames(rows, [])[0]["reason"] == "mean of 3 frames; dark (2 frames); blurred (1 frame)"


def test_ends_of_intervals_are_averaged_and_other_cells_are_the_first_frames() -> None:
    first = frame(1, 1.0, "", generator="a", quality_low=0.0, quality_high=2.0)
    merged = mean_of_frames([first, frame(2, 2.0, "", generator="b", quality_low=1.0, quality_high=4.0)], [])
    means = {"quality": 1.5, "quality_low": 0.5, "quality_high": 3.0}
    assert merged == [first | means | {"frame": None, "reason": "mean of 2 frames"}]


def test_frames_of_another_prompt_and_images_without_frames_stay_apart() -> None:
    rows = [frame(1, 1.0, ""), frame(1, 2.0, "", prompt="dog"), *(frame(None, q, "") for q in (3.0, 4.0))]
    rows.append({**rows[0], "quality": 5.0, "frame": " "})
    assert mean_of_frames(rows, []) == rows


def test_a_ranked_animation_says_that_frames_failed_and_why() -> None:
    rows = [frame(1, 1.0, "frame 1 of 3"), frame(2, 2.0, "frame 2 of 3"), frame(None, None, BROKEN)]
    ranked = rank([*rows, frame(None, 3.0, "", file="b.png")], {"quality": 1.0})
    assert [row["reason"] for row in ranked.rows] == ["", f"mean of 2 frames; 1 frame failed: {BROKEN}"]
    assert [one.why for one in ranked.left_out] == [BROKEN]


def test_one_frame_that_is_left_says_that_others_failed() -> None:
    rows = [frame(1, 1.0, "frame 1 of 3"), frame(2, None, BROKEN), frame(3, None, BROKEN)]
    assert rank(rows, {"quality": 1.0}).rows[0]["reason"] == f"mean of 1 frame; 2 frames failed: {BROKEN}"


def test_what_is_noted_of_every_frame_is_no_note_of_the_mean() -> None:
    class Stored:
        width = height = 1

        def seek(self, number: int) -> None:
            pass

    image: Any = Stored()
    for count in (2, MOST_FRAMES):
        notes = [_go_to_frame(image, count, number)[0] for number in (0, count - 1)]
        (merged,) = mean_of_frames([frame(place, 1.0, note) for place, note in enumerate(notes, 1)], ["quality"])
        assert merged["reason"] == "mean of 2 frames"


def test_a_column_of_another_program_that_has_our_name_is_not_averaged() -> None:
    (merged,) = mean_of_frames([frame(1, 1.0, "", gate="open"), frame(2, 2.0, "", gate="shut")], ["quality"])
    assert (merged["quality"], merged["gate"]) == (1.5, "open")
