"""Text in the lowest bits of an alpha channel, where NovelAI and extensions of AUTOMATIC1111 also write it.

The bits are taken column by column, the highest of each byte first: a name of 15 bytes, the length of the text as 32
bits, in bits, and the text in UTF-8, compressed with gzip if the name says so. It survives where text chunks are
removed. The file is not trusted: the pixels, the text and what it unpacks to are bounded.
"""

from __future__ import annotations

import io
import zlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.images.files import File, read_image
from mst_clipiqa.images.formats import HEAD, kind_of, parser_of
from mst_clipiqa.images.modes import quiet

_PLAIN, _PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
_HEAD_BITS = 8 * len(_PLAIN) + 32
_MOST_ALPHA = 50_000_000
_MOST_UNPACKED = 4 * 2**20  # bytes of text


def alpha_text(source: File) -> str | None:
    """Return the text in the alpha channel of a PNG or WebP, or None if there is none or it is damaged.

    Raises:
        ImageError: the file cannot be read.
    """
    data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else read_image(source)
    kind = kind_of(data[:HEAD])
    if kind not in ("PNG", "WebP"):
        return None
    found = None
    # Parsers raise nearly every type there is.
    with suppress(Exception), quiet(), parser_of(kind)(io.BytesIO(data)) as image:
        if image.mode in ("RGBA", "LA") and _HEAD_BITS < image.width * image.height <= _MOST_ALPHA:
            found = _text(np.asarray(image.getchannel("A"), np.uint8).T.ravel() & np.uint8(1))
    return found


def _text(bits: NDArray[np.uint8]) -> str | None:
    """Return the text in some bits, or None if they do not begin as such text does."""
    head = np.packbits(bits[:_HEAD_BITS]).tobytes()
    name, length = head[: len(_PLAIN)], int.from_bytes(head[len(_PLAIN) :])
    if name not in (_PLAIN, _PACKED) or length > len(bits) - _HEAD_BITS:
        return None
    text = np.packbits(bits[_HEAD_BITS : _HEAD_BITS + length]).tobytes()
    if name == _PACKED:
        text = zlib.decompressobj(wbits=31).decompress(text, _MOST_UNPACKED)
    return text[:_MOST_UNPACKED].decode("utf-8")
