"""Splits that are tested on the same images: their intervals are over prompts, not over splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mst_clipiqa.benchmark.compare_results import compare_results
from mst_clipiqa.benchmark.over_prompts import interval_over_prompts, resampled_units
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import Resampling, bootstrap, paired_difference, srcc
from mst_clipiqa.evaluate.comparison import difference_over_prompts

FEW = Resampling(resamples=200)
EACH = 3


class World:
    """Ratings of prompts, and models of some splits that are wrong alike, apart from a little noise."""

    def __init__(self, seed: int, prompts: int = 30, splits: int = 4) -> None:
        self.rng, self.splits = np.random.default_rng(seed), splits
        self.index = np.repeat(np.arange(prompts), EACH)
        self.groups = [f"toy/{i}" for i in self.index]
        self.names = [f"{i}.png" for i in range(len(self.index))]
        self.mos = self.normal()

    def normal(self) -> NDArray[np.float64]:
        """Return numbers that are alike within a prompt, float (n,)."""
        of_prompts = self.rng.normal(size=self.index[-1] + 1)
        return np.asarray(0.5 * of_prompts[self.index] + self.rng.normal(size=len(self.index)))

    def predictions(self) -> list[NDArray[np.float64]]:
        """Return the predictions of each split for an encoder, float (n,)."""
        right = self.mos + self.normal()
        return [right + 0.1 * self.rng.normal(size=len(right)) for _ in range(self.splits)]

    def result(self, predictions: list[NDArray[np.float64]]) -> dict[str, Any]:
        """Return what ``benchmark --test-data`` writes, as far as a comparison needs it."""
        same = {"names": self.names, "groups": self.groups, "mos": self.mos.tolist()}
        runs = [
            {"target": "quality", "head": "template", "split": i, "predictions": one.tolist(), **same}
            for i, one in enumerate(predictions)
        ]
        return {"data": "x", "tested_on": "y", "split_by": "prompt", "test_share": {"quality": 0.2}, "runs": runs}


def test_one_split_has_the_interval_of_its_model() -> None:
    world = World(0)
    (one,), (other,) = world.predictions()[:1], world.predictions()[:1]
    for measure in ("srcc", "plcc", "rmse"):
        found = interval_over_prompts([one], world.mos, world.groups, measure)
        assert found == bootstrap(one, world.mos, world.groups, measure)
    assert difference_over_prompts([one], [other], world.mos, world.groups) == paired_difference(
        one, other, world.mos, world.groups
    )


def test_splits_are_averaged_within_each_resample() -> None:
    world = World(1)
    a, b = world.predictions(), world.predictions()
    found = interval_over_prompts(a, world.mos, world.groups)
    assert found.value == pytest.approx(np.mean([srcc(one, world.mos) for one in a]))
    assert found.groups == 30
    # A model and its reverse have SRCC of opposite signs in every resample: their mean does not vary.
    none = interval_over_prompts([a[0], -a[0]], world.mos, world.groups)
    assert [none.value, none.low, none.high] == pytest.approx([0, 0, 0], abs=1e-12)
    # Copies of a model are no further evidence.
    twice = difference_over_prompts([a[0]] * 5, [b[0]] * 5, world.mos, world.groups)
    once = difference_over_prompts(a[:1], b[:1], world.mos, world.groups)
    assert [twice.difference, twice.low, twice.high] == pytest.approx([once.difference, once.low, once.high])


def test_equal_encoders_are_seldom_told_apart_on_another_set() -> None:
    told = 0
    for seed in range(60):
        world = World(seed)
        a, b = world.predictions(), world.predictions()
        told += difference_over_prompts(a, b, world.mos, world.groups, resampling=FEW).better is not None
    assert told <= 9  # 5 % of 60 are 3; intervals over splits told nearly all apart


def test_the_interval_covers_the_srcc_on_all_prompts() -> None:
    world = World(0, prompts=5000, splits=1)
    true, covered = srcc(world.predictions()[0], world.mos), 0
    for seed in range(60):
        world = World(seed)
        found = interval_over_prompts(world.predictions(), world.mos, world.groups, resampling=FEW)
        covered += found.low <= true <= found.high
    assert covered >= 50


def test_results_on_another_set_are_compared_over_its_prompts() -> None:
    world = World(2)
    a, b = world.predictions(), world.predictions()
    left, right = world.result(a), world.result(b)
    found = compare_results(left, right, "quality", "template")
    assert found.difference == difference_over_prompts(a, b, world.mos, world.groups)
    assert found.interval_over == "prompts"
    order = world.rng.permutation(len(world.names))
    keys = ("names", "groups", "mos", "predictions")
    for result in (left, right):  # whatever the order of their images
        result["runs"][1:] = [run | {k: [run[k][i] for i in order] for k in keys} for run in result["runs"][1:]]
    assert compare_results(left, right, "quality", "template") == found
    right["runs"][2]["names"] = [*right["runs"][2]["names"][1:], "new.png"]
    with pytest.raises(DataError, match="the same test images, got others in split 2"):
        compare_results(left, right, "quality", "template")


def test_results_with_test_parts_of_their_own_are_compared_over_splits() -> None:
    world = World(3)
    left, right = world.result(world.predictions()), world.result(world.predictions())
    for run in [*left["runs"], *right["runs"]]:
        run["names"] = [f"{run['split']}/{name}" for name in run["names"]]
    assert compare_results(left, right, "quality", "template").interval_over == "splits"
    left["runs"] = left["runs"][:1]  # one split in common
    assert compare_results(left, right, "quality", "template").interval_over == "prompts"


def test_images_without_prompts_are_called_images() -> None:
    names = ["a.png", "b/c.png"]
    assert resampled_units(names, ["toy/image a.png", "toy/image b/c.png"]) == "images"
    assert resampled_units(names, ["toy/image a.png", "toy/a red ball"]) == "prompts"
