"""Twenty ways to distort an image, each with a strength from 0 (barely visible) to 1 (ruined).

A ladder is an image and its distorted versions, each stronger than the last: models are trained and measured on their
order, which needs no ratings.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from scipy import fft, ndimage

_Distort = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def distort(image: Image.Image, kind: str, strength: float, seed: int) -> Image.Image:
    """Return an RGB image distorted in one way; the same arguments always give the same image."""
    return DISTORTIONS[kind](image, strength, np.random.default_rng(seed))


def _between(low: float, high: float, strength: float) -> float:
    """Go from low to high geometrically, so that each step looks about equally large."""
    return float(low * (high / low) ** strength)


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_between(0.6, 6.0, strength)))


def _noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return _to_image(pixels + _between(4, 60, strength) * rng.standard_normal(pixels.shape, np.float32))


def _coded(image: Image.Image, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, **options)
    return Image.open(file).convert("RGB")


def _jpeg(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    return _coded(image, format="JPEG", quality=round(_between(70, 4, strength)))


def _webp(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    return _coded(image, format="WEBP", quality=round(60 * (1 - strength)), method=1)


def _resampled(image: Image.Image, factor: float, down: Image.Resampling, up: Image.Resampling) -> Image.Image:
    """Shrink an image by a factor, and enlarge it to its size again."""
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, down).resize(image.size, up)


def _downsample(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    factor = _between(1.3, 8.0, strength)
    return _resampled(image, factor, Image.Resampling.BICUBIC, Image.Resampling.BICUBIC)


def _banding(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    step = 255 / (_between(32, 3, strength) - 1)
    return _to_image(np.rint(np.asarray(image, np.float32) / step) * step)


def _ringing(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    """Cut all frequencies above a radius: edges ring."""
    pixels = np.asarray(image, np.float32)
    spectrum = fft.rfft2(pixels, axes=(0, 1))
    y, x = np.fft.fftfreq(image.height)[:, None], np.fft.rfftfreq(image.width)[None]
    spectrum[np.hypot(x, y) > _between(0.3, 0.04, strength)] = 0
    return _to_image(fft.irfft2(spectrum, s=pixels.shape[:2], axes=(0, 1)))


def _warp(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Push pixels along a smooth random field: straight edges wobble, faces melt."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    grid = rng.standard_normal((2, height // 16 + 4, width // 16 + 4))
    shift = np.stack([ndimage.zoom(g, 16, order=3)[:height, :width] for g in grid]) * _between(0.8, 10, strength)
    at = (np.indices((height, width), np.float32) + shift).astype(np.float32)
    return _to_image(
        np.stack([ndimage.map_coordinates(pixels[..., c], at, np.float32, 1, "mirror") for c in range(3)], -1)
    )


def _luminance_noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Add one value to all three channels of a pixel: noise without colour."""
    pixels = np.asarray(image, np.float32)
    return _to_image(pixels + _between(4, 70, strength) * rng.standard_normal((*pixels.shape[:2], 1), np.float32))


def _grain(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Add luminance noise in clumps, strongest in the midtones, as film shows it."""
    pixels = np.asarray(image, np.float32)
    clumps = ndimage.gaussian_filter(rng.standard_normal(pixels.shape[:2], np.float32), 0.9)
    clumps *= _between(5, 75, strength) / clumps.std()
    midtones = 1 - np.abs(pixels.mean(axis=2) / 127.5 - 1) ** 2
    return _to_image(pixels + (clumps * (0.3 + 0.7 * midtones))[..., None])


def _salt_and_pepper(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.array(image)
    chance = rng.random(pixels.shape[:2])
    share = _between(0.004, 0.3, strength)
    pixels[chance < share / 2] = 0
    pixels[chance > 1 - share / 2] = 255
    return Image.fromarray(pixels)


def _upscale(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    """Shrink by averaging and enlarge again by repeating pixels and smoothing between them, as viewers do."""
    factor = _between(1.4, 8.0, strength)
    return _resampled(image, factor, Image.Resampling.BOX, Image.Resampling.BILINEAR)


def _oversharpen(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    soft = ndimage.gaussian_filter(pixels, (1.4, 1.4, 0))
    return _to_image(pixels + _between(0.8, 9.0, strength) * (pixels - soft))


def _colour_cast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Tint towards a random hue: one side of the colour wheel gains what the other loses."""
    angle = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    tint = np.cos(angle).astype(np.float32)
    return _to_image(np.asarray(image, np.float32) + _between(10, 90, strength) * tint)


def _motion_blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Average along a line in a random direction, as a hand that moves does."""
    length = _between(4, 40, strength)
    angle = rng.uniform(0, np.pi)
    steps = np.linspace(-length / 2, length / 2, round(length) + 1)
    pixels = np.asarray(image, np.float32)
    moved = [np.roll(pixels, (round(step * np.sin(angle)), round(step * np.cos(angle))), axis=(0, 1)) for step in steps]
    return _to_image(np.mean(moved, axis=0))


def _pixelation(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    factor = _between(1.5, 16.0, strength)
    return _resampled(image, factor, Image.Resampling.BOX, Image.Resampling.NEAREST)


def _underexposure(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Darken, and add the noise that a sensor has in the dark."""
    pixels = np.asarray(image, np.float32) * _between(0.75, 0.08, strength)
    return _to_image(pixels + _between(1, 6, strength) * rng.standard_normal(pixels.shape, np.float32))


def _overexposure(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    return _to_image(np.asarray(image, np.float32) * _between(1.25, 6.0, strength) + _between(8, 70, strength))


def _low_contrast(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    return _to_image(128 + (pixels - 128) * _between(0.7, 0.08, strength))


def _chroma_blur(image: Image.Image, strength: float, _rng: np.random.Generator) -> Image.Image:
    """Let colours bleed over edges, and leave the luminance."""
    y, *chroma = image.convert("YCbCr").split()
    blurred = [part.filter(ImageFilter.GaussianBlur(_between(2.0, 24.0, strength))) for part in chroma]
    return Image.merge("YCbCr", (y, *blurred)).convert("RGB")


DISTORTIONS: dict[str, _Distort] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "webp": _webp,
    "downsampling": _downsample,
    "banding": _banding,
    "ringing": _ringing,
    "warping": _warp,
    "luminance noise": _luminance_noise,
    "film grain": _grain,
    "salt and pepper": _salt_and_pepper,
    "upscaling": _upscale,
    "oversharpening": _oversharpen,
    "colour cast": _colour_cast,
    "motion blur": _motion_blur,
    "pixelation": _pixelation,
    "underexposure": _underexposure,
    "overexposure": _overexposure,
    "low contrast": _low_contrast,
    "chroma blur": _chroma_blur,
}
