"""What the training of ``mini`` may look at, and what its losses mean: held-out prompts, order, another set's scale."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mini_training import __main__ as stages
from mini_training import familiarity
from mini_training.data import Rated, part_of
from mini_training.fit import Known
from mini_training.learner import photo_loss, rated_loss, shuffled_loss
from mini_training.plan import Weights


def rated() -> Rated:
    """Return 300 prompts of three generators, without images."""
    ids = np.repeat(np.arange(240), 3)
    rng = np.random.default_rng(0)
    return Rated(
        names=[f"{i}.jpg" for i in range(len(ids))],
        prompts=[f"prompt {i}" for i in ids],
        prompt_ids=ids,
        groups=np.arange(len(ids)) % 3,
        group_names=["a_x", "b_x", "c_x"],
        ratings=rng.uniform(0, 5, (len(ids), 2)).astype(np.float32),
        part=part_of(ids),
        photos=[f"p{i}.jpg" for i in range(10)],
        photo_ratings=rng.uniform(0, 100, 10).astype(np.float32),
    )


@pytest.mark.parametrize("stage", ["_development", "_leave_out", "_no_photographs"])
def test_no_replica_is_trained_on_what_it_is_measured_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
) -> None:
    class Enough(Exception):
        pass

    found = rated()
    trainings: list[tuple[Known, str]] = []

    def train(paths: object, rated: Rated, known: Known, place: Any, **_: object) -> None:
        trainings.append((known, place.folder.name))
        raise Enough

    monkeypatch.setattr(stages, "_rated", lambda _: found)
    monkeypatch.setattr(stages, "_train", train)
    with pytest.raises(Enough):
        getattr(stages, stage)(stages.Paths(tmp_path, tmp_path, tmp_path, tmp_path))
    ((known, name),) = trainings
    assert len(known.rows) > 100
    assert set(found.part[known.rows]) == {"train", "validation"}
    assert not (set(found.prompt_ids[known.rows]) & set(found.prompt_ids[found.part == "development"]))
    assert set(known.photos) == (set() if stage == "_no_photographs" else set(np.flatnonzero(found.half)))
    assert (name in set(found.generators[known.rows])) is False  # the generator that is left out, if one is


def test_only_new_prompts_and_left_out_generators_decide_the_intervals() -> None:
    found = rated()
    rng, n = np.random.default_rng(1), len(found.names)
    trained = np.concatenate([(found.part != "development") & (found.generators != "c"), np.zeros(10, bool)])
    arrays = {
        "f_c": rng.standard_normal((n + 10, 4)).astype(np.float32),
        "f_f": rng.standard_normal((n + 10, 4)).astype(np.float32),
        "q": np.concatenate([found.ratings[:, 0], np.zeros(10)]),
        "c": found.ratings[:, 1].copy(),
        "trained": trained,
    }
    for key in ("q", "c"):
        arrays[key][:n][found.part == "development"] = 0  # all errors are on these
    known = familiarity.known_errors(found, arrays)
    new = np.flatnonzero((found.part == "development") & (found.generators != "c"))
    assert known.out == "c"
    for i, target in enumerate(("quality", "correspondence")):
        np.testing.assert_allclose(known.new[target].residuals, -found.ratings[new, i])
        assert list(known.new[target].groups) == found.prompt_ids[new].tolist()
        assert len(known.left[target].residuals) == (found.generators == "c").sum()


def turned_loss(loss: Any) -> tuple[float, float]:
    """Return the loss of two predictions with the same squared error, in the right order and in the wrong one."""
    y = torch.tensor([2.9, 3.1])
    away = torch.tensor([-0.5, 0.5])
    return float(loss(y + away, y)), float(loss(y - away, y))


def test_a_wrong_order_costs_more_than_a_right_one() -> None:
    one, same = torch.eye(2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    learner: Any = SimpleNamespace(photo_scale=1.0, photo_shift=0.0)

    def between(q: Tensor, y: Tensor) -> Tensor:
        return rated_loss(q, y, one, Weights())

    def within(q: Tensor, y: Tensor) -> Tensor:
        return rated_loss(q, y, same, Weights()) - rated_loss(q, y, one, Weights())

    for loss in (between, within, lambda q, y: photo_loss(learner, q, y)):
        right, wrong = turned_loss(loss)
        assert wrong > right + 0.1
    assert turned_loss(within)[0] == pytest.approx(0)


def test_photographs_are_compared_on_their_own_scale() -> None:
    q = torch.tensor([1.0, 2.0, 4.0])
    own: Any = SimpleNamespace(photo_scale=1.5, photo_shift=-0.5)
    assert float(photo_loss(own, q, 1.5 * q - 0.5)) == 0
    for scale, shift in ((1.0, -0.5), (1.5, 0.0)):
        assert float(photo_loss(own, q, scale * q + shift)) > 0.05


def test_another_images_prompt_has_to_score_lower() -> None:
    low, high, yes, y = torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([4.0])
    assert float(shuffled_loss(high, low, yes, y, 0.5)) == 0
    assert float(shuffled_loss(low, high, yes, y, 0.5)) == pytest.approx(1.5)
    assert float(shuffled_loss(low, high, 0 * yes, y, 0.5)) == 0  # the same prompt
    assert float(shuffled_loss(low, high, yes, 0.5 * y, 0.5)) == 0  # an image that shows neither
