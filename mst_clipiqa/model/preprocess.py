"""Image to pixels: the views that the two encoders look at.

The paper's view (section 3, CLIP's own): shorter side to 224 (bicubic, antialiased), centre crop 224, scaled to
[0, 1], normalised with CLIP's mean and standard deviation. Other encoders are trained on other views: SigLIP squashes
the whole image to a square, DINOv2 crops less than it resizes. For the fine stream an encoder pair may want a view of
its *own*, or *native* views: a fixed grid of crops that are not shrunk, as shrinking hides the artefacts it looks for.

Views stay uint8 until the encoder normalises them: a quarter of the bytes to move, and exactly what Pillow returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from mst_clipiqa.errors import ModelError, shown

PREPROCESSING_VERSION = "1"
"""Part of every cache key and of every saved model: raise it when any pixel changes."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_MOST_PIXELS = 2**24  # of one stream's views of an image
_LONGEST = 16  # above this many times the crop's side, only the crop itself is resized
_MOST_SHORTER = 4  # times the size
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class ViewSpec:
    """How images become pixels for one pair of encoders.

    Attributes:
        size: side of the coarse view, pixels.
        mean, std: of each channel of normalised pixels, in [0, 1].
        fine: what the fine stream sees: the same view as the coarse one, native crops, or a view of its own.
        crops: native crops per image, a square number.
        crop_size: side of a native crop, pixels.
        native_side: if an image's shorter side is longer than this, it is shrunk to this before it is cropped.
        gap: first average blocks of pixels, down to this many times the coarse size or more; None for no averaging.
        shorter: the shorter side to which the image is resized before it is cropped, pixels; None for ``size``.
        squash: whether the whole image becomes a square, its aspect ratio lost, instead of being cropped.
        resample: the filter that resizes.
        own: the fine stream's own view, if ``fine`` is "own".
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fine: Literal["same", "native", "own"] = "same"
    crops: int = 1
    crop_size: int = 224
    native_side: int | None = None
    gap: float | None = None
    shorter: int | None = None
    squash: bool = False
    resample: Literal["bicubic", "bilinear"] = "bicubic"
    own: ViewSpec | None = None

    def __post_init__(self) -> None:
        """Refuse numbers from which no views can be made; ModelError."""
        if self.fine not in ("same", "native", "own"):
            raise ModelError(f"Expected fine to be 'same', 'native' or 'own', got {shown(self.fine)}.")
        if (self.fine == "own") != (self.own is not None) or (self.own and self.own.fine != "same"):
            raise ModelError(f"Expected one view of the fine stream's own beside fine 'own', got {self}.")
        if self.resample not in _FILTERS or not self.size <= (self.shorter or self.size) <= _MOST_SHORTER * self.size:
            raise ModelError(f"Expected bicubic or bilinear and a shorter side of at least the size, got {self}.")
        if round(self.crops**0.5) ** 2 != self.crops or min(self.size, self.crops, self.crop_size) < 1:
            raise ModelError(f"Expected sizes of at least 1 and a square number of crops, got {self}.")
        if max(self.size**2, self.crops * self.crop_size**2) > _MOST_PIXELS:
            raise ModelError(f"Expected views of at most {_MOST_PIXELS:,} pixels, got {self}.")
        if min(self.std) <= 0 or (self.gap is not None and self.gap < 1):
            raise ModelError(f"Expected deviations above 0 and a gap of at least 1, got {self}.")

    def of(self, stream: Literal["coarse", "fine"]) -> ViewSpec:
        """Return the view whose mean and standard deviation a stream's pixels have."""
        return self.own if stream == "fine" and self.own else self


class Resizable(Protocol):
    """What the geometry of views needs of an image: a Pillow image has it, and so has a batch in ``pixel_views.py``."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def resize(
        self,
        size: tuple[int, int],
        resample: Image.Resampling,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Self:
        """Return it, or the part of it in a box, resized to (width, height), as Pillow does."""

    def crop(self, box: tuple[int, int, int, int]) -> Self:
        """Return the part from (left, top) to (right, bottom)."""


_Image = TypeVar("_Image", bound=Resizable)


@dataclass(frozen=True)
class Views:
    """What the encoders see of one image.

    Attributes:
        coarse: uint8 [0, 255], (3, size, size).
        fine: uint8 [0, 255], (crops, 3, side, side), a single one for a view of its own; None if the fine stream sees
            the coarse view.
    """

    coarse: UInt8[Tensor, "3 size size"]
    fine: UInt8[Tensor, "crops 3 side side"] | None


def views(image: Image.Image, spec: ViewSpec) -> Views:
    """Return the views of an RGB image of any size; the same image always gives the same bytes."""
    return Views(coarse_view(image, spec), fine_views(image, spec))


def coarse_view(image: Image.Image, spec: ViewSpec) -> UInt8[Tensor, "3 size size"]:
    """Return the coarse stream's view of an RGB image, uint8 (3, size, size)."""
    return _to_tensor(np.array(coarse_image(image, spec)))


def coarse_image(image: _Image, spec: ViewSpec) -> _Image:
    """Return the coarse stream's view as an image."""
    resample = _FILTERS[spec.resample]
    if spec.squash:
        return image.resize((spec.size, spec.size), resample, reducing_gap=spec.gap)
    return centre_view(image, spec.size, spec.gap, shorter=spec.shorter, resample=resample)


def fine_views(image: Image.Image, spec: ViewSpec) -> UInt8[Tensor, "crops 3 side side"] | None:
    """Return the fine stream's views, uint8 (crops, 3, side, side); None if it sees the coarse view."""
    if spec.fine == "same":
        return None
    if spec.own:
        return coarse_view(image, spec.own).unsqueeze(0)
    return _to_tensor(np.stack([np.asarray(crop) for crop in native_crops(image, spec)]))


def centre_view(
    image: _Image,
    size: int,
    gap: float | None = None,
    *,
    shorter: int | None = None,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> _Image:
    """Return the image with its shorter side resized to ``shorter`` pixels or ``size``, centre-cropped to a square.

    With a ``gap`` (Pillow's ``reducing_gap``) most of the shrinking averages blocks, which is several times faster.
    """
    width, height = _resized(image.size, shorter or size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) <= _LONGEST * size:
        resized = image.resize((width, height), resample, reducing_gap=gap)
        return resized.crop((left, top, left + size, top + size))
    # A strip such as 1 x 10,000 would take gigabytes if resized as a whole.
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + size) * x, (top + size) * y)
    return image.resize((size, size), resample, box=box, reducing_gap=gap)


def native_crops(image: _Image, spec: ViewSpec) -> list[_Image]:
    """Return ``spec.crops`` square crops on an even grid over the image, not shrunk.

    Neighbouring crops overlap on a small image and leave gaps on a large one, so every image costs the same. An image
    smaller than a crop is enlarged to it.
    """
    shorter = min(image.size)
    target = max(spec.crop_size, min(shorter, spec.native_side or shorter))
    if target != shorter:
        if max(image.size) > _LONGEST * shorter:  # a strip: only its middle is used
            image = _middle(image, _LONGEST)
        image = image.resize(_resized(image.size, target), Image.Resampling.BICUBIC)
    grid = round(spec.crops**0.5)
    lefts, tops = (_starts(side, spec.crop_size, grid) for side in image.size)
    return [image.crop((x, y, x + spec.crop_size, y + spec.crop_size)) for y in tops for x in lefts]


def normalise(
    pixels: UInt8[Tensor, "*batch 3 height width"], spec: ViewSpec
) -> Float32[Tensor, "*batch 3 height width"]:
    """Return uint8 pixels (..., 3, height, width) as float32 with CLIP's mean 0 and standard deviation 1."""
    values = (spec.mean, spec.std)
    mean, std = (torch.tensor(value, dtype=torch.float32, device=pixels.device).view(3, 1, 1) for value in values)
    return (pixels.float() / 255 - mean) / std


def normalised(
    pixels: UInt8[Tensor, "batch 3 height width"], spec: ViewSpec, dtype: torch.dtype
) -> Float[Tensor, "batch 3 height width"]:
    """Return ``normalise`` of (batch, 3, height, width) in another dtype, channels last in memory.

    Equal within float32's rounding and many times faster: one multiply-add per value, in the order of memory, image
    by image, so that only the result leaves the CPU's cache.
    """
    rows = pixels.movedim(1, -1).flatten(2)  # (batch, height, width * 3), no copy if channels are last
    scale, shift = (line.repeat(pixels.shape[-1]).to(pixels.device) for line in _scale_and_shift(spec))
    out = torch.empty(rows.shape, dtype=dtype, device=pixels.device)
    for image, into in zip(rows, out, strict=True) if pixels.device.type == "cpu" else ((rows, out),):
        into.copy_(torch.addcmul(shift, image.float(), scale))
    return out.view(*out.shape[:2], -1, 3).movedim(-1, 1)


def _scale_and_shift(spec: ViewSpec) -> tuple[Float32[Tensor, " 3"], Float32[Tensor, " 3"]]:
    """Return the factor and the summand that normalise a byte of each channel, float32 (3,)."""
    std, mean = torch.tensor(spec.std, dtype=torch.float64), torch.tensor(spec.mean, dtype=torch.float64)
    return (1 / (255 * std)).float(), (-mean / std).float()


def _resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return (width, height) with the shorter side at ``shorter`` and the longer one rounded down, as CLIP does."""
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _middle(image: _Image, ratio: int) -> _Image:
    width, height = image.size
    w, h = min(width, height * ratio), min(height, width * ratio)
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))


def _starts(side: int, crop: int, grid: int) -> list[int]:
    """Return the first pixel of each of ``grid`` crops, spread evenly over ``side``; a single one is centred."""
    if grid == 1:
        return [(side - crop) // 2]
    return [round(i * (side - crop) / (grid - 1)) for i in range(grid)]


def _to_tensor(pixels: UInt8[np.ndarray, "*crops height width 3"]) -> UInt8[Tensor, "*crops 3 height width"]:
    """Return pixels (..., height, width, 3) as a view (..., 3, height, width) of the same memory."""
    return torch.from_numpy(np.moveaxis(pixels, -1, -3))
