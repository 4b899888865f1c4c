"""Coarse first: a bound that holds, full scores where it does not spare, and a word on every estimate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mst_clipiqa.encoders.pair import Stream
from mst_clipiqa.errors import DataError, ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.adaptive import (
    ESTIMATED,
    FILE,
    AdaptiveScorer,
    FineEstimator,
    adaptive,
    calibrate,
    home,
    values,
)
from mst_clipiqa.scoring.predictor import Predictor, zero_shot_model
from mst_clipiqa.scoring.scorer import Request, Scorer
from tests.fakes import DIM, FakePair, draw


@dataclasses.dataclass
class TwoPair(FakePair):
    """Also counts the images that its fine stream encodes."""

    fine: int = 0

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        self.fine += len(views) if stream == "fine" else 0
        return super().encode_chunk(stream, views)


@pytest.fixture
def scorer() -> Scorer:
    pair = TwoPair()
    return Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        draw(i, i / 10).save(tmp_path / f"{i}.png")
    return tmp_path


def features(images: int = 400) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    f_c = torch.randn(images, DIM)
    return f_c, f_c @ torch.randn(DIM, DIM) / 8 + 0.1 * torch.randn(images, DIM)


def test_the_bound_holds_on_other_images(scorer: Scorer) -> None:
    f_c, f_f = features(800)
    half = f_c[:400], f_f[:400]
    estimator = calibrate(scorer.predictor, *half, ["a fox"] * 400, [str(i // 4) for i in range(400)])
    prompts: list[str | None] = ["a fox"] * 400
    full = values(scorer.predictor, f_c[400:], f_f[400:], prompts)
    guess = values(scorer.predictor, f_c[400:], estimator.fine(f_c[400:]), prompts)
    bounds = estimator.bounds(scorer.predictor, f_c[400:], prompts)
    assert set(bounds) == {"quality", "correspondence"}
    for name, bound in bounds.items():
        error = (full[name] - guess[name]).abs()
        assert (error <= bound).float().mean() >= 0.93
        assert bound.median() < 4 * error.max()  # a bound that allowed everything would hold as well


def scaled(estimator: FineEstimator, factor: float) -> FineEstimator:
    return dataclasses.replace(estimator, factors=dict.fromkeys(estimator.factors, factor))


def calibrated(scorer: Scorer, folder: Path, factor: float, check: int = 0) -> AdaptiveScorer:
    f_c, f_f = features()
    estimator = calibrate(scorer.predictor, f_c, f_f, ["a fox"] * 400, [str(i // 4) for i in range(400)])
    scaled(estimator, factor).save(folder / FILE)
    return adaptive(scorer, folder, 0.5, check)


def test_where_the_bound_is_wide_nothing_changes(scorer: Scorer, folder: Path) -> None:
    requests = [Request(folder / f"{i}.png", "a fox") for i in range(10)]
    full = list(scorer.many(requests))
    careful = calibrated(scorer, folder, 1e9)
    assert list(careful.many(requests)) == full
    assert careful.encoder.tally.words(0.5) == "The fine stream was skipped for 0 of 10 images (0%)."


def test_what_is_skipped_is_not_encoded_and_says_so(scorer: Scorer, folder: Path) -> None:
    pair = scorer.encoder.encoders
    assert isinstance(pair, TwoPair)
    bold = calibrated(scorer, folder, 0.0, check=3)
    scores = list(bold.many([Request(folder / f"{i}.png", "a fox") for i in range(10)]))
    assert pair.fine == 3  # those that were to be checked
    assert [ESTIMATED in score.reason for score in scores].count(True) == 7
    assert len(bold.encoder.tally.errors) == 3
    assert "skipped for 10 of 10 images (100%). Checked 3 of them" in bold.encoder.tally.words(0.5)


def test_bad_images_and_missing_prompts_keep_their_place(scorer: Scorer, folder: Path) -> None:
    (folder / "5.png").write_bytes(b"no image")
    bold = calibrated(scorer, folder, 0.0)
    scores = list(bold.many([Request(folder / f"{i}.png", None if i == 2 else "a fox") for i in range(10)]))
    assert [score.status for score in scores].count("error") == 1
    assert scores[5].status == "error"
    assert scores[2].correspondence is None
    assert scores[2].quality is not None


def test_a_calibration_of_another_model_is_refused(scorer: Scorer, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected adaptive\.safetensors beside the model for --adaptive, got none"):
        adaptive(scorer, folder, 0.5)
    calibrated(scorer, folder, 1.0)
    with pytest.raises(ModelError, match="to belong to this model"):
        FineEstimator.load(folder / FILE, "another")
    (folder / FILE).write_bytes(b"garbage")
    with pytest.raises(ModelError, match="Expected a calibration in"):
        FineEstimator.load(folder / FILE, "f" * 64)


def test_usage(scorer: Scorer, folder: Path) -> None:
    calibrated(scorer, folder, 1.0)
    with pytest.raises(UsageError, match="Expected a tolerance above 0"):
        adaptive(scorer, folder, 0.0)
    with pytest.raises(UsageError, match="Expected a trained model for --adaptive"):
        home("zero-shot:openai")
    with pytest.raises(DataError, match="Expected at least 128 images of two prompts"):
        calibrate(Predictor(scorer.model, scorer.encoder.encoders), *features(20), ["a"] * 20, ["a"] * 20)


def test_a_target_that_calibration_could_not_score_spares_no_image(scorer: Scorer) -> None:
    f_c, f_f = features()
    estimator = calibrate(scorer.predictor, f_c, f_f, [None] * 400, [str(i // 4) for i in range(400)])
    bounds = estimator.bounds(scorer.predictor, f_c[:2], ["a fox", None])
    assert bounds["correspondence"].tolist() == [torch.inf, 0.0]
    assert torch.isfinite(bounds["quality"]).all()
