"""A score as people see it: JSON, one line, a table in a notebook."""

from __future__ import annotations

import json

import pytest

from mst_clipiqa.scoring.score import Score

SCORED = Score(
    quality=3.24,
    reason="<unlike>",
    model="<b>mine</b>",
    targets={"quality": 3.24, "correspondence": None},
    intervals={"quality": (2.5, 4.0)},
    ranges={"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)},
    levels=(0.1, 0.2, 0.3, 0.2, 0.2),
)
FAILED = Score(error="image", reason="no image\n<script>", targets={"quality": None})


@pytest.mark.parametrize("score", [SCORED, FAILED])
def test_a_dictionary_is_what_json_reads_back(score: Score) -> None:
    found = score.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["status"] == score.status
    assert found["targets"] == score.targets
    assert found["reason"] == score.reason


def test_one_line() -> None:
    assert repr(SCORED) == "Score(quality=3.240, correspondence=None, model='<b>mine</b>')"
    assert repr(FAILED) == r"Score(error='image', reason='no image\n<script>')"
    assert repr(Score(quality=1.0)) == "Score(quality=1.000, correspondence=None, model='')"


def test_a_notebook_shows_a_table_and_runs_nothing_of_a_models_name() -> None:
    table = SCORED._repr_html_()
    assert "<td>quality</td><td>3.240</td><td>2.5 to 4</td><td>0 to 5</td>" in table
    assert "&lt;b&gt;mine&lt;/b&gt;" in table and "<b>" not in table
    assert "&lt;unlike&gt;" in table
    failed = FAILED._repr_html_()
    assert "Not scored because of the image." in failed
    assert "<script>" not in failed
