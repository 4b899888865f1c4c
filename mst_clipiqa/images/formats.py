"""The image format of a file, from its first bytes, and the one Pillow parser that may read it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mst_clipiqa.errors import ImageError, install

if TYPE_CHECKING:
    from PIL import ImageFile

IMAGE_FORMATS = "PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF"
HEAD = 64
"""Number of bytes at the start of a file that ``kind_of`` needs."""

_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
    "JPEG XL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile"),
}
_EXTRAS = {"HEIC": "heic", "JPEG XL": "jxl"}
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
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_SAVE = "save it as PNG or JPEG"
_SAVE_FRAME = "save a frame as PNG or JPEG"
_RAW = ("a raw photograph", "develop it and save it as PNG or JPEG")
# Other kinds of files that people name like images, in lower case; the message names the first that fits.
_FOREIGN = (
    (b"%pdf", "a PDF document", _SAVE),
    (b"8bps", "a Photoshop document", _SAVE),
    (b"<!doctype html", "a web page", "download the image itself"),
    (b"<html", "a web page", "download the image itself"),
    (b"<!--", "a web page", "download the image itself"),
    (b"<svg", "an SVG drawing", _SAVE),
    (b"<?xml", "an XML or SVG document", _SAVE),
    (b"version https://git-lfs", "a Git LFS pointer, not the image", "fetch the image with git lfs pull"),
    (b"data:image/", "a data URI, which is text", "decode it first"),
    (b"ivborw0kggo", "an image as base64 text", "decode it first"),
    (b"/9j/", "an image as base64 text", "decode it first"),
    (b"uklgr", "an image as base64 text", "decode it first"),
    (b"r0lgod", "an image as base64 text", "decode it first"),
    (b"{", "JSON text, such as an error message", "generate or download the image again"),
    (b"[", "JSON text", "generate or download the image again"),
    (b"\0\0\0\x0cjp  ", "a JPEG 2000 image", _SAVE),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", _SAVE),
    (b"v/1\x01", "an OpenEXR image", _SAVE),
    (b"#?radiance", "a Radiance HDR image", _SAVE),
    (b"dds ", "a DDS texture", _SAVE),
    (b"qoif", "a QOI image", _SAVE),
    (b"gimp xcf", "a GIMP document", _SAVE),
    *((b"p%d" % n + blank, "a PPM, PGM or PBM image", _SAVE) for n in range(1, 8) for blank in (b" ", b"\n", b"\r")),
    *((start, *_RAW) for start in (b"iiro", b"iirs", b"iiu\0")),
    (b"fujifilmccd-raw", *_RAW),
    (b"\x93numpy", "a NumPy array", _SAVE),
    (b"\0\0\1\0", "an icon", _SAVE),
    (b"%!ps", "a PostScript document", _SAVE),
    (b"\x1a\x45\xdf\xa3", "a video", _SAVE_FRAME),
    (b"pk\3\4", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
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
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "HEIC"
    for start, kind in _STARTS:
        if head.startswith(start) and not _is_canon_raw(head):
            return kind
    name, hint = _looks_like(head)
    raise ImageError(f"Expected an image ({IMAGE_FORMATS}), got {name}: {hint}.")


def _is_canon_raw(head: bytes) -> bool:
    return head[:4] == b"II*\0" and head[8:10] == b"CR"


def parser_of(kind: str) -> type[ImageFile.ImageFile]:
    """Return the parser for one format; ``Image.open`` would try every installed one.

    Raises:
        ImageError: the format needs a package that is not installed.
    """
    module, name = _PLUGINS[kind]
    try:
        found: type[ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
    except ImportError:
        raise ImageError(
            f"Expected an image ({IMAGE_FORMATS}), got a {kind} image: {install(_EXTRAS[kind])} to read it, or {_SAVE}."
        ) from None
    return found


def _looks_like(head: bytes) -> tuple[str, str]:
    """Return the kind of file that the first bytes suggest, and how to make an image of it."""
    if head[4:8] == b"ftyp":
        return _RAW if head[8:11] == b"crx" else ("a video", _SAVE_FRAME)
    if head.startswith(b"RIFF"):
        return "a video or sound", _SAVE_FRAME
    if _is_canon_raw(head):
        return _RAW
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower() or head
    found = next(((name, hint) for magic, name, hint in _FOREIGN if start.startswith(magic)), None)
    return found or ("bytes that are none of these", _SAVE)
