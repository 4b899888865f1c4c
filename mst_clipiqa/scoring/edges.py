"""Are the edges of an image at the places that a control map asks for?

A control map is what ControlNet takes for edges: light lines on a dark ground (Canny, HED, line art, scribbles). Both
sides become maps of edge strength at one size, blurred by a tolerance, and are correlated:

    agreement = corr(blur(sqrt |grad Y|), blur(map))        Y: luminance; -1..1, 1 for the same edges
"""

from __future__ import annotations

import numpy as np
import scipy  # ndimage is imported when used: every start of score would wait for it
from numpy.typing import NDArray
from PIL import Image

_SIDE = 256  # pixels of the longer side at which edges are compared
_TOLERANCE = 2.0  # deviation of the blur, in those pixels: an edge this far from its line still counts
_FLAT = 1e-6  # deviation of a map without any edge

Strength = NDArray[np.float32]


def edge_agreement(image: Image.Image, control: Image.Image) -> float | None:
    """Return how well an image's edges agree with a control map, -1..1; None if one of them has no edges.

    Args:
        image: RGB, of any size.
        control: light lines on a dark ground; resized to the image's shape if it has another.

    Example:
        >>> lines = Image.new("L", (64, 64))
        >>> lines.paste(255, (30, 0, 33, 64))
        >>> halves = Image.new("RGB", (64, 64))
        >>> halves.paste((255, 255, 255), (32, 0, 64, 64))
        >>> edge_agreement(halves, lines) > 0.8
        True
    """
    scale = _SIDE / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    own = scipy.ndimage.gaussian_filter(edges(_grey(image, size)), _TOLERANCE)
    asked = scipy.ndimage.gaussian_filter(_grey(control, size), _TOLERANCE)
    if own.std() < _FLAT or asked.std() < _FLAT:
        return None
    return float(np.corrcoef(own.ravel(), asked.ravel())[0, 1])


def edge_map(image: Image.Image) -> Image.Image:
    """Return the edges of an image as a control map, light lines on a dark ground, of the image's size."""
    strength = edges(_grey(image, image.size))
    return Image.fromarray((255 * strength / max(float(strength.max()), _FLAT)).astype(np.uint8))


def edges(grey: Strength) -> Strength:
    """Return edge strength, float32 (height, width), of luminance 0..1: the root lets faint edges count."""
    smooth = scipy.ndimage.gaussian_filter(grey, 1.0)
    gradient = np.hypot(scipy.ndimage.sobel(smooth, 0), scipy.ndimage.sobel(smooth, 1))
    strength: Strength = np.sqrt(gradient).astype(np.float32)
    return strength


def _grey(image: Image.Image, size: tuple[int, int]) -> Strength:
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)
