"""The file that a list or label file names, in the spelling that the disk has.

A name such as "café.png" has several: its accent may be part of the letter or a character of its own, and its bytes may
be UTF-8 or Windows-1252. A list from Windows has backslashes between folders; what we write has slashes.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator


def on_disk(path: str) -> str:
    """Return a path as the disk spells it, or as it is if there is no such file in any spelling.

    Each folder of the path may be spelled in its own way.
    """
    return _found(path) or ("\\" in path and _found(path.replace("\\", "/"))) or path


def slashed(path: str | os.PathLike[str]) -> str:
    """Return a path with slashes, also on Windows, so that every system reads what is written about it."""
    name = os.fspath(path)
    return name.replace("\\", "/") if os.sep == "\\" else name


def composed(name: str) -> str:
    """Return a name with composed accents, the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _found(path: str) -> str | None:
    if _is_there(path):
        return path
    folder, name = os.path.split(path)
    if path.isascii() or not name:
        return None
    spelled = _found(folder) if folder else ""
    if spelled is None:
        return None
    return next((file for one in _spellings(name) if _is_there(file := os.path.join(spelled, one))), None)  # noqa: PTH118


def _spellings(name: str) -> Iterator[str]:
    yield name
    yield composed(name)
    yield unicodedata.normalize("NFD", name)
    try:
        yield os.fsdecode(name.encode("cp1252"))  # a list of such bytes was read as Windows-1252
    except UnicodeEncodeError:
        return


def _is_there(path: str) -> bool:
    try:
        return os.path.exists(path)  # noqa: PTH110 - a path of bytes that are no UTF-8 stays as it is
    except ValueError:  # NUL
        return False
