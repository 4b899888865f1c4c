"""The reward model of Flow-Factory: without their package, and as a subclass of their class."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mst_clipiqa.errors import UsageError
from mst_clipiqa.integrations import flow_factory
from mst_clipiqa.integrations.rewards import RewardScorer
from tests.fakes import draw
from tests.serving import toy_scorer

ACCELERATOR = SimpleNamespace(device=torch.device("cpu"))


def config(**more: Any) -> SimpleNamespace:
    """Return what Flow-Factory makes of a reward's entry: further keys are in ``extra_kwargs``."""
    return SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, batch_size=2, extra_kwargs=more)


def test_the_rewards_of_a_batch_are_a_tensor_on_the_accelerators_device() -> None:
    scorer = toy_scorer()
    model = flow_factory.MSTClipIQAReward(config(model=scorer, weights={"quality": 1.0}, failed=-1), ACCELERATOR)
    images = [draw(0, 0.1), draw(1, 0.9), b"no image"]
    output = model(prompt=["a fox", "a hat", "a cat"], image=images)
    want = RewardScorer(scorer, weights={"quality": 1.0}, failed=-1).rewards(images, ["a fox", "a hat", "a cat"])[0]
    assert isinstance(output.rewards, torch.Tensor)
    assert output.rewards.dtype == torch.float32 and output.rewards.device == ACCELERATOR.device
    np.testing.assert_array_equal(output.rewards.numpy(), want)
    assert output.rewards[2] == -1
    assert output.extra_info is not None and len(output.extra_info["reason"]) == 3
    assert (model.required_fields, model.use_tensor_inputs) == (("prompt", "image"), False)


def test_what_else_is_passed_of_a_sample_is_not_used() -> None:
    model = flow_factory.MSTClipIQAReward(config(model=toy_scorer(), weights={"quality": 1.0}), ACCELERATOR)
    images = [draw(0, 0.1), draw(1, 0.9)]
    alone = model(prompt=["a fox", "a hat"], image=images).rewards
    others = {"video": None, "audio": None, "condition_images": [[draw(2, 0.5)]] * 2, "condition_videos": None}
    assert torch.equal(model(prompt=["a fox", "a hat"], image=images, **others).rewards, alone)
    with pytest.raises(UsageError, match="Expected images to reward, got none"):
        model(prompt=["a fox"], video=[[draw(0, 0.1)]])


def test_the_page_names_the_class_by_its_path() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reward.md").read_text(encoding="utf-8")
    (path,) = re.findall(r'reward_model: "([\w.]+)"', page)
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is flow_factory.MSTClipIQAReward


def test_videos_and_unknown_keys_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got 'weight' \(did you mean 'weights'\?\)"):
        flow_factory.MSTClipIQAReward(config(weight=1.0), ACCELERATOR)
    model = flow_factory.MSTClipIQAReward(config(model=toy_scorer()), ACCELERATOR)
    with pytest.raises(UsageError, match="scores images, not videos"):
        model(prompt=["a fox"])


def test_where_their_package_is_installed_the_model_is_one_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs:
        theirs = False

        def __init__(self, config: Any, accelerator: Any) -> None:
            self.config, self.accelerator, self.theirs = config, accelerator, True

    @dataclass
    class Output:
        rewards: torch.Tensor
        extra_info: dict[str, Any] | None = None

    package, rewards = ModuleType("flow_factory"), ModuleType("flow_factory.rewards")
    rewards.PointwiseRewardModel, rewards.RewardModelOutput = Theirs, Output  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flow_factory", package)
    monkeypatch.setitem(sys.modules, "flow_factory.rewards", rewards)
    try:
        again = importlib.reload(flow_factory)
        model = again.MSTClipIQAReward(config(model=toy_scorer()), ACCELERATOR)
        output: object = model(prompt=["a fox"], image=[draw(0, 0.1)])
        assert isinstance(output, Output)
        assert isinstance(model, Theirs) and model.theirs
    finally:
        monkeypatch.undo()
        importlib.reload(flow_factory)
