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


@dataclass(frozen=True)
class Weights:
    """How much each side task counts beside the two main losses."""

    towers: float = 0.3  # each tower alone predicts the four ratings
    group: float = 0.2  # generator and setting
    spoilt: float = 1.0  # a picture above its spoilt self
    kind: float = 0.1  # which distortion, how strong
    caption: float = 0.05  # picture against prompts of the batch
    shuffled: float = 0.5  # own prompt above another one


@dataclass(frozen=True)
class Plan:
    """How it is trained."""

    epochs: float = 60
    batch: int = 42  # rated pictures a step
    photographs: int = 2  # unrated pictures a step
    spoilt: int = 3  # pictures a step that come with three spoilt versions
    size: int = 160  # side of the coarse view
    crop: int = 160  # side of a native crop
    crops: int = 1  # native crops a picture and step; the product averages four
    rate: float = 8e-4  # AdamW
    muon: float = 0.02  # the kernels' rate
    text: float = 0.33  # the text encoder's rate, as a share of it
    decay: float = 0.05
    average: float = 0.06  # how far back the averaged weights reach, as a share of the run
    seed: int = 0
