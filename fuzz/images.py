"""Image bytes: every format and mode that is read, damaged; a PNG gets correct checksums, so that it is read on."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from fuzz.harness import Case, Surface
from fuzz.mutate import damaged
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model.preprocess import ViewSpec, views

_VIEW = ViewSpec(size=16, fine="native", crops=4, crop_size=16)
_SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "quality": 30}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "F", "I;16", "LAB")),
    *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd")),
    ("TIFF", "1", {"compression": "group4"}),
    *(("GIF", mode, {}) for mode in ("L", "P")),
    ("AVIF", "RGB", {"speed": 10}),
    ("AVIF", "RGBA", {"speed": 10}),
)


@cache
def seeds() -> tuple[bytes, ...]:
    """Return whole images of 24 x 17 pixels, one of each kind."""
    noise = np.random.default_rng(0).integers(0, 256, (17, 24, 4), dtype=np.uint8)
    plain = Image.fromarray(noise)
    found = [_saved(_as(plain, mode), kind, options) for kind, mode, options in _SAVED]
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [plain.convert("P"), plain.rotate(90).convert("P")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        found.append(_saved(frames[0], kind, {"save_all": True, "append_images": frames[1:]}))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        found.append(_saved(plain.convert("RGB"), kind, {"exif": exif}))
    found.append(_saved(plain.convert("P"), "PNG", {"transparency": 3}))
    return tuple(found)


def _as(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert("L").convert("F") if mode == "F" else image.convert("RGB").convert(mode)


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make(dice: random.Random) -> Case:
    """Return one damaged image, or bytes that only begin like one."""
    data, other = dice.choice(seeds()), dice.choice(seeds())
    if dice.random() < 0.02:
        return {"image": data[: dice.randrange(20)] + dice.randbytes(dice.randrange(300))}
    data = damaged(data, dice, other)
    return {"image": _mended(data) if data.startswith(b"\x89PNG") and dice.random() < 0.8 else data}


def _mended(data: bytes) -> bytes:
    """Return a PNG with correct checksums for its chunks."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def feed(case: Case) -> None:
    """Open the image as ``score`` does, and make its views."""
    image = open_image(case["image"])
    if image.image.mode != "RGB" or min(image.width, image.height) < 1:
        raise TypeError(f"not an image: {image}")
    seen = views(image.image, _VIEW)
    if seen.coarse.shape != (3, 16, 16):
        raise TypeError(f"not a view: {seen.coarse.shape}")


SURFACE = Surface("images", make, feed)
