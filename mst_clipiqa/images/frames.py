"""Which frame of an animated image, or which page of a TIFF, is the image that is scored.

Files are not trusted: frames are counted up to a bound, and a frame is reached only if those before it, which have to
be decoded on the way, are few enough.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import ImageFile

from mst_clipiqa.errors import ImageError

MOST_FRAMES = 1000
"""Frames that are counted; of more, it is only known that there are at least this many."""
ANIMATED = ("PNG", "WebP", "AVIF")
"""Formats whose header says how many frames there are."""
_MOST_PAGES = 100
_MOST_BLOCKS = 500_000  # of a GIF, in which data comes in pieces of up to 255 bytes
_MOST_BEFORE = 50_000  # of those, before its first image
_MOST_WORK = 2**31  # pixels that are decoded to reach a frame
_SUBFILE_TYPE, _REDUCED = 254, 1  # the TIFF tag, and its bit for "a smaller copy of another page"
_SUB_IFDS = 330  # the TIFF tag by which raw formats point to the photograph


def count_frames(kind: str, image: ImageFile.ImageFile) -> int:
    """Return how many frames an opened image has, at most ``MOST_FRAMES``; of a GIF, ``gif_frames`` knows.

    Args:
        kind: its format; only PNG, WebP and AVIF say in their header that they are animated.
        image: as its parser opened it.
    """
    count = getattr(image, "n_frames", 1) if kind in ANIMATED else 1
    return max(1, min(count, MOST_FRAMES))


def gif_frames(file: BinaryIO) -> int:
    """Return how many images a GIF announces, at most ``MOST_FRAMES``, without decoding one.

    Raises:
        ValueError: so much comes before the first image that Pillow would read for minutes.
    """
    file.seek(0)
    head, count, blocks = file.read(13), 0, 0
    if len(head) < 13:
        return 0
    file.seek(_table(head[10]), 1)
    while count < MOST_FRAMES and blocks < _MOST_BLOCKS:
        match file.read(1):
            case b"!":  # an extension
                file.seek(1, 1)
            case b",":  # an image
                count += 1
                place = file.read(9)
                file.seek(_table(place[8] if len(place) == 9 else 0) + 1, 1)
            case _:
                return count
        while (size := file.read(1)) not in (b"", b"\0") and blocks < _MOST_BLOCKS:
            file.seek(size[0], 1)
            blocks += 1
        if not count and blocks > _MOST_BEFORE:
            raise ValueError("too many blocks before the first image")
    return count


def _table(flags: int) -> int:
    """Return the length of a GIF's table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def seek_frame(image: ImageFile.ImageFile, number: int, frames: int) -> None:
    """Go to a frame, numbered from 0.

    Raises:
        ImageError: there is no such frame, or too much would have to be decoded on the way.
    """
    if number >= frames:
        raise ImageError(f"Expected a frame below {frames}, got {number}: the file has changed since it was counted.")
    if number * image.width * image.height > _MOST_WORK:
        raise ImageError(
            f"Expected a frame that is reached within {_MOST_WORK:,} pixels, got {number} frames of {image.width} x "
            f"{image.height} before it: score the first frame, or save the frame alone."
        )
    if number:
        image.seek(number)


def seek_full_page(image: Any) -> list[str]:
    """Go to the first page of a TIFF that is not a smaller copy of another.

    Returns:
        A caution if every page says that it is one; the first is read then.

    Raises:
        ImageError: every page is one because the file is a raw photograph, which keeps its pixels elsewhere.
    """
    for page in range(_MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & _REDUCED:
            return []
    image.seek(0)
    if _SUB_IFDS in image.tag_v2:
        raise ImageError(
            "Expected an image, got a raw photograph with a thumbnail: develop it and save it as PNG or JPEG."
        )
    return ["its only page says that it is a thumbnail"]
