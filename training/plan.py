"""The settings: what is built, how it is trained, and how much each task counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What is built."""

    dim: int = 256
    coarse: tuple[int, ...] = (48, 64, 128, 256)
    coarse_blocks: tuple[int, ...] = (0, 1, 2, 1)
    fine: tuple[int, ...] = (48, 64, 128)
    fine_blocks: tuple[int, ...] = (0, 1, 2)
    drop: float = 0.1
    text_drop: float = 0.2
    spectrum_drop: float = 0.3
    feature_drop: float = 0.1
    pool: str = "all"


@dataclass(frozen=True)
class Weights:
    """How much each side task counts beside the two main losses."""

    towers: float = 0.3  # each tower alone predicts the four ratings
    group: float = 0.2  # generator and setting
    spoilt: float = 2.0  # a picture above its spoilt self
    kind: float = 0.1  # which distortion, how strong
    caption: float = 0.2  # picture against prompts of the batch
    shuffled: float = 0.5  # own prompt above another one


@dataclass(frozen=True)
class Plan:
    """How it is trained."""

    cycles: tuple[tuple[float, float], ...] = ((10, 1.0),)  # epochs, and the share of the rates below
    batch: int = 42  # rated pictures a step
    photographs: int = 2  # unrated pictures a step
    spoilt: int = 3  # pictures a step that come with three spoilt versions
    size: int = 160  # side of the coarse view
    sides: tuple[int, ...] = (128, 144, 160)  # sides of the crop of it in training, one drawn a step
    word_drop: float = 0.1  # share of a prompt's tokens hidden in training
    crop: int = 160  # side of a native crop
    rate: float = 8e-4  # AdamW
    muon: float = 0.02  # the kernels' rate
    text: float = 0.7  # the text encoder's rate, as a share
    decay: float = 0.05
    average: float = 0.06  # how far back the averaged weights reach, as a share of a cycle
    refit_epochs: float = 10  # of what follows the convolutions, once they are frozen
    refit_ladders: int = 4  # pictures a step with three spoilt versions, then
    refit_caption: float = 0.1  # weight of the caption task, then
    conv_drop: float = 0.8  # share of pictures whose convolutions are left out, then
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """All settings."""

    sizes: Sizes = Sizes()
    plan: Plan = Plan()
    weights: Weights = Weights()
