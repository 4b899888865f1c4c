"""Images -> small WebP files in base64, as large as a budget of bytes allows."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from mst_clipiqa.analysis.images import NOT_FOUND, RowImage
from mst_clipiqa.errors import ImageError, as_reason
from mst_clipiqa.features.pipeline import in_order
from mst_clipiqa.images.decode import open_image

# (longer side in pixels, WebP quality), best first; the last ones take a few hundred bytes per image.
THUMBNAIL_SIZES = (
    (512, 80),
    (384, 78),
    (320, 75),
    (256, 72),
    (224, 68),
    (192, 64),
    (160, 60),
    (128, 55),
    (96, 50),
    (64, 40),
)
SAMPLE_SIZE = 48
"""Images that are tried to see which size fits."""
MARGIN = 1.1
"""How much larger than the sample the rest may be before smaller sizes are used."""


@dataclass(frozen=True)
class Thumbnails:
    """Small images, in the given order.

    Attributes:
        images: WebP in base64; empty if there is none.
        reasons: why there is no image; empty if there is one.
        side: longer side of most of them, in pixels.
    """

    images: list[str]
    reasons: list[str]
    side: int


def make_thumbnails(
    paths: Sequence[RowImage | None], budget: int, advance: Callable[[int], None] = lambda count: None
) -> Thumbnails:
    """Make a thumbnail of each image, with at most ``budget`` characters in all.

    Args:
        paths: the images; None for a row without one.
        budget: characters of base64 for all of them.
        advance: called with the number of images done.
    """
    there = sum(path is not None for path in paths)
    step = _first_step([path for path in paths if path is not None], budget)
    side, spent, left = THUMBNAIL_SIZES[step][0], 0, there
    images, reasons = [], []

    def work(path: RowImage | None) -> tuple[str, str]:
        return _thumbnail(path, *THUMBNAIL_SIZES[step])  # the step at the time the thread runs

    workers = min(8, os.cpu_count() or 1)
    for path, (image, reason) in in_order(paths, work, workers=workers, ahead=4 * workers):
        if spent + len(image) > budget:
            image, reason = "", "the page has no room for its image"
        spent += len(image)
        images.append(image)
        reasons.append(reason)
        if path is not None:
            left -= 1
            advance(1)
        done = there - left
        if (
            done % SAMPLE_SIZE == 0
            and done
            and spent / done * left > budget - spent
            and step + 1 < len(THUMBNAIL_SIZES)
        ):
            step += 1
    return Thumbnails(images, reasons, side)


def _first_step(paths: Sequence[RowImage], budget: int) -> int:
    """Return the index of the largest size at which all images are likely to fit."""
    sample = paths[:: max(1, len(paths) // SAMPLE_SIZE)]
    opened = [image for path in sample if (image := _open(path, THUMBNAIL_SIZES[0][0])[0]) is not None]
    if not opened:
        return 0
    for step, (side, quality) in enumerate(THUMBNAIL_SIZES):
        mean = sum(len(_encode(image, side, quality)) for image in opened) / len(opened)
        if mean * MARGIN * len(paths) <= budget:
            return step
    return len(THUMBNAIL_SIZES) - 1


def _thumbnail(path: RowImage | None, side: int, quality: int) -> tuple[str, str]:
    if path is None:
        return "", NOT_FOUND
    image, reason = _open(path, side)
    return ("", reason) if image is None else (_encode(image, side, quality), "")


def _open(path: RowImage, side: int) -> tuple[Image.Image | None, str]:
    """Return an image shrunk to ``side``, or the reason why there is none."""
    try:
        image = open_image(path, reduce_to=side).image
    except ImageError as error:
        return None, as_reason(error)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image, ""


def _encode(image: Image.Image, side: int, quality: int) -> str:
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return webp(image, quality)


def webp(image: Image.Image, quality: int) -> str:
    """Return an image as WebP in base64, at a quality from 0 to 100."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return base64.b64encode(file.getvalue()).decode("ascii")
