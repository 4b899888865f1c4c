"""What a calibration of granularities says of itself: what they cost, and which images the model had seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.scoring.calibration import CalibratedOn
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import trained_on
from mst_clipiqa.train.granularity import _EveryGranularity, calibrate_granularity
from tests.fakes import FakePair, rated_set
from tests.scoring.test_scorer import model


def test_a_cost_is_the_time_of_both_streams_as_a_share_of_that_of_fine() -> None:
    policy = _EveryGranularity(FakePair(view=ViewSpec(fine="native", crops=9)))
    assert policy.names == ["native:1", "native:4", "fine"]
    policy.seconds = [[9.0, 9.0, 9.0, 9.0], [1.0, 1.0, 3.0, 8.0], [2.0, 1.0, 3.0, 10.0]]  # the first only warms up
    assert policy.costs() == pytest.approx({"coarse": 3 / 21, "native:1": 5 / 21, "native:4": 9 / 21})
    policy.seconds = [[1.0, 1.0, 1.0, 3.0]]  # a single batch is better than none
    assert policy.costs() == pytest.approx({"coarse": 1 / 4, "native:1": 2 / 4, "native:4": 2 / 4})


def test_a_calibration_knows_how_many_of_its_images_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mst_clipiqa.train.granularity.fit_calibration", lambda *parts: parts[-1])
    records = rated_set(tmp_path, prompts=2).records
    pair = FakePair(view=ViewSpec(size=64, fine="native", crops=4, crop_size=32))
    made = model(pair)
    config = dataclasses.replace(made.config, view=pair.view)
    for seen in (0, 6, 8):
        scorer = Scorer(
            dataclasses.replace(made, config=config, trained_on=trained_on(records[:seen])), ImageEncoder(pair)
        )
        on = calibrate_granularity(scorer, records, "toy")
        assert isinstance(on, CalibratedOn)
        assert (on.data, on.images, on.prompts, on.seen) == ("toy", 8, 2, seen / 8)
