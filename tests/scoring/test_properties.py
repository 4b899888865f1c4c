"""What scores are whatever the prompt, the features and the calibration: on their scale, and of one image alone."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair, draw
from tests.scoring.test_scorer import model

IMAGES = [draw(i, i / 3, size=40) for i in range(2)]
PROMPTS: Any = st.none() | st.text(max_size=12) | st.sampled_from(["a red fox", "zzz", "  ", math.nan, 3, b"a fox"])
LEVELS = st.lists(st.floats(0.001, 1), min_size=5, max_size=5)


@cache
def scorer() -> Scorer:
    pair = FakePair()
    return Scorer(model(pair), ImageEncoder(pair, batch_size=3))


@cache
def alone(image: int, prompt: Any) -> Score:
    (found,) = scorer().many([ScoreRequest(IMAGES[image], prompt)])
    return found


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), PROMPTS), min_size=1, max_size=4))
def test_any_prompts_give_a_score_each_in_order_and_as_if_alone(asked: list[tuple[int, Any]]) -> None:
    found = list(scorer().many([ScoreRequest(IMAGES[image], prompt) for image, prompt in asked]))
    assert len(found) == len(asked)
    for score, (image, prompt) in zip(found, asked, strict=True):
        assert score == alone(image, prompt)
        text = isinstance(prompt, str) and prompt.strip()
        assert score.error == (None if text or prompt is None else "prompt")
        assert bool(score.reason) or score.error is None
        read = bool(text) and score.error is None and "lie outside" not in score.reason
        assert [score.targets[name] is not None for name in ("quality", "correspondence")] == [not score.error, read]
        for name, value in score.targets.items():
            low, high = score.ranges[name]
            assert value is None or low <= value <= high
        for name, (low, high) in score.intervals.items():
            value = score.targets[name]
            assert value is not None
            assert score.ranges[name][0] <= low <= value <= high <= score.ranges[name][1]


@settings(max_examples=40, deadline=None)
@given(levels=LEVELS, low=st.floats(-10, 10), size=st.floats(0.1, 100))
def test_the_spread_of_levels_is_at_most_half_the_scale_and_grows_with_it(
    levels: list[float], low: float, size: float
) -> None:
    shares = tuple(level / sum(levels) for level in levels)
    spread = Score(levels=shares, ranges={"quality": (low, low + size)}).quality_spread
    unit = Score(levels=shares, ranges={"quality": (1.0, 5.0)}).quality_spread
    assert spread is not None and unit is not None
    assert 0 < spread <= size / 2 + 1e-6
    assert spread == pytest.approx(unit * size / 4, rel=1e-6)


@pytest.mark.parametrize("half", [0.1, 0.6])  # as a share of the scale: some intervals reach beyond both of its ends
@pytest.mark.parametrize(("low", "high"), [(0.0, 5.0), (20.0, 90.0), (-1.0, 1.0), (-9.0, -4.0)])
def test_everything_in_native_units_moves_with_the_scale_and_stays_on_it(low: float, high: float, half: float) -> None:
    pair, prompts = FakePair(), ["a red fox", "a blue car"]
    f_c, f_f = torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(0))

    def found(low: float, high: float) -> tuple[list[Score], list[Tensor]]:
        made = model(pair)
        targets = {
            name: dataclasses.replace(target, low=low, high=high, interval=half * (high - low))
            for name, target in made.config.targets.items()
        }
        scaled = TrainedModel(dataclasses.replace(made.config, targets=targets), made.parts)
        predictor = Scorer(scaled, ImageEncoder(pair)).predictor
        slopes = predictor.gradients(f_c, f_f, prompts).values()
        return predictor.predict(f_c, f_f, prompts), [slope for _, slope in slopes]

    (plain, slopes), (moved, moved_slopes), size = found(1.0, 5.0), found(low, high), (high - low) / 4
    for one, other in zip(plain, moved, strict=True):
        assert one.quality_spread is not None
        assert other.quality_spread == pytest.approx(one.quality_spread * size, abs=1e-4)
        for name, value in one.targets.items():
            assert value is not None and other.targets[name] == pytest.approx(low + (value - 1) * size, abs=1e-4)
            ends = max(1.0, value - 4 * half), min(5.0, value + 4 * half)
            assert other.intervals[name] == pytest.approx([low + (end - 1) * size for end in ends], abs=1e-4)
            assert low <= other.intervals[name][0] <= other.intervals[name][1] <= high
    assert half == 0.1 or all(score.intervals["quality"] == (low, high) for score in moved)
    for a, b in zip(slopes, moved_slopes, strict=True):
        torch.testing.assert_close(b, a * size)


@pytest.mark.parametrize("name", ["quality", "correspondence"])
def test_gradients_are_how_scores_change_with_the_fine_feature(name: str) -> None:
    predictor: Predictor = scorer().predictor
    f_c, f_f, step = *torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)), 0.1
    prompts = ["a red fox", None, "a blue car"]
    rows, slopes = predictor.gradients(f_c, f_f, prompts)[name]
    assert rows == ([0, 1, 2] if name == "quality" else [0, 2])
    for row, slope in zip(rows, slopes, strict=True):
        way = slope / slope.norm()
        sides = [
            predictor.predict(f_c[row : row + 1], (f_f[row] + sign * step * way).float()[None], [prompts[row]])[0]
            for sign in (1, -1)
        ]
        ends = [side.targets[name] for side in sides]
        assert ends[0] is not None and ends[1] is not None
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(slope.norm()), rel=0.02)
