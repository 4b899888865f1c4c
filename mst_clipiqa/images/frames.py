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
_MOST_PAGES = 100
_MOST_BLOCKS = 500_000  # of a GIF, in which data comes in pieces of up to 255 bytes
_MOST_WORK = 2**31  # pixels that are decoded to reach a frame
_SUBFILE_TYPE, _REDUCED = 254, 1  # the TIFF tag, and its bit for "a smaller copy of another page"


def count_frames(kind: str, image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Return how many frames an opened image has, at most ``MOST_FRAMES``; what follows the reading is not disturbed.

    Args:
        kind: its format; only GIF, PNG, WebP and AVIF are animated.
        image: as its parser opened it.
        file: what it was opened from.
    """
    if kind == "GIF":
        place = file.tell()
        count = _gif_frames(file)
        file.seek(place)
        return max(1, count)
    count = getattr(image, "n_frames", 1) if kind in ("PNG", "WebP", "AVIF") else 1
    return max(1, min(count, MOST_FRAMES))


def _gif_frames(file: BinaryIO) -> int:
    """Return how many images a GIF announces, without decoding one."""
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


def seek_full_page(image: Any) -> None:
    """Go to the first page of a TIFF that is not a smaller copy of another; stay at the first if all are."""
    for page in range(_MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & _REDUCED:
            return
    image.seek(0)
