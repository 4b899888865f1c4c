"""The scores of a prompt head end on the scale of the ratings, even after a short training, and no order changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mst_clipiqa.data import RatedSet, make_split
from mst_clipiqa.evaluate import rmse, srcc
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.fit import fit, predict
from mst_clipiqa.train.recipe import FAST, PAPER
from mst_clipiqa.train.scale import fit_line, start_at_mean, transform
from tests.fakes import DIM, FakePair, rated_set

SHORT = replace(FAST, epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    return rated_set(tmp_path_factory.mktemp("rated"), prompts=20, each=2)


@pytest.fixture(scope="module")
def table(rated: RatedSet) -> FeatureTable:
    return encode_records(ImageEncoder(FakePair()), rated.records, prompts=True)


def part(table: FeatureTable, rated: RatedSet, name: str, head: Head = "prompt") -> RatedFeatures:
    split = make_split(rated.records, seed=1, validation_share=0.3)
    return rated_features(table, getattr(split, name), "quality", head, (0, 5))


def model(head: Head = "prompt") -> MSTCLIPIQA:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MSTCLIPIQA(DIM, head, DIM)


def test_a_transformed_model_gives_the_transformed_scores(table: FeatureTable, rated: RatedSet) -> None:
    one, training = model(), part(table, rated, "train")
    before = predict(one, training)
    transform(one, 0.5, 2.0)
    assert torch.allclose(predict(one, training), 0.5 * before + 2.0, atol=1e-5)


def test_a_start_is_at_the_mean_rating(table: FeatureTable, rated: RatedSet) -> None:
    one, training = model(), part(table, rated, "train")
    start_at_mean(one, predict(one, training), training.y)
    assert predict(one, training).mean().item() == pytest.approx(training.y.mean().item(), abs=1e-5)


def test_the_line_is_that_of_least_squares(table: FeatureTable, rated: RatedSet) -> None:
    one, training = model(), part(table, rated, "train")
    q = predict(one, training)
    y = 3 + 2 * (q - q.mean()) + 0.1 * torch.linspace(-1, 1, len(q))  # rises with q
    slope, offset = np.polyfit(q.double().numpy(), y.double().numpy(), 1)
    fit_line(one, q, y)
    assert np.allclose(predict(one, training).numpy(), slope * q.numpy() + offset, atol=1e-4)


def test_a_falling_line_only_shifts(table: FeatureTable, rated: RatedSet) -> None:
    one, training = model(), part(table, rated, "train")
    q = predict(one, training)
    fit_line(one, q, 3 - (q - q.mean()))
    assert torch.allclose(predict(one, training), q - q.mean() + 3, atol=1e-5)
    fit_line(one, torch.ones(4), torch.full((4,), 2.0))  # all scores alike: no slope to divide by
    assert torch.allclose(predict(one, training), q - q.mean() + 4, atol=1e-5)


def test_a_template_head_is_left_alone(table: FeatureTable, rated: RatedSet) -> None:
    training, validation = (part(table, rated, name, "template") for name in ("train", "validation"))
    found = [fit(training, validation, "template", replace(SHORT, on_scale=on)).model for on in (True, False)]
    ours, theirs = (one.state_dict() for one in found)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_short_training_ends_on_the_scale(table: FeatureTable, rated: RatedSet) -> None:
    training, validation, test = (part(table, rated, name) for name in ("train", "validation", "test"))
    on = fit(training, validation, "prompt", SHORT).model
    off = fit(training, validation, "prompt", replace(SHORT, on_scale=False)).model
    alone = rmse(np.full(len(test), training.y.mean().item()), test.y.numpy())
    errors = [rmse(predict(one, test).numpy(), test.y.numpy()) for one in (on, off)]
    assert errors[0] < 1.1 * alone < errors[1]
    assert predict(on, training).mean().item() == pytest.approx(training.y.mean().item(), abs=1e-4)


def test_the_line_after_training_changes_no_order(table: FeatureTable, rated: RatedSet) -> None:
    training, validation = (part(table, rated, name) for name in ("train", "validation"))
    found = fit(training, validation, "prompt", replace(SHORT, epochs=4))
    of_epoch = found.best.validation_srcc  # measured before the line
    assert srcc(predict(found.model, validation).numpy(), validation.y.numpy()) == pytest.approx(of_epoch)


def test_a_resumed_training_ends_with_the_same_weights(table: FeatureTable, rated: RatedSet, tmp_path: Path) -> None:
    training, validation = (part(table, rated, name) for name in ("train", "validation"))
    recipe = replace(SHORT, epochs=4)
    whole = fit(training, validation, "prompt", recipe).model.state_dict()

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(training, validation, "prompt", recipe, checkpoint=tmp_path / "c.pt", report=stop)
    resumed = fit(training, validation, "prompt", recipe, checkpoint=tmp_path / "c.pt").model.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_published_recipe_has_no_such_step() -> None:
    assert FAST.on_scale and not PAPER.on_scale
