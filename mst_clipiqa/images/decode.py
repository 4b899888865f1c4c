"""Anything that holds an image -> one upright RGB image, or an ImageError that says why there is none.

Files are not trusted. Only a few formats are read, each by its own parser, chosen by the file's first bytes. The size
in the header is checked before anything is decoded, and pipes and devices are never opened. Whatever a parser raises
becomes one readable sentence without the file's name and the parser's own words (those are in ``__cause__``), so that
equal reasons can be counted.
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from PIL import Image, ImageFile

from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.colour import UNUSABLE, conversion
from mst_clipiqa.images.files import File, Named, StoredImage, check_length, open_file, unreadable
from mst_clipiqa.images.formats import HEAD, kind_of, parser_of
from mst_clipiqa.images.frames import ANIMATED, MOST_FRAMES, count_frames, gif_frames, seek_frame, seek_full_page
from mst_clipiqa.images.jxl import jxl_size
from mst_clipiqa.images.modes import from_array, from_tensor, is_transparent, orientation, quiet, to_rgb, upright
from mst_clipiqa.images.options import MAX_PIXELS, Frame, OpenOptions
from mst_clipiqa.images.salvage import without_metadata
from mst_clipiqa.images.texts import png_chunks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8 | np.floating[Any]] | torch.Tensor
    Source: TypeAlias = File | BinaryIO | Frame | Image.Image | Pixels

_EARLY = ("truncat", "incomplete", "requires a buffer", "no more images")  # how parsers say "cut off"
_LOST = {"iCCP": UNUSABLE, "tRNS": "its transparency is damaged and was left out"}
_CLOSED = "Expected an open image, got a closed one: open it again, or call load() on it before it is closed."
_TINY = 16  # pixels: an image with a shorter side than this holds too little to be judged


@dataclass(frozen=True)
class OpenedImage:
    """One decoded image.

    Attributes:
        image: mode RGB, upright, independent of any file.
        width: of the whole upright image, in pixels, even if ``reduce_to`` made ``image`` smaller.
        height: likewise.
        caution: what makes its scores less certain, in a few words; empty if nothing does.
    """

    image: Image.Image
    width: int
    height: int
    caution: str = ""


def open_image(source: Source, options: OpenOptions | None = None, **changes: Any) -> OpenedImage:
    """Return the image in ``source``, upright, in RGB and in sRGB.

    Transparent parts become white, EXIF orientation is applied, and 16 bits per channel become 8. Of a TIFF with
    several pages, the first that is not a thumbnail is read. Metadata that cannot be read is left out. Safe to call
    from many threads at once; warnings of Pillow are suppressed.

    Args:
        source: a path; the bytes of a file; an open binary file; a ``Frame``; a PIL image; a uint8 or float array
            (H, W), (H, W, 3) or (H, W, 4), floats in [0, 1]; or a float tensor (3, H, W) in [0, 1].
        options: how to open it; every field may also be given by name.
        changes: fields of ``OpenOptions``.

    Returns:
        OpenedImage: the RGB image and the size of the upright image.

    Raises:
        ImageError: there is no usable image; the message is the reason.

    Example:
        >>> open_image(Image.new("L", (3, 2))).image.mode
        'RGB'
    """
    options = options or OpenOptions()
    if changes:
        options = dataclasses.replace(options, **changes)
    number = None
    if isinstance(source, Frame):
        number, source = source.number, source.source
    if isinstance(source, Image.Image):
        return _from_image(source, options)
    if isinstance(source, memoryview):
        source = source.tobytes()  # its bytes may lie apart
    if isinstance(source, bytes | bytearray):
        check_length(len(source), options.max_bytes)
        return _decode(io.BytesIO(source), options, number)
    if isinstance(source, str | os.PathLike | StoredImage):
        with open_file(source, options.max_bytes) as file:
            return _decode(file, options, number)
    # A caller with an array or a tensor has imported its package; for others it is not imported.
    if (numpy := sys.modules.get("numpy")) and isinstance(source, numpy.ndarray):
        return _from_image(from_array(source), options)
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.Tensor):
        return _from_image(from_tensor(source), options)
    if callable(getattr(source, "read", None)):
        return _decode(io.BytesIO(_read(source, options.max_bytes)), options, number)
    raise ImageError(
        "Expected a path, bytes, an open file, a PIL image, a uint8 array or a float tensor, got "
        f"{type(source).__name__}: convert it to one of these."
    )


def frames_in(path: Named) -> int:
    """Return how many frames an image file has, at most ``MOST_FRAMES``; only its header is read.

    Raises:
        ImageError: it cannot be read.
    """
    with open_file(path) as file:
        with _translated("file"):
            kind = kind_of(file.read(HEAD))
            file.seek(0)
        with _translated(kind), quiet():
            if kind == "GIF":
                return max(1, gif_frames(file))
            return count_frames(kind, parser_of(kind)(file)) if kind in ANIMATED else 1


def _read(file: Any, max_bytes: int) -> bytes:
    """Return the rest of an open file."""
    if isinstance(file, io.TextIOBase):
        raise ImageError("Expected an open file that gives bytes, got str: open it in binary mode.")
    with _translated("file"):
        data = file.read(max_bytes + 1)
    if not isinstance(data, bytes):
        if hasattr(data, "close"):
            data.close()  # a coroutine, which would warn that nobody awaited it
        raise ImageError(f"Expected an open file that gives bytes, got {type(data).__name__}: open it in binary mode.")
    if not data:
        raise ImageError("Expected an image, got an open file at its end: call seek(0) before.")
    check_length(len(data), max_bytes)
    return data


def _from_image(image: Image.Image, options: OpenOptions) -> OpenedImage:
    """Return a copy of a PIL image, which stays as it was, except that it is loaded."""
    check_size(image.size, options.max_pixels)
    with _translated("PIL"), quiet():
        if isinstance(image, ImageFile.ImageFile) and image.fp is None and image.tile:
            raise ValueError("closed before it was read")
        image.load()
        rgb, cautions = _in_rgb(image, options)
        turned = upright(rgb, orientation(image))
        return OpenedImage(turned, *turned.size, "; ".join(cautions))


def _decode(file: BinaryIO, options: OpenOptions, number: int | None) -> OpenedImage:
    """Return the image of an open file; if the parser stumbles over metadata, of the file without it."""
    with _translated("file"):
        kind = kind_of(file.read(HEAD))
    try:
        return _parsed(kind, file, options, number)
    except ImageError as error:
        if error.__cause__ is None or isinstance(error.__cause__, MemoryError):  # it was not the parser
            raise
        with _translated(kind):
            file.seek(0)
            mended = without_metadata(kind, file)
        if mended is None:
            raise
        data, lost = mended
        opened = _parsed(kind, io.BytesIO(data), options, number)
        cautions = [*(_LOST[name] for name in dict.fromkeys(lost)), opened.caution]
        return dataclasses.replace(opened, caution="; ".join(filter(None, cautions)))


def _parsed(kind: str, file: BinaryIO, options: OpenOptions, number: int | None) -> OpenedImage:
    """Return the image of an open file, after checking its header."""
    with _translated(kind), quiet():
        cicp = _cicp(file) if kind == "PNG" and options.color == "srgb" else b""
        parser = parser_of(kind)
        in_gif = gif_frames(file) if kind == "GIF" else 0
        file.seek(0)
        if kind == "JPEG XL":
            check_size(jxl_size(file), options.max_pixels)
        image = parser(file)
        check_size(image.size, options.max_pixels)
        cautions = []
        if kind == "TIFF":
            cautions = seek_full_page(image)
            check_size(image.size, options.max_pixels)
            _check_covered(image)
        cautions += _go_to_frame(
            image, in_gif or count_frames(kind, image), options.frame if number is None else number
        )
        full = image.size
        if options.reduce_to is not None:
            image.draft(None, (options.reduce_to, options.reduce_to))
        is_whole = image.size == full
        image.load()
        rgb, more = _in_rgb(image, options, cicp)
        turn = orientation(image)
        turned = upright(rgb, turn)
        # Pillow turns a TIFF upright as it loads, so its size is known only now.
        size = turned.size if is_whole else full[::-1] if turn >= 5 else full
        return OpenedImage(turned, *size, "; ".join(cautions + more))


def _cicp(file: BinaryIO) -> bytes:
    """Return the data of a PNG's cICP chunk, or nothing."""
    for name, length in png_chunks(file):
        if name == b"cICP" and length == 4:
            return file.read(4)
        if name == b"IDAT":
            break
    return b""


def _go_to_frame(image: ImageFile.ImageFile, frames: int, frame: int | str) -> list[str]:
    """Go to the frame that was asked for; return a caution if there are several."""
    number = frame if isinstance(frame, int) else frames // 2 if frame == "middle" else 0
    seek_frame(image, number, frames)
    of = f"{frames:,}" if frames < MOST_FRAMES else f"{MOST_FRAMES:,} or more"
    return [f"frame {number + 1:,} of {of}"] if frames > 1 else []


def _in_rgb(image: Image.Image, options: OpenOptions, cicp: bytes = b"") -> tuple[Image.Image, list[str]]:
    """Return a loaded image in RGB, and what is to be said of it."""
    convert = conversion(image, cicp) if options.color == "srgb" else None
    rgb = to_rgb(image, convert if convert and convert.transform else None)
    cautions = [convert.caution] if convert and convert.caution else []
    if min(rgb.size) < _TINY:
        cautions.append(f"only {image.width} x {image.height} pixels")
    elif (colour := rgb.getpixel((0, 0))) == rgb.getpixel((rgb.width - 1, rgb.height // 2)) and _is_flat(rgb):
        is_clear = colour == (255, 255, 255) and is_transparent(image) and _is_clear(image)
        cautions.append("wholly transparent" if is_clear else "one flat colour")
    return rgb, cautions


def _is_flat(rgb: Image.Image) -> bool:
    return all(low == high for low, high in rgb.getextrema())  # type: ignore[misc]  # RGB has a pair per band


def _is_clear(image: Image.Image) -> bool:
    return image.convert("RGBA").getchannel("A").getextrema() == (0, 0)


@contextmanager
def _translated(kind: str) -> Iterator[None]:
    """Turn whatever a parser raises on foreign bytes into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"Expected at most {MAX_PIXELS:,} pixels, got a {kind} image that claims more: save it smaller."
        ) from error
    except MemoryError as error:
        raise ImageError("Expected an image that fits into memory, got a larger one: save it smaller.") from error
    except Exception as error:  # parsers raise nearly every type there is
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(error) from error
        if isinstance(error, ValueError) and "closed" in str(error):
            raise ImageError(_CLOSED) from error
        early = isinstance(error, EOFError) or any(word in str(error).lower() for word in _EARLY)
        state = "ends too early" if early else "is damaged or of a rare kind"
        raise ImageError(f"Expected a whole {kind} image, got one that {state}: save or download it again.") from error


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raise an ImageError if an image of this width and height, in pixels, is empty or too large."""
    width, height = size
    if min(size) < 1:
        raise ImageError(f"Expected at least one pixel, got {width} x {height}: save the image again.")
    if width * height > max_pixels:
        raise ImageError(
            f"Expected at most {max_pixels:,} pixels, got {width} x {height}: "
            "save it smaller, or raise --max-megapixels."
        )


def _check_covered(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF whose strips hold less than its size claims: Pillow would make up the rest."""
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    if sum((right - left) * (low - top) for left, top, right, low in boxes) < image.width * image.height:
        raise ValueError("the strips do not cover the image")
