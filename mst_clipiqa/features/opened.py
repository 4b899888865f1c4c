"""An image before the encoders: its views, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from mst_clipiqa.features.encoded import Encoded


@dataclass(frozen=True)
class Failed:
    """An image that could not be read, and why (``as_reason``); given as an image, it keeps its place, unopened."""

    reason: str


@dataclass(frozen=True)
class AlreadyScored:
    """An image with a score from an earlier run; given as an image, it keeps its place and is not opened."""

    score: Any


ImagePrompts: TypeAlias = tuple[str | None, ...] | None
"""What an image will be scored against; None if that is not known yet."""


@dataclass(frozen=True)
class Viewed:
    """An image ready for the encoders.

    Attributes:
        coarse, fine: its views, as in ``model/preprocess.py``.
        width, height: of the upright image, pixels.
        key: under which to cache the features, or None.
        prompts: what the image will be scored against, if that is known by now.
        note: what makes its scores less certain; such an image is not cached, so that this is said every time.
    """

    coarse: Tensor
    fine: Tensor | None
    width: int
    height: int
    key: str | None
    prompts: ImagePrompts = None
    note: str = ""


Opened: TypeAlias = Encoded | Failed | AlreadyScored | Viewed
"""What ``ImageEncoder.open`` returns."""
