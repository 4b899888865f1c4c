"""Pure noise, eight kinds of it: what must score at the bottom of the scale, whatever it looks like."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

KINDS = 8
_SIDE = 512


def noise(seed: int) -> Image.Image:
    """Return an RGB image of 512 x 512 of nothing but noise; ``seed % KINDS`` is its kind."""
    rng = np.random.default_rng(seed + 5000)
    kind = seed % KINDS
    amplitude = rng.uniform(15, 110)
    base = rng.integers(0, 256, 3) if seed % 3 == 0 else np.full(3, rng.integers(30, 226))
    match kind:
        case 0:
            pixels = rng.integers(0, 256, (_SIDE, _SIDE, 3)).astype(float)
        case 1 | 2:  # with colour, and luminance alone
            pixels = base + amplitude * rng.standard_normal((_SIDE, _SIDE, 3 if kind == 1 else 1))
        case 3 | 5:  # in clumps: luminance alone, and with colour
            clumps = rng.standard_normal((_SIDE, _SIDE, 1 if kind == 3 else 3))
            radius = rng.uniform(0.6, 3)
            clumps = ndimage.gaussian_filter(clumps, (radius, radius, 0))
            pixels = base + amplitude * clumps / clumps.std()
        case 4:  # salt and pepper
            share, chance = rng.uniform(0.02, 0.6), rng.random((_SIDE, _SIDE, 1))
            pixels = np.where(chance < share / 2, 0, np.where(chance > 1 - share / 2, 255, base[0])).astype(float)
        case 6:  # black and white
            pixels = (rng.random((_SIDE, _SIDE, 1)) < rng.uniform(0.1, 0.9)) * 255.0
        case _:  # in blocks of four pixels
            small = base + amplitude * rng.standard_normal((_SIDE // 4, _SIDE // 4, rng.choice([1, 3])))
            pixels = np.repeat(np.repeat(small, 4, 0), 4, 1)
    return Image.fromarray(np.clip(np.rint(pixels + np.zeros(3)), 0, 255).astype(np.uint8))
