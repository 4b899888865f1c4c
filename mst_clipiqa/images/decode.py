"""Anything that holds an image -> one upright RGB image, or an ImageError that says why there is none.

Files are not trusted. Only seven formats are read, each by its own parser, chosen by the file's first bytes. The size
in the header is checked before anything is decoded, and pipes and devices are never opened. Whatever a parser raises
becomes one readable sentence without the file's name and the parser's own words (those are in ``__cause__``), so that
equal reasons can be counted.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from PIL import Image, ImageFile

from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.formats import HEAD, kind_of, parser_of
from mst_clipiqa.images.modes import from_array, from_tensor, orientation, quiet, to_rgb, upright

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    File: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview
    Source: TypeAlias = File | Image.Image | NDArray[np.uint8] | torch.Tensor

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels: the limit that Pillow itself has for some of the formats."""
MAX_BYTES = 512 * 2**20
"""Largest file that is read, in bytes."""

# So as not to wait for a writer if a pipe takes the file's name between the check and the opening.
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
_EARLY = ("truncat", "incomplete", "requires a buffer", "no more images")  # how parsers say "cut off"


@dataclass(frozen=True)
class OpenedImage:
    """One decoded image.

    Attributes:
        image: mode RGB, upright, independent of any file.
        width: of the whole upright image, in pixels, even if ``reduce_to`` made ``image`` smaller.
        height: likewise.
    """

    image: Image.Image
    width: int
    height: int


def open_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, reduce_to: int | None = None
) -> OpenedImage:
    """Return the image in ``source``, upright and in RGB.

    Transparent parts become white, EXIF orientation is applied, only the first frame is read, and 16 bits per channel
    become 8. Safe to call from many threads at once; warnings of Pillow are suppressed.

    Args:
        source: a path; the bytes of a file; a PIL image; a uint8 array (H, W), (H, W, 3) or (H, W, 4); or a
            float tensor (3, H, W) in [0, 1].
        max_pixels: a larger image is refused before it is decoded.
        max_bytes: a larger file is refused before it is read.
        reduce_to: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as both sides keep at least this many pixels:
            much faster for photographs, but not the same pixels as a full decode. None decodes in full.

    Returns:
        OpenedImage: the RGB image and the size of the upright image.

    Raises:
        ImageError: there is no usable image; the message is the reason.

    Example:
        >>> open_image(Image.new("L", (3, 2))).image.mode
        'RGB'
    """
    if isinstance(source, Image.Image):
        return _from_image(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        _check_length(len(source), max_bytes)
        return _decode(io.BytesIO(source), max_pixels, reduce_to)
    if isinstance(source, str | os.PathLike):
        with _open_file(source, max_bytes) as file:
            return _decode(file, max_pixels, reduce_to)
    # A caller with an array or a tensor has imported its package; for others it is not imported.
    if (numpy := sys.modules.get("numpy")) and isinstance(source, numpy.ndarray):
        return _from_image(from_array(source), max_pixels)
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.Tensor):
        return _from_image(from_tensor(source), max_pixels)
    raise ImageError(
        f"Expected a path, bytes, a PIL image, a uint8 array or a float tensor, got {type(source).__name__}: "
        "convert it to one of these."
    )


def read_image(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of an image file without decoding; ImageError if ``open_image`` would not open it."""
    with _open_file(path, max_bytes) as file:
        return file.read()


def _from_image(image: Image.Image, max_pixels: int) -> OpenedImage:
    """Return a copy of a PIL image, which stays as it was, except that it is loaded."""
    _check_size(image.size, max_pixels)
    with _translated("PIL"), quiet():
        image.load()
        turned = upright(to_rgb(image), orientation(image))
        return OpenedImage(turned, *turned.size)


def _decode(file: BinaryIO, max_pixels: int, reduce_to: int | None) -> OpenedImage:
    """Return the first image of an open file after checking its header."""
    with _translated("file"):
        kind = kind_of(file.read(HEAD))
        file.seek(0)
    with _translated(kind), quiet():
        image = parser_of(kind)(file)
        _check_size(image.size, max_pixels)
        if kind == "TIFF":
            _check_covered(image)
        full = image.size
        if reduce_to is not None:
            image.draft(None, (reduce_to, reduce_to))
        is_whole = image.size == full
        image.load()
        turn = orientation(image)
        turned = upright(to_rgb(image), turn)
        if is_whole:  # Pillow turns a TIFF upright as it loads, so its size is known only now
            return OpenedImage(turned, *turned.size)
        return OpenedImage(turned, *(full[::-1] if turn >= 5 else full))


@contextmanager
def _open_file(path: str | os.PathLike[str], max_bytes: int) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading; never wait for a pipe, never touch a device."""
    with _named_errors(path):
        if not os.fspath(path):
            raise FileNotFoundError
        info = Path(path).stat()
    _check_kind(info, max_bytes)
    with _named_errors(path):
        descriptor = os.open(path, _READ)
    with os.fdopen(descriptor, "rb", buffering=2**16) as file:
        _check_kind(os.fstat(descriptor), max_bytes)  # again: the name may belong to another file by now
        yield file


@contextmanager
def _named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a system error about a path into an ImageError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = " (addresses on the web are not fetched)" if "://" in os.fspath(path) else ""
        raise ImageError(
            f"Expected an image, found no file of this name{hint}: check that it is still there."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _unreadable(error) from error


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
            raise _unreadable(error) from error
        early = isinstance(error, EOFError) or any(word in str(error).lower() for word in _EARLY)
        state = "ends too early" if early else "is damaged or of a rare kind"
        raise ImageError(f"Expected a whole {kind} image, got one that {state}: save or download it again.") from error


def _check_kind(info: os.stat_result, max_bytes: int) -> None:
    """Refuse all but ordinary files of a reasonable length."""
    if stat.S_ISDIR(info.st_mode):
        raise ImageError(
            "Expected an image, got a folder: name the folder itself to score what is in it, or rename it."
        )
    if not stat.S_ISREG(info.st_mode):
        kind = "a named pipe" if stat.S_ISFIFO(info.st_mode) else "a device or socket"
        raise ImageError(f"Expected an image, got {kind}: save the image to an ordinary file first.")
    _check_length(info.st_size, max_bytes)


def _check_length(length: int, max_bytes: int) -> None:
    if length == 0:
        raise ImageError("Expected an image, got nothing (0 bytes): save or download it again.")
    if length > max_bytes:
        raise ImageError(f"Expected at most {max_bytes:,} bytes, got {length:,}: save it smaller, or raise max_bytes.")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if min(size) < 1:
        raise ImageError(f"Expected at least one pixel, got {width} x {height}: save the image again.")
    if width * height > max_pixels:
        raise ImageError(
            f"Expected at most {max_pixels:,} pixels, got {width} x {height}: save it smaller, or raise max_pixels."
        )


def _check_covered(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF whose strips hold less than its size claims: Pillow would make up the rest."""
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    if sum((right - left) * (low - top) for left, top, right, low in boxes) < image.width * image.height:
        raise ValueError("the strips do not cover the image")


def _unreadable(error: OSError | ValueError) -> ImageError:
    why = (isinstance(error, OSError) and error.strerror) or str(error)
    return ImageError(f"Expected an image, but the file cannot be read ({why}): check its name, permissions and disk.")
