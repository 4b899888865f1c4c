"""The state of a file, by which a later look tells whether it has changed."""

from __future__ import annotations

import os


def stamp_of(path: str | None) -> str | None:
    """Return the state of a file, its size and time of change, or None if it cannot be read."""
    try:
        info = os.stat(path) if path is not None else None  # noqa: PTH116 - once per image, and Path is slower
    except (OSError, ValueError):
        return None
    return f"{info.st_size}-{info.st_mtime_ns}" if info else None


def changed_at(path: str | None) -> int:
    """Return when a file was changed, in ns, or 0 if it cannot be read."""
    try:
        return os.stat(path).st_mtime_ns if path is not None else 0  # noqa: PTH116 - once per image
    except (OSError, ValueError):
        return 0
