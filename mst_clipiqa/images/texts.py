"""The texts that an image file carries beside its pixels: PNG text chunks, EXIF comments, JPEG comments.

Nothing is decoded: the file's own index of chunks is walked, and of each chunk only what can be text is read. Files
are not trusted: the number of chunks, the size of each text and the size of all of them are bounded, and whatever
is damaged or too large is left out.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from PIL import Image

from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.files import File, open_file
from mst_clipiqa.images.formats import HEAD, kind_of, parser_of
from mst_clipiqa.images.modes import quiet

MOST_TEXT = 16 * 2**20
"""Bytes of text that are read of one file, in all."""
_MOST_CHUNKS = 100_000  # a PNG of the largest size that is read, in the chunks that libpng writes, has 65,536
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_EXIF_TEXTS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}


def read_texts(source: File) -> dict[str, str]:
    """Return the texts of an image file by their names, in the file's order; of equal names the first counts.

    The names are those of PNG text chunks ("parameters", "prompt", ...), and for EXIF those of its fields
    ("UserComment", "ImageDescription", "Make", "Model", "Software"). A comment of a JPEG or GIF is "Comment".

    Args:
        source: a path, or the bytes of a file.

    Raises:
        ImageError: the file cannot be read, or is none of the formats that are read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _texts(io.BytesIO(source))
    with open_file(source) as file:
        return _texts(file)


def _texts(file: BinaryIO) -> dict[str, str]:
    try:
        kind = kind_of(file.read(HEAD))
        file.seek(0)
        found: dict[str, str] = {}
        left = MOST_TEXT
        with quiet():
            for name, text in _READERS.get(kind, _by_pillow)(file):
                left -= len(text)
                if left < 0:
                    break
                found.setdefault(name, text)
        return found
    except OSError as error:
        raise ImageError(f"Expected an image, but the file cannot be read ({error}): check the disk.") from error


def _of_png(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for name, length in png_chunks(file):
        if name in (b"tEXt", b"zTXt", b"iTXt") and length <= MOST_TEXT:
            key, _, rest = file.read(length).partition(b"\0")
            text = _png_text(name, rest)
            if text is not None:
                yield key.decode("latin-1"), text
        elif name == b"eXIf" and length <= MOST_TEXT:
            yield from _of_exif(file.read(length))


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the name and length of each chunk of a PNG up to IEND; its data comes next in the file."""
    place = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, length
        if name == b"IEND":
            return
        place += 12 + length


def _png_text(name: bytes, rest: bytes) -> str | None:
    """Return the text of a chunk from what follows its keyword, or None where it is damaged or too large."""
    if name == b"tEXt":
        return _utf8_or_latin1(rest)  # by the standard Latin-1, but many tools write UTF-8
    if name == b"zTXt":
        inflated = inflate(rest[1:])
        return None if inflated is None else _utf8_or_latin1(inflated)
    is_compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[2:]
    if not text:
        return None
    data = inflate(text[0]) if is_compressed else text[0]
    return None if data is None else data.decode("utf-8", "replace")


def inflate(data: bytes) -> bytes | None:
    """Return decompressed bytes; None where they are damaged or longer than ``MOST_TEXT``."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, MOST_TEXT)
    except zlib.error:
        return None
    return None if stream.unconsumed_tail else inflated


def _of_jpeg(file: BinaryIO) -> Iterator[tuple[str, str]]:
    for marker, data in _jpeg_segments(file):
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            yield from _of_exif(data)
        elif marker == 0xFE:
            yield "Comment", _utf8_or_latin1(data)


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the data of each segment before the pixels, as far as it can hold text."""
    file.seek(2)
    for _ in range(_MOST_CHUNKS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            return
        length = int.from_bytes(head[2:], "big") - 2
        if length < 0:
            return
        yield head[1], file.read(length)


def _of_webp(file: BinaryIO) -> Iterator[tuple[str, str]]:
    place = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        name, length = struct.unpack("<4sI", head)
        if name == b"EXIF" and length <= MOST_TEXT:
            yield from _of_exif(file.read(length))
        place += 8 + length + length % 2


def _by_pillow(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yield what Pillow finds as it opens a file, for formats in which generators rarely write."""
    kind = kind_of(file.read(HEAD))
    file.seek(0)
    found: list[tuple[str, str]] = []
    with suppress(Exception):  # parsers raise nearly every type there is
        image = parser_of(kind)(file)
        if isinstance(comment := image.info.get("comment"), bytes | str):
            found.append(("Comment", _utf8_or_latin1(comment) if isinstance(comment, bytes) else comment))
        found += _exif_texts(image.getexif())
    yield from found


def _of_exif(data: bytes) -> Iterator[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with suppress(Exception):
        exif = Image.Exif()
        exif.load(data if data.startswith(b"Exif\0\0") else b"Exif\0\0" + data)
        found = _exif_texts(exif)
    yield from found


def _exif_texts(exif: Image.Exif) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with suppress(Exception):
        comment: Any = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
        if isinstance(comment, bytes) and (text := _user_comment(comment)):
            found.append(("UserComment", text))
        elif isinstance(comment, str):
            found.append(("UserComment", comment))
    for tag, name in _EXIF_TEXTS.items():
        with suppress(Exception):
            if isinstance(value := exif.get(tag), str) and value:
                found.append((name, _as_utf8(value)))
    return found


def _user_comment(data: bytes) -> str:
    """Return an EXIF user comment: eight bytes that name the character set, then the text."""
    charset, text = data[:8], data[8:]
    if charset == b"UNICODE\0":
        if text[:2] in (b"\xfe\xff", b"\xff\xfe"):
            return text.decode("utf-16", "replace").rstrip("\0")
        # The standard leaves the byte order open, and tools differ: most text has its zero bytes on one side.
        is_big = text[0::2].count(0) >= text[1::2].count(0)
        return text.decode("utf-16-be" if is_big else "utf-16-le", "replace").rstrip("\0")
    if charset.rstrip(b"\0") in (b"ASCII", b"JIS", b""):
        return _utf8_or_latin1(text).rstrip("\0")
    return _utf8_or_latin1(data).rstrip("\0")


def _utf8_or_latin1(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _as_utf8(text: str) -> str:
    """Return text that Pillow took for Latin-1 as the UTF-8 that it may have been."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


_READERS = {"PNG": _of_png, "JPEG": _of_jpeg, "WebP": _of_webp}
