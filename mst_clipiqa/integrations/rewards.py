"""Rewards for trainers of image generators, and choices among images, as other tools ask for them.

::

    mst_clipiqa_score         fn(images, prompts, metadata) -> (rewards, info)      flow_grpo, DDPO
    mst_clipiqa_remote_score  the same, scored by ``mst-clipiqa serve`` elsewhere
    RewardScorer              score(prompt, images), inference_rank(prompt, images) ImageReward
    pick_best                 the best n of several images                          diffusers

What a reward is made of is always a ``RewardMix``; nothing here is differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.errors import ImageError, check_count
from mst_clipiqa.integrations.mixing import (
    HALF_AND_HALF,
    QUALITY_ALONE,
    OneScore,
    Prompts,
    RewardInfo,
    RewardMix,
    image_list,
    mixed,
    prompt_list,
)
from mst_clipiqa.integrations.remote import mst_clipiqa_remote_score
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

if TYPE_CHECKING:
    import torch

__all__ = ["RewardMix", "RewardScorer", "mst_clipiqa_remote_score", "mst_clipiqa_score", "pick_best"]


class RewardFunction(Protocol):
    """(images, prompts, metadata) -> (rewards (N,), info)."""

    def __call__(self, images: Any, prompts: Prompts, metadata: Any = None) -> tuple[NDArray[np.float32], RewardInfo]:
        """Return the rewards of images for their prompts."""


def mst_clipiqa_score(
    device: str | torch.device = "auto",
    *,
    model: str | Path | Scorer = "mini",
    weights: Mapping[str, float] = HALF_AND_HALF,
    failed: float = math.nan,
) -> RewardFunction:
    """Return a reward function as flow_grpo and trainers of the DDPO family call it.

    The function takes images, float tensor (N, 3, H, W) in [0, 1] or uint8 array (N, H, W, 3), N prompts, and metadata
    that it ignores. It returns the rewards, float32 (N,), and a dictionary: the score of each target in native units,
    float32 (N,), and ``reason``, N sentences on what is missing or less certain. It can be pickled, as for a spawned
    process.

    Args:
        device: where the encoders run.
        model: as ``Scorer.load`` takes it, or a scorer.
        weights: what the reward mixes, target -> weight (``RewardMix``).
        failed: the reward of an image that could not be scored.

    Raises:
        UsageError: the weights do not fit the model, or this machine lacks the device.

    Example:
        >>> fn = mst_clipiqa_score("cpu", weights={"quality": 1.0})
        >>> rewards, info = fn(np.full((2, 64, 64, 3), 128, np.uint8), ["a grey wall", "a red ball"], {})
        >>> rewards.shape, info["quality"].shape
        ((2,), (2,))
    """
    return RewardScorer(model, device, weights=weights, failed=failed).rewards


class RewardScorer:
    """A scorer with the methods of ImageReward's model; higher is better.

    Args:
        model: as ``Scorer.load`` takes it, or a scorer.
        device: where the encoders run; not used if ``model`` is a scorer.
        weights: what the reward mixes, target -> weight (``RewardMix``).
        failed: the reward of an image that could not be scored.

    Raises:
        UsageError: the weights do not fit the model, or this machine lacks the device.
    """

    def __init__(
        self,
        model: str | Path | Scorer = "mini",
        device: str | torch.device = "auto",
        *,
        weights: Mapping[str, float] = HALF_AND_HALF,
        failed: float = math.nan,
    ) -> None:
        self.scorer = model if isinstance(model, Scorer) else Scorer.load(model, device=str(device))
        self.mix = RewardMix(weights, failed)
        self.mix.check(self.scorer.ranges)

    def rewards(self, images: Any, prompts: Prompts, metadata: Any = None) -> tuple[NDArray[np.float32], RewardInfo]:
        """Return the rewards of images, float32 (N,), and what they were mixed from, as ``mst_clipiqa_score`` does."""
        return self._scored(images, prompts, self.mix)

    def _scored(self, images: Any, prompts: Prompts, mix: RewardMix) -> tuple[NDArray[np.float32], RewardInfo]:
        sources = image_list(images)
        texts = prompt_list(prompts, len(sources))
        pairs = zip(sources, texts, strict=True)
        scored = self.scorer.stream(ScoreRequest[None](image, prompt) for image, prompt in pairs)
        scores = [OneScore(score.targets, score.reason) for _, score in scored]
        return mixed(scores, texts, mix, self.scorer.ranges)

    def score(self, prompt: str, images: Any) -> float | list[float]:
        """Return the reward of an image, or a list of those of several images, for one prompt."""
        rewards = [float(reward) for reward in self.rewards(images, prompt)[0]]
        return rewards if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4 else rewards[0]

    def inference_rank(self, prompt: str, images: Any) -> tuple[list[int], list[float]]:
        """Return the rank of each image, 1 for the best, and the rewards; failed images come last."""
        rewards = self._scored(images, prompt, replace(self.mix, failed=math.nan))[0]
        ranks = np.empty(len(rewards), dtype=int)
        ranks[_best_first(rewards)] = np.arange(1, len(rewards) + 1)
        return ranks.tolist(), [self.mix.failed if math.isnan(reward) else float(reward) for reward in rewards]


def pick_best(
    images: Sequence[Any] | NDArray[Any] | torch.Tensor,
    prompt: str | None = None,
    n: int = 1,
    *,
    scorer: Scorer | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[Any]:
    """Return the best ``n`` of several images of one prompt, the best first.

    Args:
        images: such as a diffusers pipeline returns in ``.images``: a list of PIL images, an array or a tensor.
        prompt: what they were made from; None chooses by quality alone.
        n: how many to return; fewer if fewer images can be scored.
        scorer: the model; ``mini``, loaded on the first call, by default.
        weights: what to choose by (``RewardMix``); quality and correspondence in equal parts by default.

    Raises:
        UsageError: ``n`` is not a whole number of at least 1, or the weights do not fit the model.
        ImageError: no image could be scored; the message has the first reason.
    """
    check_count("n", n)
    default = QUALITY_ALONE if prompt is None else HALF_AND_HALF
    chooser = RewardScorer(scorer or _mini(), weights=default if weights is None else weights)
    sources = image_list(images)
    rewards, info = chooser.rewards(sources, prompt)
    best = [place for place in _best_first(rewards) if not np.isnan(rewards[place])][:n]
    if not best:
        why = next(filter(None, info["reason"]), "there is none")
        raise ImageError(f"Expected an image that can be scored, got none: {why}.")
    return [sources[place] for place in best]


def _best_first(rewards: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the places of rewards, the highest first, equal ones in their order, NaN last."""
    return np.argsort(-rewards, kind="stable")


@cache
def _mini() -> Scorer:
    return Scorer.load("mini")
