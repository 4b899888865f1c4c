"""drift: differences and intervals worked out by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mst_clipiqa.analysis.change import CHANGE_COLUMNS
from mst_clipiqa.analysis.drift import drift
from mst_clipiqa.analysis.pairing import PairBy, choose_pairing, folders_of
from mst_clipiqa.analysis.unfamiliar import Unfamiliar
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate.means import mean_interval
from mst_clipiqa.evaluate.resampling import Resampling, draw_counts


def rows(*cells: tuple[str, float | None], **more: Any) -> list[dict[str, Any]]:
    return [{"file": f"{i}.png", "prompt": p, "quality": q, "status": "ok", **more} for i, (p, q) in enumerate(cells)]


@pytest.mark.parametrize(
    "files",
    [
        *(["a.png"], ["/a.png"], ["//a/b.png"], ["a/b/c.png", "a/d.png"], ["a/", "a/b.png"], ["a/b/.", "a/b/c.png"]),
        *(["a\\b.png", "a/c.png"], ["a/./b.png", "a//c.png"], ["a/..", "a/b.png"], ["", "a/b.png"], [".", "/"]),
        *([], ["/a/b.png", "a/b.png"], ["a/b/c.png", "a/b/d.png", "a/bc/d.png"]),
    ],
)
def test_the_common_folder_is_that_of_all_files(files: list[str]) -> None:
    paths = [path for file in files if (path := PurePosixPath(file.replace("\\", "/"))).name]
    parents = [str(path.parent) for path in paths]
    mixed = len({parent.startswith("/") for parent in parents}) != 1
    rows_of_files = [{"file": file} for file in files]
    assert folders_of(rows_of_files, rows_of_files) == ("" if mixed else os.path.commonpath(parents),) * 2


@pytest.mark.parametrize("files", [["/a/b.png", "a/c.png"], ["//a/b.png", "//a/c.png"]])
def test_files_without_a_common_folder_are_paired_by_their_whole_names(files: list[str]) -> None:
    old, new = ([{"file": file, "quality": quality} for file in files] for quality in (1.0, 2.0))
    (change,) = drift(old, new).changes
    assert (change.pairing, change.new_count, change.difference) == ("file", 2, 1.0)


def test_names_are_whole_in_both_tables_if_one_of_them_mixes_absolute_and_relative_names() -> None:
    old = [{"file": f"/a/{name}.png", "quality": 1.0} for name in "bcd"]
    new = [*({"file": f"/a/{name}.png", "quality": 2.0} for name in "bc"), {"file": "d.png", "quality": 5.0}]
    (change,) = drift(old, new).changes
    assert (change.pairing, change.new_count, change.difference) == ("file", 2, 1.0)


WIDER = {2: 12.7062, 3: 1.5**0.5 * 4.30265 / 1.95996}
"""For three prompts: sqrt(n / (n - 1)) and the 97.5 % points of Student's and the normal distribution. For two, whose
resamples do not reach that far, Student's times the deviation of the mean, which is half their distance."""

# Per prompt: cat (2+4)/2 = 3 -> 4, dog 1 -> 3, owl 2 -> 5; the differences are 1, 2 and 3.
OLD = rows(("cat", 2.0), ("cat", 4.0), ("dog", 1.0), ("owl", 2.0), ("old only", 0.0))
NEW = rows(("dog", 3.0), ("cat", 4.0), ("owl", 5.0), ("new only", 9.0), ("new too", 9.0))


def test_less_is_better_in_negative_match() -> None:
    high, low = ([{"prompt": prompt, "negative_match": match} for prompt in "abcdefgh"] for match in (3.0, 2.0))
    for old, new, verdict in ((high, low, "better"), (low, high, "worse")):
        (change,) = drift(old, new, ["negative_match"]).changes
        assert change.verdict == verdict
        assert change.sentence().startswith(f"The new images are {verdict} in negative_match by 1.00 (95 % 0.")


def test_prompts_are_paired_and_count_once() -> None:
    found = drift(OLD, NEW)
    (change,) = found.changes
    assert (change.new_count, change.old, change.new, change.difference) == (3, 2.0, 4.0, 2.0)
    # A resample of three draws is (1, 1, 1) in 1 of 27 cases, more often than 2.5 %: it reaches 1, and 3.
    assert (change.low, change.high) == pytest.approx((2 - WIDER[3], 2 + WIDER[3]), abs=1e-4)
    assert change.sentence() == (
        "The new images do not differ measurably from the old in quality: 2.00 (95 % -0.69 to 4.69) over 3 prompts."
    )
    assert (found.only_old, found.only_new, found.left_out) == (["old only"], ["new only", "new too"], [])


def test_a_loss_is_named_by_its_size() -> None:
    (change,) = drift(rows(("a", 4.0), ("b", 4.0), ("c", 4.0)), rows(("a", 1.9), ("b", 2.0), ("c", 2.1))).changes
    assert (change.low, change.high) == pytest.approx((-2 - WIDER[3] / 10, -2 + WIDER[3] / 10), abs=1e-4)
    assert change.sentence() == "The new images are worse in quality by 2.00 (95 % 1.73 to 2.27) over 3 prompts."


def test_an_interval_around_zero_is_no_difference() -> None:
    (change,) = drift(rows(("a", 1.0), ("b", 2.0)), rows(("a", 2.0), ("b", 1.0))).changes
    assert (change.low, change.high) == pytest.approx((-WIDER[2], WIDER[2]), abs=1e-4)
    assert (change.difference, change.verdict) == (0.0, "no difference")
    assert change.sentence() == (
        "The new images do not differ measurably from the old in quality: 0.00 (95 % -12.71 to 12.71) over 2 prompts."
    )


def test_one_prompt_is_too_few() -> None:
    (change,) = drift(rows(("a", 1.0)), rows(("a", 2.0))).changes
    assert change.sentence() == (
        "The difference in quality, new minus old, is 1.00 over 1 prompt, too few for an interval."
    )
    assert (change.to_row()["low"], change.verdict) == (None, "unknown")
    assert tuple(change.to_row()) == CHANGE_COLUMNS
    assert change.to_row()["group"] is None  # an empty text would be a quote in CSV


def test_groups_are_compared_on_their_own() -> None:
    old = rows(("a", 1.0), ("b", 1.0), generator="x") + rows(("a", 3.0), ("b", 3.0), generator="y")
    new = rows(("a", 2.0), ("b", 2.0), generator="x") + rows(("a", 1.0), ("b", 1.0), generator="z")
    found = drift(old, new, by=["generator"])
    assert [(c.group, c.old_count, c.difference) for c in found.changes] == [("", 2, -0.5), ("x", 2, 1.0)]
    assert found.changes[1].sentence() == (
        "x: the new images do not differ measurably from the old in quality: 1.00 (95 % -2.54 to 3.20) over 2 prompts."
    )
    assert found.lone_groups == ["y", "z"]


def test_rows_that_cannot_be_paired_are_told() -> None:
    old = [*rows(("a", 1.0), ("", 2.0)), {"file": "e", "prompt": "a", "status": "error", "reason": "cut off"}]
    found = drift(old, rows(("a", 1.0)))
    assert [left.why for left in found.left_out] == ["cut off", "no prompt"]


def test_a_row_without_the_score_does_not_weigh_on_its_prompt() -> None:
    (change,) = drift(rows(("a", 1.0), ("a", None), ("b", 1.0)), rows(("a", 2.0), ("b", 2.0))).changes
    assert change.old == 1.0


def test_the_models_are_told() -> None:
    found = drift(rows(("a", 1.0), model="mini"), rows(("a", 1.0), model="ours"))
    assert found.models == ["mini", "ours"]


def test_tables_without_a_prompt_in_common_are_refused() -> None:
    with pytest.raises(DataError, match="Expected two tables with scored prompts in common, got 1 and 2 prompts"):
        drift(rows(("a", 1.0)), rows(("b", 1.0), ("c", 1.0)))


@pytest.mark.parametrize(("old", "new"), [(None, None), (1.0, None), (None, 1.0)])
def test_tables_over_the_same_prompts_without_values_are_told_so(old: float | None, new: float | None) -> None:
    message = "Expected values of quality or correspondence in both tables for what they have in common, got none: give"
    with pytest.raises(DataError, match=message):
        drift(rows(("a", old), ("b", old)), rows(("a", new), ("b", new), ("c", 1.0)))


def test_a_group_that_is_no_column_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected a column 'style'"):
        drift(OLD, NEW, by=["style"])


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [0.1, 0.2, 0.3, 0.2, 0.9]
    first, second, other = (mean_interval(values, resampling=Resampling(0.9, 500, seed)) for seed in (1, 1, 2))
    assert first == second
    assert (first.low, first.high) != (other.low, other.high)


def test_whole_groups_are_resampled() -> None:
    # Within a group the values are equal, so only groups matter: two of them, means 0 and 1, as with two values.
    found = mean_interval([0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10)
    assert (found.value, found.low, found.high, found.groups) == pytest.approx(
        (0.5, 0.5 - WIDER[2] / 2, 0.5 + WIDER[2] / 2, 2), abs=1e-4
    )
    alone = mean_interval([0.0] * 10 + [1.0] * 10)
    assert alone.high - alone.low < 0.6


def test_rows_without_prompt_and_file_are_no_pairs() -> None:
    nameless: list[dict[str, Any]] = [{"quality": 1.0}, {"quality": 2.0, "prompt": "", "file": ""}]
    assert choose_pairing(nameless, nameless, ("", "")) == "none"


@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (OLD[:4], NEW[:3])])  # with prompts of one table, and without
def test_rows_without_a_prompt_are_no_pair_where_others_have_one(old: list[Any], new: list[Any]) -> None:
    (change,) = drift([*old, *rows(("", 0.0))], [*new, *rows(("", 9.0))]).changes
    assert (change.new_count, change.difference) == (3, 2.0)


def test_names_are_the_same_whether_accents_are_composed_or_not() -> None:
    old, new = ([{"file": file, "quality": 1.0} for file in ("b.png", cafe)] for cafe in ("caf\u00e9", "cafe\u0301"))
    (change,) = drift(old, new).changes
    assert change.new_count == 2


def test_a_score_of_one_table_is_lost_without_pairs_too() -> None:
    old = rows(("a", 1.0), ("b", 2.0), correspondence=1.0)
    found = drift(old, rows(("c", 1.0), ("d", 2.0)), pair_by=PairBy("none"))
    assert (found.lost, [change.target for change in found.changes]) == (["correspondence"], ["quality"])


def test_where_one_table_has_no_prompts_names_could_have_been_in_common() -> None:
    with pytest.raises(DataError, match="Expected two tables with scored prompts or file names in common, got 1 and 0"):
        drift(rows(("a", 1.0)), [{"file": "other.png", "quality": 1.0}])


def test_where_files_are_paired_no_row_needs_a_prompt() -> None:
    old, new = rows(("a", 1.0), ("b", 1.0)), rows(("", 2.0), ("", 2.0))
    found = drift(old, new)
    assert (found.changes[0].pairing, found.changes[0].unit) == ("file", "image")
    assert (found.only_old, found.only_new, found.left_out) == ([], [], [])


def test_rows_without_a_group_are_one_that_is_named_after_its_column() -> None:
    table = [*rows(("a", 1.0), ("b", 2.0), style=""), *rows(("c", 1.0), ("d", 2.0), style="oil")]
    found = drift(table, table, by=["style"])
    assert [change.group for change in found.changes] == ["", "no style", "oil"]


def test_frames_of_an_image_count_once() -> None:
    def frames(shift: float) -> list[dict[str, Any]]:
        return [
            {"file": f"{i}.gif", "quality": i + shift, "status": "ok", "frame": frame}
            for i in range(8)
            for frame in range(20)
        ]

    (change,) = drift(frames(0), frames(1), pair_by=PairBy("none")).changes
    assert (change.old_count, change.new_count) == (8, 8)


@pytest.mark.parametrize("failed", [0, 6])
def test_files_are_paired_whichever_images_failed(failed: int) -> None:
    files = [f"images/{folder}/{i}.png" for folder in "ab" for i in range(6)]
    old: list[dict[str, Any]] = [
        {"file": file, "quality": float(i), "status": "ok", "generator": file[7]} for i, file in enumerate(files)
    ]
    new = [{**row, "file": f"new/{row['file']}", "quality": row["quality"] - 0.2} for row in old]
    for row in new[12 - failed :]:
        row.update(status="error", reason="cut off")
    found = drift(old, new, by=["generator"])
    size = "0.20 (95 % 0.10 to 0.24)" if not failed else "0.200 (95 % 0.003 to 0.283)"
    assert found.changes[0].sentence().startswith(f"The new images are worse in quality by {size} ")
    groups = {change.group: change.new_count for change in found.changes}
    assert groups == ({"": 12, "a": 6, "b": 6} if not failed else {"": 6, "a": 6})
    assert found.lone_groups == (["b"] if failed else [])


def test_unfamiliar_images_are_counted_in_each_table() -> None:
    old = [{"prompt": str(i), "quality": 1.0, "familiarity": 0.5} for i in range(4)]
    new = [{"prompt": str(i), "quality": 2.0, "familiarity": value} for i, value in enumerate((0.01, 0.04, 0.05, ""))]
    new = [{**row, "generator": "ab"[i % 2]} for i, row in enumerate(new)]
    old = [{**row, "generator": "ab"[i % 2]} for i, row in enumerate(old)]
    changes = drift(old, new, by=["generator"]).changes
    assert [change.old_unfamiliar for change in changes] == [Unfamiliar(0, 4), Unfamiliar(0, 2), Unfamiliar(0, 2)]
    assert [change.new_unfamiliar for change in changes] == [Unfamiliar(2, 3), Unfamiliar(1, 2), Unfamiliar(1, 1)]
    assert changes[0].to_row()["new_unfamiliar_share"] == pytest.approx(2 / 3)
    without = drift([{"prompt": "a", "quality": 1.0}], [{"prompt": "a", "quality": 1.0}]).changes[0]
    assert without.new_unfamiliar is None


def test_unpaired_tables_are_compared_by_their_means() -> None:
    (change,) = drift(rows(("a", 1.0), ("a", 3.0), ("b", 4.0)), rows(("c", 5.0)), pair_by=PairBy("none")).changes
    assert (change.old, change.new, change.old_count, change.new_count) == (3.0, 5.0, 2, 1)  # a prompt counts once
    assert change.sentence() == (
        "The difference in quality, new minus old, is 2.00 over 2 old and 1 new prompts that are not paired, "
        "too few for an interval."
    )


def test_a_table_with_prompts_and_one_without_say_what_was_counted() -> None:
    (change,) = drift(rows(("a", 1.0), ("a", 3.0)), rows(("", 2.0), ("", 4.0)), pair_by=PairBy("none")).changes
    assert change.over == "over 1 old and 2 new prompts or images that are not paired"


def test_names_pair_images_only_without_prompts() -> None:
    old = rows(("", 1.0), ("", 2.0))
    (change,) = drift(old, rows(("", 2.0), ("", 3.0))).changes
    assert change.sentence() == (
        "The new images do not differ measurably from the old in quality: 1.00 (95 % -2.54 to 3.20) over 2 images of "
        "the same name."
    )
    assert drift(old, rows(("a", 2.0), ("b", 3.0))).changes[0].pairing == "file"  # one table does not say
    with pytest.raises(DataError, match=r"Expected two tables .*, got 1 and 1 prompts and none in both: .* --unpaired"):
        drift(rows(("a", 1.0)), rows(("b", 1.0)))


def seeds(*cells: tuple[str, int, float]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "seed": seed, "quality": quality} for prompt, seed, quality in cells]


def test_a_pair_may_have_to_share_a_seed() -> None:
    # cat: seed 1 2 -> 3 and seed 2 4 -> 8, on average 2.5; dog: seed 1 1 -> 2, twice in the new table.
    old = seeds(("cat", 1, 2.0), ("cat", 2, 4.0), ("cat", 3, 100.0), ("dog", 1, 1.0))
    new = seeds(("cat", 2, 8.0), ("cat", 1, 3.0), ("dog", 1, 1.5), ("dog", 1, 2.5), ("dog", 9, -100.0))
    found = drift(old, new, pair_by=PairBy(also=("seed",)))
    (change,) = found.changes
    assert (change.old, change.new, change.difference, change.new_count) == (2.0, 3.75, 1.75, 2)
    assert change.over == "over 2 prompts, paired by seed"
    assert change.to_row()["paired_by"] == "prompt,seed"
    assert (found.only_old, found.only_new) == (["cat, seed 3"], ["dog, seed 9"])
    assert drift(old, new).changes[0].difference != change.difference


def test_files_may_have_to_share_a_seed() -> None:
    old, new = (
        [{"file": f"{run}/{i}.png", "seed": s, "quality": i + s} for i, s in enumerate(some)]
        for run, some in (("old", (0, 1, 2)), ("new", (0, 5, 2)))
    )
    (change,) = drift(old, new, pair_by=PairBy(also=("seed",))).changes
    assert change.over == "over 2 images of the same name, paired by seed"


def test_pairs_that_cannot_be_are_refused() -> None:
    old, new = seeds(("cat", 1, 2.0), ("dog", 1, 2.0)), seeds(("cat", 2, 2.0), ("dog", 2, 3.0))
    with pytest.raises(DataError, match="Expected scored rows of the same prompt and seed in both tables, got none"):
        drift(old, new, pair_by=PairBy(also=("seed",)))
    with pytest.raises(DataError, match=r"got 2 and 2 prompts and none in both: give .* or leave out --pair-by"):
        drift(old, [{**row, "prompt": "a " + row["prompt"]} for row in new], pair_by=PairBy(also=("seed",)))
    with pytest.raises(UsageError, match=r"Expected a column 'sed' in the table, found none \(did you mean 'seed'\?\)"):
        drift(old, new, pair_by=PairBy(also=("sed",)))
    with pytest.raises(UsageError, match="Expected no --pair-by beside --unpaired, which makes no pairs: drop one"):
        drift(old, new, pair_by=PairBy("none", ("seed",)))


def test_zero_has_no_sign() -> None:
    cells = [(f"p{i}", float(i)) for i in range(9)]
    (change,) = drift(rows(*cells), rows(*((p, q - 1e-8) for p, q in cells))).changes
    assert change.evidence == "0.00 (95 % 0.00 to 0.00) over 9 prompts"
    (change,) = drift(rows(("a", 1.0)), rows(("a", 1.0 - 1e-8))).changes
    assert change.sentence().startswith("The difference in quality, new minus old, is 0.00")


def test_a_small_difference_is_not_written_as_zero() -> None:
    cells = [(f"p{i}", float(i)) for i in range(9)]
    (change,) = drift(rows(*cells), rows(*((p, q - 1e-4) for p, q in cells))).changes
    assert (
        change.sentence() == "The new images are worse in quality by 0.00010 (95 % 0.00003 to 0.00013) over 9 prompts."
    )
    (change,) = drift(rows(("a", 1.0)), rows(("a", 1.0 - 0.004))).changes
    assert change.sentence().startswith("The difference in quality, new minus old, is -0.004")


def test_scores_and_groups_over_as_many_prompts_share_their_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(index: NDArray[np.int64], resampling: Resampling) -> Iterator[Any]:
        drawn.append(len(index))
        return draw_counts(index, resampling)

    monkeypatch.setattr("mst_clipiqa.evaluate.means.draw_counts", counted)
    cells = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]
    table = [{"prompt": p, "generator": g, "quality": 1.0, "correspondence": 2.0} for p, g in cells]
    changes = drift(table, table, by=["generator"]).changes
    assert [(change.group, change.new_count) for change in changes] == [
        (g, n) for g, n in (("", 4), ("x", 2), ("y", 2)) for _ in range(2)
    ]
    assert drawn == [4, 2]
