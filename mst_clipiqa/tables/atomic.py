"""Files that appear under their name whole or not at all: written beside it, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic(path: Path, *, sync: bool = False, beside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``path`` when the block ends; an exception leaves ``path`` as it was.

    Args:
        path: the final name.
        sync: wait until the file would survive a power cut.
        beside: the temporary name, on the same disk; what has this name is replaced. By default a hidden one that no
            other process, on this machine or another, would use.

    Raises:
        OSError: the disk is full or gone.
    """
    fresh = beside or path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    try:
        fresh.unlink(missing_ok=True)  # may be left by a killed process, or a link planted by someone
        with fresh.open("xb") as file:
            with contextlib.suppress(OSError):  # there is no older file
                shutil.copymode(path, fresh)  # what only its owner may read stays so
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; see ``atomic``."""
    with atomic(path) as file:
        file.write(data)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files of which each describes the others: all are written before the first appears under its name.

    Only a kill during the renames, which follow right after one another, leaves some files new and others old.

    Args:
        files: path -> content; they appear in this order. Folders are made if missing, and what killed processes left
            in them is removed.

    Raises:
        OSError: the disk is full, or a folder has one of the names; then all are as they were.
    """
    with contextlib.ExitStack() as stack:
        for path in reversed(list(files)):  # the stack is left in reverse order
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # now, not between two renames
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            file = stack.enter_context(atomic(path))
            file.write(files[path])
            file.flush()
    for folder in {path.parent for path in files}:
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files that killed processes of this machine left in a folder."""
    if os.name != "posix":  # elsewhere a process cannot be looked for without harm
        return
    for path in folder.glob(f".*.{platform.node()}.*.part"):
        number = path.name.split(".")[-2]
        if number.isdecimal() and not _runs(int(number)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to another user
        pass
    return True


def sync_folder(folder: Path) -> None:
    """Let new names in a folder survive a power cut, if the system can sync folders.

    Raises:
        OSError: the disk is full or broken.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot
            raise
    finally:
        os.close(descriptor)
