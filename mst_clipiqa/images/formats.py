"""The image format of a file, from its first bytes, and the one Pillow parser that may read it."""

from __future__ import annotations

import importlib

from PIL import ImageFile

from mst_clipiqa.errors import ImageError

IMAGE_FORMATS = "PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF"
HEAD = 64
"""Number of bytes at the start of a file that ``kind_of`` needs."""

_PLUGINS = {
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
}
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
# Other kinds of files that people name like images, in lower case; the message names the first that fits.
_FOREIGN = (
    (b"%pdf", "a PDF document"),
    (b"8bps", "a Photoshop document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the image (git lfs pull fetches it)"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL image"),
    (b"\0\0\0\x0cjp  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"\x93numpy", "a NumPy array"),
    (b"\0\0\1\0", "an icon"),
    (b"pk\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


def kind_of(head: bytes) -> str:
    """Return the format of a file from its first bytes: "PNG", "JPEG", ...

    Raises:
        ImageError: it is none of ours; the message says what it looks like instead.
    """
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:] or b"avis" in head[8:]):
        return "AVIF"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    raise ImageError(f"Expected an image ({IMAGE_FORMATS}), got {_looks_like(head)}: save it as PNG or JPEG.")


def parser_of(kind: str) -> type[ImageFile.ImageFile]:
    """Return Pillow's parser for one format; ``Image.open`` would try every installed one."""
    module, name = _PLUGINS[kind]
    found: type[ImageFile.ImageFile] = getattr(importlib.import_module(f"PIL.{module}"), name)
    return found


def _looks_like(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        return "a HEIC image" if head[8:11] in (b"hei", b"hev", b"mif", b"msf") else "a video"
    start = (head.lstrip() if head[:1].isspace() else head).lower()
    return next((name for magic, name in _FOREIGN if start.startswith(magic)), "bytes that are none of these")
