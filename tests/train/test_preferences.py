"""Training on pairs that are drawn from a rated set, so that the right answer is known."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from mst_clipiqa.data import PreferenceSet, RatedSet, load_preferences, make_split
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder import load_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.build import build
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.fit import fit
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.preferences import (
    all_differences,
    bradley_terry_loss,
    pair_features,
    put_on_scale,
    share_right,
)
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, epochs=12, batch_size=16, patience=12, learning_rates=(3e-3,))


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    return rated_set(tmp_path_factory.mktemp("rated"), prompts=24)


@pytest.fixture(scope="module")
def preferences(rated: RatedSet) -> PreferenceSet:
    """Write all pairs of images of one prompt, with the better rated one as the preferred."""
    by_prompt: dict[str, list[tuple[str, float]]] = {}
    for r in rated.records:
        by_prompt.setdefault(r.prompt or "", []).append((r.name, r.targets["quality"]))
    with (rated.root / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_a", "image_b", "prompt", "preferred"])
        for prompt, images in by_prompt.items():
            for (a, of_a), (b, of_b) in combinations(images, 2):
                writer.writerow([a, b, prompt, "a" if of_a > of_b else "b"])
    return load_preferences(rated.root / "pairs.csv")


def job(preferences: PreferenceSet, out: Path, rated: RatedSet | None = None) -> TrainingJob:
    images = replace(preferences.images, ranges={"quality": (1.0, 5.0)})
    records = [*(rated.records if rated else ()), *images.records]
    split = make_split(records, seed=2, validation_share=0.25)
    return TrainingJob(rated or images, split, "quality", "template", QUICK, out, preferences=preferences)


def test_the_loss_is_that_of_bradley_and_terry() -> None:
    one = torch.ones(1)
    assert bradley_terry_loss(torch.zeros(1), one, one).item() == pytest.approx(math.log(2))
    assert bradley_terry_loss(torch.tensor([1.5]), one, one).item() == pytest.approx(math.log1p(math.exp(-3)))
    both = bradley_terry_loss(torch.tensor([0.5, -0.5]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 1.0]))
    assert both.item() == pytest.approx((3 * math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 4)
    gap = torch.tensor([0.7], requires_grad=True)
    bradley_terry_loss(gap, torch.tensor([0.5]), one).backward()
    assert gap.grad is not None
    assert gap.grad.item() > 0  # a tie pulls the scores together


def test_share_right_counts_equal_scores_half_and_no_ties() -> None:
    found = share_right(torch.tensor([1.0, -1.0, 0.0, 5.0]), torch.tensor([1.0, 1.0, 0.0, 0.5]))
    assert found == 0.5
    assert math.isnan(share_right(torch.ones(1), torch.full((1,), 0.5)))


def test_pairs_alone_make_a_model_that_orders_and_says_that_it_is_uncalibrated(
    preferences: PreferenceSet, rated: RatedSet, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    result = build(job(preferences, out), ImageEncoder(FakePair()), no_bar)
    assert result is not None
    assert result.evaluation is None
    assert result.preferences is not None
    assert result.preferences.accuracy > 0.85
    assert result.preferences.groups == len({r.group for r in job(preferences, out).split.test})
    model = load_model(out)
    target = model.config.targets["quality"]
    assert (target.calibrated, target.interval, target.low, target.high) == (False, None, 1.0, 5.0)
    score = Scorer(model, ImageEncoder(FakePair()))(str(rated.records[0].file))
    assert not score.calibrated
    text = (out / "README.md").read_text()
    assert "**Uncalibrated: there were no ratings, so scores only order images" in text
    assert f"| preferred image of a pair | {result.preferences.accuracy:.4f} |" in text
    entry = json.loads((out / "training.json").read_text())["quality"]
    assert entry["preferences"]["train"] + entry["preferences"]["validation"] + entry["preferences"]["test"] == 24 * 6
    assert (entry["best"]["validation_srcc"], entry["test"]["baseline_srcc"]) == (None, None)


def test_scores_of_a_prompt_head_stay_on_the_scale_and_in_order(parts: tuple[RatedFeatures, RatedFeatures]) -> None:
    pairs = parts[0].pairs
    assert pairs is not None
    rows = torch.cat([pairs.a, pairs.b]).unique()
    for factor, level in ((1.0, 40.0), (300.0, 0.0)):  # far above the scale, and far too wide for it
        torch.manual_seed(0)
        model = MSTCLIPIQA(pairs.f_c.shape[1], "prompt").requires_grad_(False)
        assert isinstance(model.head, PromptHead)
        model.head.w_o.weight.mul_(factor)
        model.head.w_o.bias.add_(level)
        before = model(pairs.f_c[rows], pairs.f_f[rows], pairs.text(rows)).q
        put_on_scale(model, pairs)
        after = model(pairs.f_c[rows], pairs.f_f[rows], pairs.text(rows)).q
        assert 1.49 < after.min() < after.max() < 4.51
        assert srcc(after.numpy(), before.numpy()) > 0.999


def test_a_prompt_head_scores_as_it_was_measured(preferences: PreferenceSet, tmp_path: Path) -> None:
    what = replace(job(preferences, tmp_path / "m"), head="prompt")
    result = build(what, ImageEncoder(FakePair()), no_bar)
    assert result is not None
    assert result.preferences is not None
    scorer = Scorer(load_model(tmp_path / "m"), ImageEncoder(FakePair()))
    pairs = preferences.among(what.split.test)
    both = [[scorer(str(one.file), one.prompt).quality or 0 for one in (p.a, p.b)] for p in pairs]
    right = [(a > b) == bool(p.preferred) for (a, b), p in zip(both, pairs, strict=True)]
    assert sum(right) / len(right) == pytest.approx(result.preferences.accuracy)


def test_ratings_beside_pairs_calibrate_and_share_no_prompt_across_parts(
    preferences: PreferenceSet, rated: RatedSet, tmp_path: Path
) -> None:
    few = replace(rated, records=tuple(r for r in rated.records if int(r.name.split("_")[1]) < 12))
    what = job(preferences, tmp_path / "model", few)
    assert what.split.leakage == 0
    result = build(what, ImageEncoder(FakePair()), no_bar)
    assert result is not None
    assert result.evaluation is not None
    assert result.preferences is not None
    assert result.evaluation.agreement.n == len([r for r in what.split.test if r.targets])
    target = load_model(tmp_path / "model").config.targets["quality"]
    assert (target.calibrated, target.low, target.high) == (True, 0.0, 5.0)
    assert "and pairs of pairs.csv, " in (tmp_path / "model" / "README.md").read_text()


def test_ratings_beside_pairs_that_train_nothing_are_refused(
    preferences: PreferenceSet, rated: RatedSet, tmp_path: Path
) -> None:
    trained_on = {r.name for r in job(preferences, tmp_path / "model", rated).split.train}
    unrated = tuple(replace(r, targets={"other": 1.0}) if r.name in trained_on else r for r in rated.records)
    what = job(preferences, tmp_path / "model", replace(rated, records=unrated))
    with pytest.raises(DataError, match=r"2 images with a rating of quality in each part .* got 0 \(train\): rate"):
        build(what, ImageEncoder(FakePair()), no_bar)
    assert not what.out.exists()


@pytest.fixture(scope="module")
def parts(rated: RatedSet, preferences: PreferenceSet) -> tuple[RatedFeatures, RatedFeatures]:
    """Return a training and a validation part, with ratings and pairs."""
    everything = [*rated.records, *preferences.images.records]
    table: FeatureTable = encode_records(ImageEncoder(FakePair()), everything, prompts=True)
    split = make_split(everything, seed=1, validation_share=0.25)
    found = []
    for part in (split.train, split.validation):
        ratings = rated_features(table, [r for r in part if r.targets], "quality", "prompt", (0, 5))
        found.append(replace(ratings, pairs=pair_features(table, preferences.among(part), "prompt")))
    return found[0], found[1]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_training_on_both_resumes_to_the_same_weights(
    parts: tuple[RatedFeatures, RatedFeatures], tmp_path: Path, stop: int
) -> None:
    recipe, seen = replace(QUICK, epochs=4), list[Epoch]()

    def interrupt(line: Epoch) -> None:
        seen.append(line)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(*parts, "prompt", recipe, checkpoint=tmp_path / "c.pt", report=interrupt)
    resumed, whole = fit(*parts, "prompt", recipe, checkpoint=tmp_path / "c.pt"), fit(*parts, "prompt", recipe)
    left, right = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert resumed.history == whole.history
    last = whole.history[-1]
    assert last.agreement == pytest.approx((last.validation_srcc + 2 * (last.validation_pairs or 0) - 1) / 2)


def test_pairs_the_other_way_round_teach_the_opposite(parts: tuple[RatedFeatures, RatedFeatures]) -> None:
    train, held = (replace(part, f_c=part.f_c[:0], f_f=part.f_f[:0], y=part.y[:0]) for part in parts)
    assert train.pairs is not None
    assert held.pairs is not None
    turned = [replace(part, pairs=replace(p, preferred=1 - p.preferred)) for part in (train, held) if (p := part.pairs)]
    shares = []
    for training, validation in ((train, held), (turned[0], turned[1])):
        model = fit(training, validation, "prompt", QUICK).model
        shares.append(share_right(all_differences(model, held.pairs), held.pairs.preferred))
    assert shares[0] > 0.8
    assert shares[1] < 0.2


def test_a_checkpoint_of_other_preferences_is_refused(
    parts: tuple[RatedFeatures, RatedFeatures], tmp_path: Path
) -> None:
    train, held = parts
    fit(train, held, "prompt", replace(QUICK, epochs=1), checkpoint=tmp_path / "c.pt")
    assert train.pairs is not None
    other = replace(train, pairs=replace(train.pairs, preferred=1 - train.pairs.preferred))
    with pytest.raises(UsageError, match=r"\(changed: pairs\)"):
        fit(other, held, "prompt", replace(QUICK, epochs=1), checkpoint=tmp_path / "c.pt")


def test_too_few_pairs_is_said(parts: tuple[RatedFeatures, RatedFeatures]) -> None:
    train, held = (replace(part, y=part.y[:0]) for part in parts)
    one = replace(held, pairs=None)
    with pytest.raises(
        UsageError, match=r"Expected at least 2 pairs to train on and 2 to validate on, got \d+ and 0: add pairs, or"
    ):
        fit(train, one, "prompt", QUICK)


def test_a_refused_training_leaves_no_folder_behind(preferences: PreferenceSet, tmp_path: Path) -> None:
    out = tmp_path / "m"
    too_few = job(replace(preferences, pairs=preferences.pairs[:1]), out)
    for exists in (False, True):
        with pytest.raises(UsageError, match="Expected at least 2 pairs to train on"):
            build(too_few, ImageEncoder(FakePair()), no_bar)
        assert out.exists() == exists
        out.mkdir(exist_ok=True)  # by somebody, whose it stays
