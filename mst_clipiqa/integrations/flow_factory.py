"""A reward model for Flow-Factory, named in its configuration by its full path.

::

    rewards:
      - name: "mst-clipiqa"
        reward_model: "mst_clipiqa.integrations.flow_factory.MSTClipIQAReward"
        batch_size: 16

Flow-Factory is no dependency. Where it is installed, its base class is used, because it sorts reward models by that;
elsewhere, stand-ins with the same attributes take its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.integrations.mixing import HALF_AND_HALF
from mst_clipiqa.integrations.rewards import RewardScorer

try:
    from flow_factory.rewards import PointwiseRewardModel, RewardModelOutput
except ImportError:

    class PointwiseRewardModel:  # type: ignore[no-redef]
        """In place of Flow-Factory's class."""

    @dataclass
    class RewardModelOutput:  # type: ignore[no-redef]
        """What a reward model returns.

        Attributes:
            rewards: float32 (N,).
            extra_info: what they were mixed from.
        """

        rewards: torch.Tensor
        extra_info: dict[str, Any] | None = None


_SETTINGS = ("model", "weights", "failed")


class MSTClipIQAReward(PointwiseRewardModel):  # type: ignore[misc]
    """Rewards of images for their prompts, each on its own.

    Args:
        config: of this reward; further keys in the file may be ``model``, ``weights`` and ``failed``, as
            ``rewards.RewardScorer`` takes them. Its ``dtype`` is not used: encoders choose their precision.
        accelerator: gives the device, unless the configuration names another.

    Raises:
        UsageError: a key is unknown, or the weights do not fit the model.
    """

    required_fields = ("prompt", "image")
    use_tensor_inputs = False

    def __init__(self, config: Any, accelerator: Any) -> None:
        if PointwiseRewardModel.__init__ is not object.__init__:
            super().__init__(config, accelerator)
        self.config, self.accelerator = config, accelerator
        chosen = torch.device(getattr(config, "device", None) or "cuda")
        self.device = accelerator.device if chosen == torch.device("cuda") else chosen
        self.model = None  # nothing that Flow-Factory would move to another device
        given = dict(getattr(config, "extra_kwargs", None) or getattr(config, "reward_model_kwargs", None) or {})
        if unknown := [name for name in given if name not in _SETTINGS]:
            raise UsageError(
                f"Expected {', '.join(_SETTINGS)} in the configuration of this reward, got {unknown[0]!r}"
                f"{nearest(unknown[0], _SETTINGS)}."
            )
        self.scorer = RewardScorer(
            given.get("model", "mini"),
            self.device,
            weights=given.get("weights", HALF_AND_HALF),
            failed=float(given.get("failed", math.nan)),
        )

    def __call__(self, prompt: Sequence[str], image: Sequence[Any] | None = None, **others: Any) -> RewardModelOutput:
        """Return the reward of each image, float32 (N,) on the device.

        Args:
            prompt: N prompts.
            image: N images, PIL images or float tensors (3, H, W) in [0, 1].
            others: what else Flow-Factory has of a sample, such as ``video`` and ``condition_images``; not used.

        Raises:
            UsageError: there are no images, as of a video, or not one prompt for each.
        """
        if image is None:
            raise UsageError("Expected images to reward, got none: this model scores images, not videos.")
        rewards, info = self.scorer.rewards(image, list(prompt))
        return RewardModelOutput(rewards=torch.as_tensor(rewards, device=self.device), extra_info=info)
