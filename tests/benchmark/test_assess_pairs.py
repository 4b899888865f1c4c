"""Scores of a table compared with pairs of which people prefer one image."""

from __future__ import annotations

from pathlib import Path

import pytest

from mst_clipiqa.benchmark.assess_pairs import assess_pair_table
from mst_clipiqa.data import PreferenceSet, load_preferences
from mst_clipiqa.errors import UsageError


@pytest.fixture
def preferences(tmp_path: Path) -> PreferenceSet:
    """Pairs in which x/1.png stands with two prompts; no image exists."""
    lines = ["image_a,image_b,prompt,preferred", "x/1.png,./y/1.png,a fox,a", "x/1.png,x/2.png,A  Chair,b"]
    (tmp_path / "pairs.csv").write_text("\n".join([*lines, "x/1.png,x/3#2.png,a fox,tie", "x/4.png,x/1.png,a fox,a"]))
    return load_preferences(tmp_path / "pairs.csv", images=False)


def row(file: str, prompt: str, quality: object) -> dict[str, object]:
    return {"file": file, "prompt": prompt, "quality": quality, "model": "other"}


def test_each_image_gets_the_row_of_its_file_and_prompt(preferences: PreferenceSet) -> None:
    rows = [
        row("images/x/1.png", "a fox", "3.5"),
        row("images/y/1.png", "a fox", 3.0),
        row("images/x/1.png", "a chair", 1.0),
        row("images/x/2.png", "", 2.0),  # scored without a prompt
        row("images/x/3#2.png", "a fox", 5.0),
        row("images/x/4.png", "a dog", 5.0),  # another prompt
    ]
    (found,) = assess_pair_table(rows, preferences)
    assert (found.target, found.accuracy.accuracy, found.accuracy.pairs) == ("quality", 1.0, 2)
    assert (found.ties, found.unscored, found.contamination.checked) == (1, 1, False)
    rows[2] = row("images/x/1.png", "a chair", 2.5)
    assert assess_pair_table(rows, preferences)[0].accuracy.accuracy == 0.5


def test_a_target_that_scored_no_pair_hides_no_other(preferences: PreferenceSet) -> None:
    rows = [row("x/1.png", "a fox", 3.0), row("y/1.png", "a fox", None)]
    (found,) = assess_pair_table([one | {"correspondence": 4 - n} for n, one in enumerate(rows)], preferences)
    assert (found.target, found.accuracy.accuracy, found.accuracy.pairs) == ("correspondence", 1.0, 1)


def test_a_table_without_scores_is_refused(preferences: PreferenceSet) -> None:
    with pytest.raises(UsageError, match="Expected a column quality or correspondence with values"):
        assess_pair_table([{"file": "x/1.png", "quality": ""}], preferences)
