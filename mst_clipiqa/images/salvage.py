"""A PNG or JPEG without the metadata that its parser may stumble over, so that good pixels are never lost to it.

Pillow refuses a whole PNG over one text or profile that is larger than its limits, or one broken gAMA, pHYs or tRNS.
What decides the pixels is copied byte for byte, checksums included: damage to that stays damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from mst_clipiqa.images.texts import inflate, png_chunks

_MOST_PROFILE = 2**20  # bytes that Pillow inflates
_ALPHA = {0: 2, 2: 6}  # length of tRNS by colour type; with a palette up to 256
_FIXED = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}


def without_metadata(kind: str, file: BinaryIO) -> tuple[bytes, list[str]] | None:
    """Return an image file without the chunks that are damaged or that it can be read without.

    Args:
        kind: its format, as ``kind_of`` names it.
        file: at its start.

    Returns:
        The smaller file, and the names of the chunks that matter for the pixels but had to be left out ("iCCP",
        "tRNS"); None for other formats, and if nothing can be left out.
    """
    return _MENDERS[kind](file) if kind in _MENDERS else None


def _png(file: BinaryIO) -> tuple[bytes, list[str]] | None:
    kept, lost, dropped, colour_type = [file.read(8)], [], False, -1
    for name, length in png_chunks(file):
        is_needed = not name[0] & 32  # a small first letter: not for the pixels
        data = file.read(length + 4) if is_needed or _is_useful(name, length) else b""
        if name == b"IHDR" and length >= 13:
            colour_type = data[9]
        if is_needed or _is_good(name, data, colour_type):
            kept.append(struct.pack(">I4s", length, name) + data)
        else:
            dropped = True
            lost += [name.decode("latin-1")] if name in (b"iCCP", b"tRNS") else []
    return (b"".join(kept), lost) if dropped else None


def _is_useful(name: bytes, length: int) -> bool:
    return name in (b"tRNS", b"eXIf", b"iCCP", *_FIXED) and length <= _MOST_PROFILE


def _is_good(name: bytes, data: bytes, colour_type: int) -> bool:
    """Whether a chunk that is not needed for the pixels is whole and of a length that it can have."""
    body, check = data[:-4], data[-4:]
    if len(check) < 4 or struct.unpack(">I", check)[0] != zlib.crc32(name + body):
        return False
    if name == b"tRNS":
        return len(body) == _ALPHA[colour_type] if colour_type in _ALPHA else colour_type == 3 and 0 < len(body) <= 256
    if name == b"iCCP":
        title, _, rest = body.partition(b"\0")
        profile = inflate(rest[1:]) if 0 < len(title) < 80 and rest[:1] == b"\0" else None
        return profile is not None and len(profile) <= _MOST_PROFILE
    return len(body) == _FIXED.get(name, len(body))


def _jpeg(file: BinaryIO) -> tuple[bytes, list[str]] | None:
    """Return a JPEG with no application segments but EXIF, the colour profile and how colours are coded (Adobe's)."""
    data = file.read()
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9, 0xFF):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at:end]
        if _jpeg_needs(segment):
            kept.append(segment)
        at = end
    smaller = b"".join(kept) + data[at:]
    return (smaller, []) if len(smaller) < len(data) else None


def _jpeg_needs(segment: bytes) -> bool:
    marker, body = segment[1], segment[4:]
    if marker == 0xEE:
        return body.startswith(b"Adobe") and len(body) >= 12
    if marker == 0xE1:
        return body.startswith(b"Exif\0\0")
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0") and len(body) >= 14
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


_MENDERS: dict[str, Callable[[BinaryIO], tuple[bytes, list[str]] | None]] = {"PNG": _png, "JPEG": _jpeg}
