"""The size of a JPEG XL image, read from its header: its decoder says it only once the image is decoded."""

from __future__ import annotations

import struct
from typing import BinaryIO

_MOST_BOXES = 1000
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BITS = (9, 13, 18, 30)  # how long a side's number can be


def jxl_size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height in pixels (ISO/IEC 18181-1, D.2); the file is at its start afterwards.

    Raises:
        ValueError: the file has no such header.
    """
    try:
        head = _codestream(file)
    finally:
        file.seek(0)
    if len(head) < 12 or head[:2] != b"\xff\x0a":
        raise ValueError("no header of a JPEG XL codestream")
    bits = int.from_bytes(head[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(in_eights: bool) -> int:
        return 8 * (1 + take(5)) if in_eights else 1 + take(_BITS[take(2)])

    in_eights = bool(take(1))
    height = side(in_eights)
    ratio = take(3)
    if ratio == 0:
        return side(in_eights), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _codestream(file: BinaryIO) -> bytes:
    """Return the first bytes of the image itself, which may be inside a container of boxes."""
    file.seek(0)
    start = file.read(16)
    if start.startswith(b"\xff\x0a"):
        return start
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            break
        length, name = struct.unpack(">I4s", head[:8])
        data = 8
        if length == 1 and len(head) == 16:
            (length,), data = struct.unpack(">Q", head[8:]), 16
        if name in (b"jxlc", b"jxlp"):
            file.seek(place + data + (4 if name == b"jxlp" else 0))
            return file.read(16)
        if length < data:
            break
        place += length
    return b""
