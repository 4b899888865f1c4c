"""A map over its image: the image in pale colours, red where score is lost, a frame around the worst window."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from mst_clipiqa.explain.results import Box, Float32Array, Maps, MapStream

RED = (214, 40, 40)
LEAST_SPAN = 0.02
"""Losses below this share of the target's scale stay pale, so that noise does not look like a finding."""
_STRONGEST = 0.75  # opacity where most is lost
_PALE = 0.55  # how far the image is blended with its grey version
_FINE = 64  # cells per side in which overlapping windows are averaged


def overlay(image: Image.Image, maps: Maps, stream: MapStream, *, span: float, side: int) -> Image.Image:
    """Return the image with the map of a stream over it.

    Args:
        image: RGB.
        maps: the maps of one target.
        stream: "coarse", "fine" or "both".
        span: length of the target's scale, native units.
        side: longer side of the result, pixels.
    """
    small = fitted(image, side)
    lost = spread(maps.of(stream), maps.windows)
    opacity = _STRONGEST * (lost / max(float(lost.max()), LEAST_SPAN * span)).clip(0, 1)
    mask = Image.fromarray((255 * opacity).round().astype(np.uint8)).resize(small.size, Image.Resampling.BICUBIC)
    pale = Image.blend(small, small.convert("L").convert("RGB"), _PALE)
    heated = Image.composite(Image.new("RGB", small.size, RED), pale, mask)
    _frame(heated, maps.worst(stream))
    return heated


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Return the image, shrunk so that its longer side is at most ``side`` pixels."""
    scale = min(1.0, side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def spread(lost: Float32Array, windows: Float32Array) -> Float32Array:
    """Return a map over the whole image, float32 (64, 64): each cell the mean of the windows that cover it.

    A window counts most at its centre, so that the map shows no window edges.

    Args:
        lost: float32 (rows, columns).
        windows: float32 (rows, columns, 4), 0..1.
    """
    cells = np.asarray((np.arange(_FINE) + 0.5) / _FINE, np.float32)
    left, top, right, bottom = windows.reshape(-1, 4).T[:, :, None]
    columns, rows = _tent(cells, left, right), _tent(cells, top, bottom)
    total = np.einsum("w,wy,wx->yx", lost.ravel(), rows, columns)
    return np.asarray(total / np.einsum("wy,wx->yx", rows, columns), np.float32)


def _tent(cells: Float32Array, start: Float32Array, end: Float32Array) -> Float32Array:
    """Return weights (windows, cells): 1 at the middle of each interval, close to 0 at its ends and beyond."""
    return np.asarray((1 - np.abs(2 * cells - start - end) / (end - start)).clip(1e-6), np.float32)


def _frame(image: Image.Image, box: Box) -> None:
    """Draw a frame that is visible on light and on dark images."""
    left, top, right, bottom = box
    x, y = int(left * image.width), int(top * image.height)  # a very narrow image is one pixel wide
    edges = (x, y, max(x, int(right * image.width) - 1), max(y, int(bottom * image.height) - 1))
    pen = ImageDraw.Draw(image)
    width = max(1, max(image.size) // 160)
    pen.rectangle(edges, outline=(255, 255, 255), width=2 * width)
    pen.rectangle(edges, outline=(20, 20, 20), width=width)
