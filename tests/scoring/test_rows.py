"""Rows: each says all of its score, and which state of which file it is of."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.resume import STAMP
from mst_clipiqa.scoring.score_rows import score_rows
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair, draw


@pytest.fixture
def scorer() -> Scorer:
    pair = FakePair()
    return Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=4))


def test_each_frame_of_each_state_of_a_file_has_a_stamp_of_its_own(scorer: Scorer, tmp_path: Path) -> None:
    files = [tmp_path / "a.gif", tmp_path / "b.gif"]
    for i, file in enumerate(files):
        frames = [draw(i + n, n / 3, size=40) for n in range(3)]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    items = [Item(str(file), str(file), frame=frame) for file, frame in product(files, (None, 0, 1, 2))]
    rows = list(score_rows(scorer, items, stamped=True))
    assert [row["status"] for row in rows] == ["ok"] * len(items)
    assert len({row[STAMP] for row in rows}) == len(items)
    assert [row[STAMP] for row in score_rows(scorer, items, stamped=True)] == [row[STAMP] for row in rows]
    assert all(STAMP not in row for row in score_rows(scorer, items))
