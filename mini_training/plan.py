"""The settings: what is built, how it is trained, and how much each task counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mst_clipiqa.encoders.precision import resolve_precision
from mst_clipiqa.model.preprocess import ViewSpec

VIEW = ViewSpec(
    size=224,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    fine="native",
    crops=4,
    crop_size=192,
    native_side=512,
    gap=1.0,
)
"""What the towers see, scaled as EfficientNet-Lite expects: the whole image small, and four native crops."""

FROZEN = 5
"""Blocks of each tower that keep ImageNet's weights: up to stride 8."""

COMPUTED = torch.bfloat16 if resolve_precision("auto", torch.device("cpu")) == "bf16" else torch.float32
"""The precision of convolutions: bf16 if the CPU is faster in it, because emulating it takes far longer."""

NOISES = 64
"""Images of pure noise."""


@dataclass(frozen=True)
class Weights:
    """How much each task counts beside quality."""

    match: float = 0.5  # correspondence
    shuffled: float = 0.15  # own prompt ahead of another one
    photos: float = 0.5  # LIVE in the Wild
    ladder: float = 0.5  # an image above its distorted self
    noise: float = 0.5  # pure noise at the bottom
    within: float = 0.3  # ranking within generators, once more


@dataclass(frozen=True)
class Plan:
    """What is built, and how it is trained."""

    dim: int = 256  # D
    text_dim: int = 384  # width of MiniLM
    temperature: float = 20.0  # of the template head, at the start
    alpha: float = 0.5  # of the prompt head, at the start
    drop: float = 0.3  # of pooled numbers
    text_drop: float = 0.2  # of token states
    epochs: float = 8
    members: int = 2  # trainings whose weights are averaged
    batch: int = 48  # rated images per step
    photos: int = 12  # photographs of LIVE in the Wild per step
    ladders: int = 0  # per step: an image and four distorted versions each
    noises: int = 0  # per step
    crops: int = 2  # of an image's four
    rate: float = 4e-4  # of the towers
    head_rate: float = 1e-3  # of everything else
    decay: float = 0.05  # of everything but the towers
    trunk_decay: float = 0.01  # of the towers' kernels
    average: float = 0.95  # of the running mean of all weights, which is what is kept
    warm: float = 0.15  # share of the training in which the rate rises
    rung: float = 0.12  # by how much a rung of a ladder should fall, on 1..5
    ahead: float = 0.5  # by how much an image's own prompt should be ahead, on 1..5
    floor: float = 1.25  # what pure noise may score at most, on 1..5
    seed: int = 0
    weights: Weights = field(default_factory=Weights)


TOWERS = Plan()
"""First everything learns together, without ladders and noise."""

REST = Plan(
    drop=0.5,
    epochs=12,
    members=2,
    batch=96,
    photos=24,
    ladders=8,
    noises=4,
    crops=1,
    average=0.97,
    weights=Weights(match=0.0, photos=0.8, ladder=0.2),
)
"""Then towers and text are frozen; what is above learns on with ladders and noise, from the numbers of each image."""


@dataclass(frozen=True)
class Refining:
    """How the prompt head is trained again, from nothing, once the encoders are frozen."""

    alpha: float = 4.0  # at the start, so that a prompt counts about as much as an image
    epochs: float = 15
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.05
    jitter: float = 0.3  # of features, in their deviations over the rated images
    hidden: float = 0.2  # share of an image's own tokens that the head does not see
    shuffled: float = 1.0  # weight of an image's own prompt ahead of another one
    ahead: float = 0.5  # by how much, on 1..5
    scenes: int = 96  # drawn scenes per step
    scene: float = 1.0  # weight of a right caption against wrong colours
    sharpness: float = 4.0  # of that choice, per point on 1..5
    between: float = 1.5  # weight of a caption without a colour between a right and a wrong one
    apart: float = 0.15  # by how much, on 1..5
    scene_jitter: float = 0.1  # of scenes' features
    average: float = 0.97  # of the running mean of weights
    heads: int = 8  # whose weights are averaged
    folds: int = 2  # heads that are trained to see how far scores of new prompts are too low
    fold_heads: int = 2  # whose weights are averaged for that
    seed: int = 0
