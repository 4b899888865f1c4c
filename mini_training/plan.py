"""The settings: what is built, how it is trained, and how much each task counts."""

from __future__ import annotations

from dataclasses import dataclass

from mst_clipiqa.model.preprocess import ViewSpec

VIEW = ViewSpec(
    size=160,
    mean=(128 / 255,) * 3,
    std=(64 / 255,) * 3,
    fine="native",
    crops=9,
    crop_size=96,
    native_side=512,
    gap=1.0,
)
"""What the towers see: the whole image small, and nine native crops, a third of an image of 512 pixels."""


@dataclass(frozen=True)
class Sizes:
    """What is built."""

    dim: int = 256
    hidden: int = 512
    drop: float = 0.15  # of statistics, and of what the first layer makes of them
    feature_drop: float = 0.1
    text_drop: float = 0.2


@dataclass(frozen=True)
class Weights:
    """How much each side task counts beside the two main losses."""

    mixed: float = 2.0  # a mixture of two images, as the teacher says
    towers: float = 0.3  # each tower alone predicts the four ratings
    group: float = 0.2  # generator and setting
    distorted: float = 1.3  # an image above its distorted self
    kind: float = 0.1  # which distortion, how strong
    caption: float = 0.2  # image against prompts of the batch
    shuffled: float = 1.0  # own prompt above another one
    scene: float = 1.0  # a drawn scene's caption above the same without its colour, and that above a wrong colour


@dataclass(frozen=True)
class Plan:
    """How it is trained."""

    epochs: float = 15
    batch: int = 42  # rated images a step
    ladders: int = 8  # images a step that come with their distorted versions, half of them photographs
    scenes: int = 12  # drawn scenes a step
    rate: float = 8e-4
    decay: float = 0.05
    word_drop: float = 0.1  # share of a prompt's words hidden
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """All settings."""

    sizes: Sizes = Sizes()
    plan: Plan = Plan()
    weights: Weights = Weights()
