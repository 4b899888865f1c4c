"""How images are opened: limits, colours and frames."""

from __future__ import annotations

from dataclasses import dataclass

from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.images.files import MAX_BYTES, File

MAX_PIXELS = 178_956_970
"""Largest image that is decoded, in pixels: the limit that Pillow itself has for some of the formats."""
COLORS = ("srgb", "as-stored")
"""What becomes of colours: converted to sRGB by the file's profile, or taken as they are stored."""

FRAMES = ("first", "middle")


@dataclass(frozen=True)
class OpenOptions:
    """How to open images.

    Attributes:
        max_pixels: a larger image is refused before it is decoded.
        max_bytes: a larger file is refused before it is read.
        reduce_to: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as long as both sides keep at least this many pixels:
            much faster for photographs, but not the same pixels as a full decode. None decodes in full.
        color: "srgb" converts by the embedded profile; "as-stored" ignores it, as CLIP's preprocessing does.
        frame: of an animated image: "first" or "middle".

    Raises:
        UsageError: there is no such ``color`` or ``frame``.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    reduce_to: int | None = None
    color: str = "srgb"
    frame: str = "first"

    def __post_init__(self) -> None:
        """Check both words."""
        if self.color not in COLORS:
            raise UsageError(f"Expected the color srgb or as-stored, got {self.color!r}{nearest(self.color, COLORS)}.")
        if self.frame not in FRAMES:
            raise UsageError(f"Expected the frame first or middle, got {self.frame!r}{nearest(self.frame, FRAMES)}.")


@dataclass(frozen=True)
class Frame:
    """One frame of an animated image, as a source to open.

    Attributes:
        source: path or bytes of the file.
        number: from 0.
    """

    source: File
    number: int
