r"""The views of ``preprocess.py`` for tensors, with gradients to every pixel.

With a ``reducing_gap`` Pillow first averages blocks of pixels. Then it resizes along one axis, rounds to bytes, which
also clips, and does the same along the other axis. Each step is a matrix, so here

    y = clip(W_down clip(B x W_across^T))        x (3, H, W), y (3, h, w), all in [0, 1], B the mean over blocks

with Pillow's own weights: the filter is as wide as the shrinking asks for (antialiasing). Where a filter overshoots,
at edges between black and white, the order of the axes decides what is clipped, so it is Pillow's, too.

Nothing is rounded: rounding has no gradient, and a gradient made up for it would not be that of the value. What Pillow
rounds is at most half a byte each time, which the filters enlarge by their sums of absolute weights, at most 1.27 for
each axis: 0.5 + 1.27 * 0.5 + 1.27 * 1.27 * 0.5 = 1.94 bytes, less than ``TOLERANCE``, for any image.

Source: Pillow's ``Resample.c`` and ``Reduce.c``, from their documentation and behaviour; section 3 of the paper.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mst_clipiqa.model.preprocess import ViewSpec, coarse_image, native_crops

TOLERANCE = 2 / 255
"""How far a pixel may be from Pillow's: what its roundings to bytes can add up to."""

_SUPPORT = {Image.Resampling.BICUBIC: 2.0, Image.Resampling.BILINEAR: 1.0}
_CUBIC = -0.5  # the slope of Pillow's cubic at 1


def coarse_pixels(images: Float[Tensor, "batch 3 height width"], spec: ViewSpec) -> Float[Tensor, "batch 3 S S"]:
    """Return the coarse stream's view of images in [0, 1], before normalisation."""
    return coarse_image(_PixelImage(images), spec).pixels


def fine_pixels(
    images: Float[Tensor, "batch 3 height width"], spec: ViewSpec
) -> Float[Tensor, "batch crops 3 C C"] | None:
    """Return the fine stream's views of images in [0, 1], before normalisation; None if it sees the coarse view."""
    if spec.fine == "same":
        return None
    if spec.own:
        return coarse_pixels(images, spec.own).unsqueeze(1)
    return torch.stack([crop.pixels for crop in native_crops(_PixelImage(images), spec)], dim=1)


def normalised_pixels(pixels: Float[Tensor, "*batch 3 S S"], spec: ViewSpec) -> Float[Tensor, "*batch 3 S S"]:
    """Return pixels in [0, 1] as an encoder takes them."""
    mean, std = (pixels.new_tensor(value).view(3, 1, 1) for value in (spec.mean, spec.std))
    return (pixels - mean) / std


def weights_of_axis(
    length: int, out: int, ends: tuple[float, float], resample: Image.Resampling
) -> Float[Tensor, "out length"]:
    """Return Pillow's weights along one axis, float64 (out, length); rows sum to 1.

    Args:
        length: pixels of the image.
        out: pixels of the result.
        ends: of the part that is resized, in pixels of the image.
        resample: the filter, bicubic or bilinear.

    Example:
        >>> weights_of_axis(4, 2, (0, 4), Image.Resampling.BILINEAR)[0].tolist()
        [0.42857142857142855, 0.42857142857142855, 0.14285714285714285, 0.0]
    """
    low, high = ends
    scale = (high - low) / out
    centre = low + (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    position = torch.arange(length, dtype=torch.float64) + 0.5
    weights = _filter((position - centre.unsqueeze(1)) / max(1.0, scale), resample)
    return weights / weights.sum(dim=1, keepdim=True)


def _blocks_of_axis(length: int, block: int) -> Float[Tensor, "blocks length"]:
    """Return the weights of the mean over each ``block`` pixels, float64; the last block may be shorter."""
    number = torch.arange(length) // block
    member = (number == torch.arange(math.ceil(length / block)).unsqueeze(1)).double()
    return member / member.sum(dim=1, keepdim=True)


def _filter(x: Float[Tensor, "out length"], resample: Image.Resampling) -> Float[Tensor, "out length"]:
    """Return the weight at distances x from the centre, in units of the filter's scale."""
    x = x.abs()
    if resample == Image.Resampling.BILINEAR:
        return (1 - x).clamp(min=0)
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _height_first(size: tuple[int, int], out: tuple[int, int]) -> bool:
    """Return whether Pillow resizes along the height first: from 13.0 on it does if the height loses much more."""
    fewer_columns, fewer_rows = size[0] - out[0], size[1] - out[1]
    return fewer_rows > max(0, 2 * fewer_columns)


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
        box = box or (0, 0, *self.size)
        if self.size == size and box == (0, 0, *self.size):
            return self
        image, (left, top, right, bottom) = self._reduced(size, resample, box, reducing_gap)
        across = weights_of_axis(image.width, size[0], (left, right), resample).to(image.pixels)
        down = weights_of_axis(image.height, size[1], (top, bottom), resample).to(image.pixels)
        if _height_first(image.size, size):
            return _PixelImage(((down @ image.pixels).clamp(0, 1) @ across.T).clamp(0, 1))
        return _PixelImage((down @ (image.pixels @ across.T).clamp(0, 1)).clamp(0, 1))

    def _reduced(
        self,
        size: tuple[int, int],
        resample: Image.Resampling,
        box: tuple[float, float, float, float],
        gap: float | None,
    ) -> tuple[_PixelImage, tuple[float, float, float, float]]:
        """Return the means over blocks of pixels, ``gap`` times ``size`` or more of them, and the box in them."""
        left, top, right, bottom = box
        x, y = (right - left) / size[0], (bottom - top) / size[1]
        block_x, block_y = (max(1, int(scale / gap)) if gap else 1 for scale in (x, y))
        if block_x == block_y == 1:
            return self, box
        reach = _SUPPORT[resample] - 0.5  # the blocks begin where the filter does
        first_x, first_y = max(0, int(left - reach * x)), max(0, int(top - reach * y))
        last_x = min(self.width, math.ceil(right + reach * x))
        last_y = min(self.height, math.ceil(bottom + reach * y))
        pixels = self.crop((first_x, first_y, last_x, last_y)).pixels
        across = _blocks_of_axis(last_x - first_x, block_x).to(pixels)
        down = _blocks_of_axis(last_y - first_y, block_y).to(pixels)
        ends = [(left - first_x) / block_x, (top - first_y) / block_y]
        ends += [(right - first_x) / block_x, (bottom - first_y) / block_y]
        return _PixelImage(down @ (pixels @ across.T)), (ends[0], ends[1], ends[2], ends[3])

    def crop(self, box: tuple[int, int, int, int]) -> _PixelImage:
        """Return the part from (left, top) to (right, bottom)."""
        left, top, right, bottom = box
        return _PixelImage(self.pixels[..., top:bottom, left:right])
