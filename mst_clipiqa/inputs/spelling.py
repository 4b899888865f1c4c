"""The file that a list names, in the spelling that the disk has.

A name such as "café.png" has several: its accent may be part of the letter or a character of its own, and its bytes may
be UTF-8 or Windows-1252.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator


def on_disk(path: str) -> str:
    """Return a path as the disk spells it, or as it is if there is no such file in any spelling."""
    if path.isascii() or _is_there(path):
        return path
    return next(filter(_is_there, _spellings(path)), path)


def _spellings(path: str) -> Iterator[str]:
    yield unicodedata.normalize("NFC", path)
    yield unicodedata.normalize("NFD", path)
    try:
        yield os.fsdecode(path.encode("cp1252"))  # a list of such bytes was read as Windows-1252
    except UnicodeEncodeError:
        return


def _is_there(path: str) -> bool:
    try:
        return os.path.exists(path)  # noqa: PTH110 - a path of bytes that are no UTF-8 stays as it is
    except ValueError:  # NUL
        return False
