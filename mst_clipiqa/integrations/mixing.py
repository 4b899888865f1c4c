"""What a reward is made of: the scores of an image, each as a share of its scale, with a weight of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.errors import UsageError, brief, nearest
from mst_clipiqa.scoring.score import is_one_prompt

HALF_AND_HALF: Mapping[str, float] = {"quality": 0.5, "correspondence": 0.5}
QUALITY_ALONE: Mapping[str, float] = {"quality": 1.0}

Prompts: TypeAlias = str | Iterable[str | None] | None
"""One prompt for all images, or one per image."""
RewardInfo: TypeAlias = dict[str, Any]
"""What goes with rewards: target -> float32 (N,) in native units, and "reason" -> a list of N sentences."""


@dataclass(frozen=True)
class RewardMix:
    """How the scores of an image become one reward.

        reward = sum_t w_t (score_t - low_t) / (high_t - low_t)        low_t, high_t: the scale of target t

    With weights that are positive and add up to 1, rewards are in [0, 1].

    Attributes:
        weights: target -> w_t; targets with the weight 0, and those that are not named, do not count.
        failed: the reward of an image for which a target with a weight is missing: the image could not be read, the
            prompt is empty or lies outside the vocabulary, or there is none. NaN by default, so that it cannot be
            taken for a bad image.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(HALF_AND_HALF))
    failed: float = math.nan

    def check(self, ranges: Mapping[str, Sequence[float]]) -> None:
        """Raise a UsageError unless weights are finite and of targets in ``ranges``, and ``failed`` is a number."""
        if not isinstance(self.weights, Mapping):
            raise UsageError(f'Expected weights such as {{"quality": 1.0}}, got {brief(self.weights)}.')
        if not any(self.weights.values()):
            raise UsageError(f"Expected a weight other than 0 for at least one target, got {dict(self.weights)}.")
        for name, weight in self.weights.items():
            if name not in ranges:
                known = ", ".join(ranges)
                raise UsageError(
                    f"Expected weights of the model's targets ({known}), got one of {name!r}"
                    f"{nearest(str(name), ranges)}: give other weights, or another model."
                )
            if not isinstance(weight, int | float | np.number) or not math.isfinite(weight):
                raise UsageError(f"Expected a finite weight of {name}, got {brief(weight)}.")
        if not isinstance(self.failed, int | float | np.number):
            raise UsageError(f"Expected failed to be a number, which may be NaN, got {brief(self.failed)}.")

    @property
    def counted(self) -> list[str]:
        """The targets with a weight."""
        return [name for name, weight in self.weights.items() if weight]

    def reward(self, scores: Mapping[str, float | None], ranges: Mapping[str, Sequence[float]]) -> float:
        """Return the reward of one image from its scores in native units.

        Example:
            >>> mix = RewardMix({"quality": 0.75, "correspondence": 0.25})
            >>> ranges = {"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)}
            >>> mix.reward({"quality": 4.0, "correspondence": 1.0}, ranges)
            0.65
            >>> mix.reward({"quality": 4.0, "correspondence": None}, ranges)
            nan
        """
        total = 0.0
        for name in self.counted:
            weight, value = self.weights[name], scores.get(name)
            if value is None:
                return self.failed
            low, high = ranges[name]
            total += weight * (value - low) / (high - low)
        return round(total, 9)  # the sum's own rounding noise


@dataclass(frozen=True)
class OneScore:
    """What a reward needs of a score, whether it was computed here or by a server.

    Attributes:
        targets: target -> score in native units, None if not scored.
        reason: why something is missing or needs care; empty otherwise.
    """

    targets: Mapping[str, float | None]
    reason: str = ""


def mixed(
    scores: Sequence[OneScore], prompts: Sequence[str | None], mix: RewardMix, ranges: Mapping[str, Sequence[float]]
) -> tuple[NDArray[np.float32], RewardInfo]:
    """Return the rewards of images with these prompts, float32 (N,), and what they were mixed from."""
    rewards = np.array([mix.reward(score.targets, ranges) for score in scores], dtype=np.float32)
    info: RewardInfo = {name: _column(score.targets.get(name) for score in scores) for name in ranges}
    info["reason"] = [_reason(score, prompt, mix) for score, prompt in zip(scores, prompts, strict=True)]
    return rewards, info


def _reason(score: OneScore, prompt: str | None, mix: RewardMix) -> str:
    """Return the reason of a score, and which targets with a weight are missing because there is no prompt."""
    missing = [name for name in mix.counted if score.targets.get(name) is None]
    if prompt is not None or not missing or not any(value is not None for value in score.targets.values()):
        return score.reason
    why = f"the prompt is empty or missing, so {' and '.join(missing)} cannot be scored"
    return f"{why}; {score.reason}" if score.reason else why


def _column(values: Iterable[float | None]) -> NDArray[np.float32]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float32)


def image_list(images: Any) -> list[Any]:
    """Return a batch as a list of images.

    Args:
        images: a float tensor (N, 3, H, W) in [0, 1], an array (N, H, W, 3) of uint8 or of floats in [0, 1], a list
            of anything that ``Scorer`` takes, or one image.

    Raises:
        UsageError: a tensor that holds integers, as no image of it could be scored.
    """
    if isinstance(images, list | tuple):
        return list(images)
    if getattr(images, "ndim", 0) != 4:
        return [images]
    if hasattr(images, "is_floating_point") and not images.is_floating_point():
        raise UsageError(
            f"Expected a float tensor (N, 3, H, W) in [0, 1], got one of {images.dtype}: divide it by 255."
        )
    return list(images)


def prompt_list(prompts: Prompts, count: int) -> list[str | None]:
    """Return one prompt per image, None for an empty one, with which quality can still be scored.

    Args:
        prompts: one for all, or one for each of ``count`` images; a scorer says what is not text.
        count: number of images.

    Raises:
        UsageError: the number of prompts is another.
    """
    each: list[Any] = [prompts] * count if is_one_prompt(prompts) else list(cast("Iterable[Any]", prompts))
    if len(each) != count:
        raise UsageError(f"Expected one prompt or one per image ({count}), got {len(each)}.")
    return [None if isinstance(prompt, str) and not prompt.strip() else prompt for prompt in each]
