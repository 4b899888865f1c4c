"""Coarse first: a bound that holds, full scores where it does not spare, and a word on every estimate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mst_clipiqa.errors import DataError, ModelError, PromptError, UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.scoring.adaptive import ESTIMATED, AdaptiveEncoding
from mst_clipiqa.scoring.fine_estimator import ESTIMATOR_FILE, FineEstimator, calibrate, estimator_path, values
from mst_clipiqa.scoring.folders import trained_folder
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT, Predictor, zero_shot_model
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
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


def calibrated(scorer: Scorer, folder: Path, factor: float, check: int = 0, tolerance: float = 0.5) -> Scorer:
    f_c, f_f = features()
    estimator = calibrate(scorer.predictor, f_c, f_f, ["a fox"] * 400, [str(i // 4) for i in range(400)])
    scaled(estimator, factor).save(path := estimator_path(folder))
    policy = AdaptiveEncoding(scorer.predictor, FineEstimator.load(path, scorer.model.sha256), tolerance, check)
    return Scorer(scorer.model, ImageEncoder(scorer.encoder.encoders, batch_size=4, policy=policy), scorer.predictor)


def test_where_the_bound_is_wide_nothing_changes(scorer: Scorer, folder: Path) -> None:
    requests = [ScoreRequest[None](folder / f"{i}.png", "a fox") for i in range(10)]
    full = list(scorer.many(requests))
    careful = calibrated(scorer, folder, 1e9)
    assert list(careful.many(requests)) == full
    assert careful.encoder.policy.summary() == "The fine stream was skipped for 0 of 10 images (0%)."


def test_what_is_skipped_is_not_encoded_and_says_so(scorer: Scorer, folder: Path) -> None:
    pair = scorer.encoder.encoders
    assert isinstance(pair, TwoPair)
    bold = calibrated(scorer, folder, 0.0, check=3)
    scores = list(bold.many([ScoreRequest(folder / f"{i}.png", "a fox") for i in range(10)]))
    assert pair.fine == 3  # those that were to be checked
    assert [ESTIMATED in score.reason for score in scores].count(True) == 7
    assert "skipped for 10 of 10 images (100%). Checked 3 of them" in bold.encoder.policy.summary()


@pytest.mark.parametrize("wide", ["quality", "correspondence"])
def test_the_fine_stream_is_skipped_only_if_every_target_allows_it(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch, wide: str
) -> None:
    def bounds(self: FineEstimator, predictor: Predictor, f_c: Tensor, prompts: object) -> dict[str, Tensor]:
        narrow = {"quality": torch.zeros(len(f_c)), "correspondence": torch.zeros(len(f_c))}
        return narrow | {wide: torch.full((len(f_c),), 9.0)}

    bold = calibrated(scorer, folder, 0.0)
    monkeypatch.setattr(FineEstimator, "bounds", bounds)
    (score,) = bold.many([ScoreRequest(folder / "1.png", "a fox")])
    assert score == scorer(folder / "1.png", "a fox")
    assert score.reason == ""


def test_bad_images_and_missing_prompts_keep_their_place(scorer: Scorer, folder: Path) -> None:
    (folder / "5.png").write_bytes(b"no image")
    bold = calibrated(scorer, folder, 0.0)
    scores = list(bold.many([ScoreRequest(folder / f"{i}.png", None if i == 2 else "a fox") for i in range(10)]))
    assert [score.status for score in scores].count("error") == 1
    assert scores[5].status == "error"
    assert scores[2].correspondence is None
    assert scores[2].quality is not None


def test_an_empty_prompt_is_an_error_of_the_prompt_and_no_estimate(scorer: Scorer, folder: Path) -> None:
    bold = calibrated(scorer, folder, 0.0)
    (score,) = bold.many([(folder / "1.png", " ")])
    assert (score.error, score.reason) == ("prompt", EMPTY_PROMPT)
    with pytest.raises(PromptError, match="expected words in the prompt"):
        bold(folder / "1.png", " ")


def test_features_to_ask_anything_of_are_never_estimates(scorer: Scorer, folder: Path) -> None:
    bold = calibrated(scorer, folder, 0.0)
    files = [folder / f"{i}.png" for i in range(4)]
    for one, want in zip(bold.encode(files), scorer.encode(files), strict=True):
        assert one.note == ""
        assert torch.equal(one.f_f, want.f_f)


def test_estimates_are_not_cached(scorer: Scorer, folder: Path) -> None:
    pair = scorer.encoder.encoders
    policy = calibrated(scorer, folder, 0.0).encoder.policy
    files = [folder / f"{i}.png" for i in range(4)]
    with Cache(folder / "cache") as cache:
        list(Scorer(scorer.model, ImageEncoder(pair, cache=cache, policy=policy)).many(files))
        assert cache.info()[0].images == 0
        list(Scorer(scorer.model, ImageEncoder(pair, cache=cache)).many(files))
        assert cache.info()[0].images == 4


def test_a_calibration_of_another_model_is_refused(scorer: Scorer, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected adaptive\.safetensors beside the model for --adaptive, got none"):
        FineEstimator.load(estimator_path(folder), scorer.model.sha256)
    calibrated(scorer, folder, 1.0)
    with pytest.raises(ModelError, match="to belong to this model"):
        FineEstimator.load(folder / ESTIMATOR_FILE, "another")
    (folder / ESTIMATOR_FILE).write_bytes(b"garbage")
    with pytest.raises(ModelError, match="Expected a calibration in"):
        FineEstimator.load(folder / ESTIMATOR_FILE, "f" * 64)


def test_usage(scorer: Scorer, folder: Path) -> None:
    with pytest.raises(UsageError, match="Expected a tolerance above 0"):
        calibrated(scorer, folder, 1.0, tolerance=0.0)
    with pytest.raises(UsageError, match="The flag --adaptive needs a trained model"):
        estimator_path(None)
    with pytest.raises(UsageError, match="The flag --adaptive-check needs --adaptive TOL"):
        Scorer.load("mini", adaptive_check=3)
    with pytest.raises(DataError, match="Expected at least 192 images of three prompts"):
        calibrate(Predictor(scorer.model, scorer.encoder.encoders), *features(20), ["a"] * 20, ["a"] * 20)


def test_a_target_that_calibration_could_not_score_spares_no_image(scorer: Scorer) -> None:
    f_c, f_f = features()
    estimator = calibrate(scorer.predictor, f_c, f_f, [None] * 400, [str(i // 4) for i in range(400)])
    bounds = estimator.bounds(scorer.predictor, f_c[:2], ["a fox", None])
    assert bounds["correspondence"].tolist() == [torch.inf, 0.0]
    assert torch.isfinite(bounds["quality"]).all()


def test_a_row_says_what_was_measured_on_images_that_were_skipped(scorer: Scorer, folder: Path) -> None:
    f_c, f_f = features(600)
    groups = [str(i // 4) for i in range(600)]
    estimator = calibrate(scorer.predictor, f_c, f_f, ["a fox"] * 600, groups)
    assert len(estimator.check) == 200  # a third of the prompts, which neither fit nor calibrate
    tolerance = float(estimator.check[:, 0].median())
    skipped = estimator.check[:, 0] <= tolerance
    share = (estimator.check[:, 1] <= tolerance)[skipped].float().mean().item()
    count, held = estimator.measured(tolerance)
    assert count == skipped.sum()
    assert held == pytest.approx(share)
    policy = AdaptiveEncoding(scorer.predictor, scaled(estimator, 0.0), tolerance)
    bold = Scorer(scorer.model, ImageEncoder(scorer.encoder.encoders, policy=policy), scorer.predictor)
    (score,) = bold.many([(folder / "1.png", "a fox")])
    words = f"of {int(skipped.sum())} images that calibration skipped, {share:.0%} were within {tolerance:g}"
    assert score.reason == f"{ESTIMATED}; {words}"


def test_a_tolerance_that_calibration_does_not_support_is_refused(scorer: Scorer) -> None:
    f_c, f_f = features(600)
    estimator = calibrate(scorer.predictor, f_c, f_f, ["a fox"] * 600, [str(i // 4) for i in range(600)])
    estimator.require(float(estimator.check[:, 0].max()))
    with pytest.raises(UsageError, match=r"Expected a tolerance at which .* skipped at least 20 images"):
        estimator.require(float(estimator.check[:, 0].min()) / 2)
    wrong = dataclasses.replace(estimator, check=estimator.check * torch.tensor([0.0, 1e6]))
    with pytest.raises(UsageError, match="Expected a tolerance that held"):
        wrong.require(1.0)


def test_mini_has_no_adaptive_mode_because_it_would_be_slower() -> None:
    with pytest.raises(UsageError, match="slower"):
        Scorer.load("mini", adaptive=0.3)
    with pytest.raises(UsageError, match="slower"):
        estimator_path(trained_folder("mini"))
