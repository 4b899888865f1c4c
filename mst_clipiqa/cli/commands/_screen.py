"""Foreign text on a terminal: no control characters, and long names keep the end, which tells them apart."""

from __future__ import annotations

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def for_screen(cell: object) -> str:
    """Return a cell as text without control characters."""
    if cell is None:
        return ""
    words = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)


def tail(name: str, width: int) -> str:
    """Return the end of a file's name, at most ``width`` characters, cut at a folder if possible: "…/cat_012.png"."""
    if len(name) <= width:
        return name
    kept = name[1 - width :] if width > 1 else ""
    return ELLIPSIS + kept[max(0, kept.find("/")) :]


def file_width(screen: int) -> int:
    """Return how many columns of a terminal a file's name may take, beside scores and prompts."""
    return max(16, screen * 3 // 10)
