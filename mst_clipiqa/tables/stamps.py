"""The state of a file, by which a later look tells whether it has changed."""

from __future__ import annotations

import os
import time

from mst_clipiqa.errors import UsageError, shown

_SECOND = 10**9  # in ns
_COARSEST = 2 * _SECOND  # of the steps in which disks count time: FAT's
_APART = 60 * _SECOND  # how far the clocks of this machine and of a file server may differ


def stamp_of(path: str | None) -> str | None:
    """Return the state of a file, its size and time of change, or None if it cannot be read."""
    try:
        info = os.stat(path) if path is not None else None  # noqa: PTH116 - once per image, and Path is slower
    except (OSError, ValueError):
        return None
    return f"{info.st_size}-{info.st_mtime_ns}" if info else None


def changed_at(path: str | None) -> int:
    """Return when a file was changed, in ns, or 0 if it cannot be read.

    It is the last moment at which that may have been: a time in whole seconds may be of a disk that counts no others.
    """
    try:
        time_ns = os.stat(path).st_mtime_ns if path is not None else 0  # noqa: PTH116 - once per image
    except (OSError, ValueError):
        return 0
    return time_ns if time_ns % _SECOND or not time_ns else time_ns + _COARSEST


def is_ahead(time_ns: int) -> bool:
    """Return whether a time in ns is in the future, by more than clocks usually differ."""
    return time_ns > time.time_ns() + _APART


def check_past(written: int, output: str | os.PathLike[str], instead: str) -> None:
    """Raise a UsageError if a table's time is in the future: images that were changed since would seem older.

    Args:
        written: when the table was written, in ns.
        output: the table.
        instead: what else to do than to wait.
    """
    if is_ahead(written):
        raise UsageError(
            f"Expected {shown(output)} to have been written in the past, got a time in the future: check the clock, "
            f"and wait until then or {instead}."
        )
