"""Three nodes over one scorer. A batch is a float tensor (B, H, W, C) in [0, 1], as everywhere in ComfyUI.

Values outside [0, 1] are clipped, as SaveImage does. An image that cannot be scored is never kept; the text says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mst_clipiqa.errors import ImageError, PromptError, as_sentence
from mst_clipiqa.integrations.rewards import RewardScorer
from mst_clipiqa.scoring.predictor import MISSING_PROMPT
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

CATEGORY = "image/mst-clipiqa"
TARGETS = ["quality", "correspondence"]
_IMAGES = ("IMAGE", {"tooltip": "The images to score."})
_PROMPT = (
    "STRING",
    {"default": "", "multiline": True, "tooltip": "What the images were made from; empty to score quality alone."},
)
_MODEL = ("STRING", {"default": "mini", "tooltip": "mini, a model folder, or zero-shot:ENCODERS."})


class ScoreImages:
    """Score every image of a batch; higher is better."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Scores images for quality and for how well they show their prompt. Higher is better."
    FUNCTION = "score"
    RETURN_TYPES = ("FLOAT", "FLOAT", "STRING")
    RETURN_NAMES = ("quality", "correspondence", "text")
    OUTPUT_IS_LIST = (True, True, False)  # a number per image
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        return {"required": {"images": _IMAGES, "prompt": _PROMPT}, "optional": {"model": _MODEL}}

    def score(self, images: Tensor, prompt: str, model: str = "mini") -> dict[str, Any]:
        """Return both scores of each image, NaN for one that is missing, and a line of text per image."""
        scores = scores_of(images, prompt, model)
        text = "\n".join(line(number, score) for number, score in enumerate(scores, 1))
        numbers = [[number_of(score, target) for score in scores] for target in TARGETS]
        return {"ui": {"text": (text,)}, "result": (*numbers, text)}


class KeepBest:
    """Keep the best images of a batch, the best first."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Keeps the k best images of a batch, the best first. Without a prompt, only quality counts."
    FUNCTION = "keep"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "text")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        share: dict[str, Any] = {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.05}
        share["tooltip"] = "How much correspondence counts; quality counts for the rest. 0 without a prompt."
        return {
            "required": {
                "images": _IMAGES,
                "k": ("INT", {"default": 1, "min": 1, "max": 4096, "tooltip": "How many images to keep."}),
                "prompt": _PROMPT,
                "correspondence_share": ("FLOAT", share),
            },
            "optional": {"model": _MODEL},
        }

    def keep(
        self, images: Tensor, k: int, prompt: str, correspondence_share: float, model: str = "mini"
    ) -> tuple[Tensor, str]:
        """Return the k best images, and what they got."""
        share = correspondence_share if prompt.strip() else 0.0
        weights = {name: weight for name, weight in zip(TARGETS, (1 - share, share), strict=True) if weight}
        rewards, info = RewardScorer(loaded(model), weights=weights).rewards(sources(images), prompt.strip() or None)
        order = [place for place in (-rewards).argsort(kind="stable").tolist() if not math.isnan(rewards[place])]
        if not order:
            why = "; ".join(dict.fromkeys(info["reason"])) or "there is none"
            raise ImageError(f"Expected an image that can be scored, got none: {why}.")
        lines = [f"image {place + 1}: {rewards[place]:.3f}" for place in order[:k]]
        failed = [place for place in range(len(rewards)) if place not in order]
        lines += [f"image {place + 1}: not scored; {info['reason'][place]}" for place in failed]
        return images[order[:k]], "\n".join(lines)


class Threshold:
    """Divide a batch by a lowest score."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Divides a batch into images that reach a score and those that do not. What is empty does not run on."
    FUNCTION = "divide"
    RETURN_TYPES = ("IMAGE", "IMAGE", "INT", "STRING")
    RETURN_NAMES = ("passed", "rejected", "passed_count", "text")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        least: dict[str, Any] = {"default": 2.5, "min": -1000.0, "max": 1000.0, "step": 0.05}
        least["tooltip"] = "The lowest score that passes, in the units of the model: mini scores from 0 to 5."
        return {
            "required": {
                "images": _IMAGES,
                "target": (TARGETS, {"tooltip": "The score that counts; correspondence needs a prompt."}),
                "minimum": ("FLOAT", least),
                "prompt": _PROMPT,
            },
            "optional": {"model": _MODEL},
        }

    def divide(
        self, images: Tensor, target: str, minimum: float, prompt: str, model: str = "mini"
    ) -> tuple[Any, Any, int, str]:
        """Return the images that pass, the others, how many pass, and a line of text per image."""
        if target == "correspondence" and not prompt.strip():  # else every image would be rejected
            raise PromptError(as_sentence(MISSING_PROMPT.format(target)))
        scores = scores_of(images, prompt, model)
        passed = [place for place, score in enumerate(scores) if number_of(score, target) >= minimum]  # NaN does not
        rejected = [place for place in range(len(scores)) if place not in passed]
        text = "\n".join(line(number, score) for number, score in enumerate(scores, 1))
        return some(images, passed), some(images, rejected), len(passed), text


@cache
def loaded(model: str) -> Scorer:
    """Return the scorer of a model, loaded once per session."""
    return Scorer.load(model)


def sources(images: Tensor) -> list[Any]:
    """Return each image as an array (H, W, C) of floats in [0, 1]."""
    return list(images.detach().float().clamp(0, 1).cpu().numpy())


def scores_of(images: Tensor, prompt: str, model: str) -> list[Score]:
    """Return the score of each image; one that cannot be scored has its reason."""
    words = prompt.strip() or None
    requests = (ScoreRequest[None](image, words) for image in sources(images))
    return [score for _, score in loaded(model).stream(requests)]


def number_of(score: Score, target: str) -> float:
    """Return a score, or NaN if it is missing."""
    value = score.targets.get(target)
    return math.nan if value is None else value


def line(number: int, score: Score) -> str:
    """Return "image 1: quality 3.21, correspondence 2.90", with the reason if there is one."""
    numbers = [f"{name} {value:.2f}" for name in TARGETS if (value := score.targets.get(name)) is not None]
    parts = [", ".join(numbers) or "not scored", score.reason]
    return f"image {number}: {'; '.join(filter(None, parts))}"


def some(images: Tensor, places: Sequence[int]) -> Any:
    """Return some images of a batch; if there are none, what keeps ComfyUI from running the nodes behind."""
    if not places:
        try:
            from comfy_execution.graph_utils import ExecutionBlocker
        except ImportError:
            return images[:0]  # outside ComfyUI
        return ExecutionBlocker(None)
    return images[torch.tensor(places)]


NODE_CLASS_MAPPINGS = {
    "MSTClipIQAScore": ScoreImages,
    "MSTClipIQAKeepBest": KeepBest,
    "MSTClipIQAThreshold": Threshold,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "MSTClipIQAScore": "Score Images (MST-CLIPIQA)",
    "MSTClipIQAKeepBest": "Keep Best Images (MST-CLIPIQA)",
    "MSTClipIQAThreshold": "Score Threshold (MST-CLIPIQA)",
}
