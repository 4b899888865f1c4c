"""Foreign text on a terminal: no control characters, and names keep what tells them apart."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def for_screen(cell: object) -> str:
    """Return a cell as text without control characters."""
    if cell is None:
        return ""
    words = f"{cell:z.3f}" if isinstance(cell, float) else str(cell)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal text takes: Chinese characters take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def common_folder(files: Sequence[str]) -> str:
    """Return the folder that all files are in, with its last slash; empty for a single file or none in common."""
    folders = [file[: file.rfind("/") + 1] for file in files]
    shared = os.path.commonprefix(folders)  # noqa: RUF071 - cut at a slash below
    return shared[: shared.rfind("/") + 1] if len(files) > 1 else ""


def apart(names: Sequence[str], width: int) -> list[str]:
    """Return names, cut to ``width`` columns if they are wider, so that as many as possible stay different.

    All are cut in the same way: at the start, in the middle, or before the first character that differs.
    """
    if all(columns_of(name) <= width for name in names):
        return list(names)
    shared = len(os.path.commonprefix(list(names)))  # noqa: RUF071 - by character
    found = (
        [tail(name, width) for name in names],
        [_middle(name, width) for name in names],
        [_head(ELLIPSIS + name[shared:] if shared > 1 else name, width) for name in names],
    )
    return max(found, key=lambda cut: len(set(cut)))  # the first of equals


def tail(name: str, width: int) -> str:
    """Return the end of a file's name, at most ``width`` columns, cut at a folder if possible: "…/cat_012.png"."""
    if columns_of(name) <= width:
        return name
    kept = _head(name[::-1], width)[:-1][::-1]
    return ELLIPSIS + kept[max(0, kept.find("/")) :]


def _middle(name: str, width: int) -> str:
    if columns_of(name) <= width:
        return name
    begin = _head(name, width // 2)
    return begin + tail(name, width - columns_of(begin) + 1)[1:]


def _head(name: str, width: int) -> str:
    """Return the beginning of a name, at most ``width`` columns, the last of them an ellipsis if it is cut."""
    if columns_of(name) <= width:
        return name
    kept = name[: max(width - 1, 0)]
    while kept and columns_of(kept) > width - 1:
        kept = kept[:-1]
    return kept + ELLIPSIS
