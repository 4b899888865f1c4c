"""What a calibration of granularities says of itself: what they cost, and which images the model had seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.scoring.calibration import CalibratedOn
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import trained_on
from mst_clipiqa.train.granularity import _EveryGranularity, calibrate_granularity
from tests.fakes import FakePair, draw, rated_set
from tests.scoring.test_scorer import model


def test_a_cost_is_the_time_of_both_streams_as_a_share_of_that_of_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = _EveryGranularity(FakePair(view=ViewSpec(fine="native", crops=9)))
    assert policy.names == ["native:1", "native:4", "fine"]
    encoder = ImageEncoder(policy.encoders, policy=policy, batch_size=4)
    list(encoder.batches([draw(i, i / 9) for i in range(6)], encoder.open))
    assert len(policy.timed) in (2, 4)  # the first images that were encoded together
    seconds = {1: 2.0, 4: 6.0, 9: 18.0}
    monkeypatch.setattr(policy, "_seconds", lambda stream, x: 3.0 if stream == "coarse" else seconds[x.shape[1]])
    assert policy.costs() == pytest.approx({"coarse": 3 / 21, "native:1": 5 / 21, "native:4": 9 / 21})


def test_a_cost_is_of_a_usual_turn_while_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = _EveryGranularity(FakePair())
    clock = iter([0.0, 9.0, 9.0, 10.0, 10.0, 11.0, 11.0, 12.5, 12.5, 14.0])  # the first turn warms up
    monkeypatch.setattr("mst_clipiqa.train.granularity.time.perf_counter", lambda: next(clock))
    assert policy._seconds("coarse", torch.zeros(1, 3, 8, 8, dtype=torch.uint8)) == 1.5


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
