r"""The views of ``preprocess.py`` for tensors, with gradients to every pixel.

Pillow resizes along one axis, rounds to bytes, resizes along the other and rounds again. Each axis is a matrix, so here

    y = clip(W_down clip(x W_across^T))        x (3, H, W), y (3, h, w), all in [0, 1]

with Pillow's own weights: the filter is as wide as the shrinking asks for (antialiasing), and with a ``reducing_gap``
blocks of pixels are averaged first. Nothing is rounded, because rounding has no gradient, so pixels differ from
Pillow's by up to ``TOLERANCE``. They differ by more at a few edges between black and white, where the filter overshoots
and both clip: which axis comes first then matters, and some versions of Pillow choose it by the sizes.

Source: Pillow's ``Resample.c`` and ``Reduce.c``, from their documentation and behaviour; section 3 of the paper.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mst_clipiqa.model.preprocess import ViewSpec, coarse_image, native_crops

TOLERANCE = 2 / 255
"""How far a pixel may be from Pillow's where nothing is clipped: half a byte of the last rounding, and what the filter
makes of the roundings before it."""

_SUPPORT = {Image.Resampling.BICUBIC: 2.0, Image.Resampling.BILINEAR: 1.0}
_CUBIC = -0.5  # the slope of Pillow's cubic at 1


def coarse_pixels(images: Float[Tensor, "batch 3 height width"], spec: ViewSpec) -> Float[Tensor, "batch 3 S S"]:
    """Return the coarse stream's view of images in [0, 1], before normalisation."""
    return _pixels(coarse_image(cast(Image.Image, _PixelImage(images)), spec))


def fine_pixels(
    images: Float[Tensor, "batch 3 height width"], spec: ViewSpec
) -> Float[Tensor, "batch crops 3 C C"] | None:
    """Return what the fine stream sees of images in [0, 1], before normalisation; None if that is the coarse view."""
    if spec.fine == "same":
        return None
    if spec.own:
        return coarse_pixels(images, spec.own).unsqueeze(1)
    return torch.stack([_pixels(crop) for crop in native_crops(cast(Image.Image, _PixelImage(images)), spec)], dim=1)


def normalised_pixels(pixels: Float[Tensor, "*batch 3 S S"], spec: ViewSpec) -> Float[Tensor, "*batch 3 S S"]:
    """Return pixels in [0, 1] as an encoder takes them."""
    mean, std = (pixels.new_tensor(value).view(3, 1, 1) for value in (spec.mean, spec.std))
    return (pixels - mean) / std


def weights_of_axis(
    length: int, out: int, ends: tuple[float, float], resample: Image.Resampling, gap: float | None = None
) -> Float[Tensor, "out length"]:
    """Return Pillow's weights along one axis, float64 (out, length); rows sum to 1.

    Args:
        length: pixels of the image.
        out: pixels of the result.
        ends: of the part that is resized, in pixels of the image.
        resample: the filter, bicubic or bilinear.
        gap: first average blocks of pixels, down to this many times ``out`` or more.

    Example:
        >>> weights_of_axis(4, 2, (0, 4), Image.Resampling.BILINEAR)[0].tolist()
        [0.42857142857142855, 0.42857142857142855, 0.14285714285714285, 0.0]
    """
    low, high = ends
    scale = (high - low) / out
    block = max(1, int(scale / gap)) if gap else 1
    first, last = 0, length
    if block > 1:  # the blocks begin where the filter does
        reach = (_SUPPORT[resample] - 0.5) * scale
        first, last = max(0, int(low - reach)), min(length, math.ceil(high + reach))
    blocks = math.ceil((last - first) / block)
    centre = (low - first) / block + (torch.arange(out, dtype=torch.float64) + 0.5) * scale / block
    position = torch.arange(blocks, dtype=torch.float64) + 0.5
    weights = _filter((position - centre.unsqueeze(1)) / max(1.0, scale / block), resample)
    weights = weights / weights.sum(dim=1, keepdim=True)
    if block == 1:
        return weights
    pixel = torch.arange(length)
    number = torch.where((pixel >= first) & (pixel < last), (pixel - first) // block, -1)
    member = (number == torch.arange(blocks).unsqueeze(1)).double()  # the last block may be shorter
    return weights @ (member / member.sum(dim=1, keepdim=True))


def _filter(x: Float[Tensor, "out length"], resample: Image.Resampling) -> Float[Tensor, "out length"]:
    """Return the weight at distances x from the centre, in units of the filter's scale."""
    x = x.abs()
    if resample == Image.Resampling.BILINEAR:
        return (1 - x).clamp(min=0)
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


class _PixelImage:
    """A batch of images of one size that resizes and crops as a Pillow image does, for the geometry of the views."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[-2:]
        self.size = (self.width, self.height)

    def resize(
        self,
        size: tuple[int, int],
        resample: Image.Resampling,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> _PixelImage:
        """Return the images resized to (width, height), as ``Image.resize`` does."""
        left, top, right, bottom = box or (0, 0, *self.size)
        if self.size == size and (left, top, right, bottom) == (0, 0, *self.size):
            return self
        across = weights_of_axis(self.width, size[0], (left, right), resample, reducing_gap).to(self.pixels)
        down = weights_of_axis(self.height, size[1], (top, bottom), resample, reducing_gap).to(self.pixels)
        return _PixelImage((down @ (self.pixels @ across.T).clamp(0, 1)).clamp(0, 1))

    def crop(self, box: tuple[int, int, int, int]) -> _PixelImage:
        """Return the part from (left, top) to (right, bottom)."""
        left, top, right, bottom = box
        return _PixelImage(self.pixels[..., top:bottom, left:right])


def _pixels(image: object) -> Tensor:
    return cast(_PixelImage, image).pixels
