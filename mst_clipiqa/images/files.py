"""Image files, opened with care: only ordinary files, never too long, never waiting; errors as sentences."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

from mst_clipiqa.errors import ImageError, StoredError


@runtime_checkable
class StoredImage(Protocol):
    """An image file inside another file, such as a tar."""

    def read_bytes(self) -> bytes:
        """Return the file; OSError if it cannot be read."""


Named: TypeAlias = str | os.PathLike[str] | StoredImage
"""What has to be opened to be read."""
File: TypeAlias = Named | bytes | bytearray | memoryview

MAX_BYTES = 512 * 2**20
"""Largest file that is read, in bytes."""

_READ_AT_ONCE = 2**20  # bytes: at each read, a thread gives up Python's lock and waits for it again

# So as not to wait for a writer if a pipe takes the file's name between the check and the opening.
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))


def read_image(path: Named, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of an image file without decoding; ImageError if ``open_image`` would not open it."""
    with open_file(path, max_bytes) as file:
        return file.read()


@contextmanager
def open_file(path: Named, max_bytes: int = MAX_BYTES) -> Iterator[BinaryIO]:
    """Open an ordinary file for reading; never wait for a pipe, never touch a device."""
    if not isinstance(path, str | os.PathLike):
        yield io.BytesIO(_read_stored(path, max_bytes))
        return
    with _named_errors(path):
        if not os.fspath(path):
            raise FileNotFoundError
        info = Path(path).stat()
    _check_kind(info, max_bytes)
    with _named_errors(path):
        descriptor = os.open(path, _READ)
    with os.fdopen(descriptor, "rb", buffering=max(512, min(info.st_size, _READ_AT_ONCE))) as file:
        _check_kind(os.fstat(descriptor), max_bytes)  # again: the name may belong to another file by now
        yield file


def _read_stored(image: StoredImage, max_bytes: int) -> bytes:
    try:
        data = image.read_bytes()
    except StoredError as error:
        raise ImageError(str(error)) from error
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    check_length(len(data), max_bytes)
    return data


@contextmanager
def _named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a system error about a path into an ImageError."""
    try:
        if not isinstance(name := os.fspath(path), str):
            raise TypeError(f"a name in {type(name).__name__}, not in text")
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = " (addresses on the web are not fetched)" if "://" in os.fspath(path) else ""
        raise ImageError(
            f"Expected an image, found no file of this name{hint}: check the name and its folder."
        ) from error
    except (OSError, TypeError, ValueError) as error:  # not OSError: a name that no file can have
        raise unreadable(error) from error


def _check_kind(info: os.stat_result, max_bytes: int) -> None:
    """Refuse all but ordinary files of a reasonable length."""
    if stat.S_ISDIR(info.st_mode):
        raise ImageError("Expected an image, got a folder: name a file in it, or score the whole folder.")
    if not stat.S_ISREG(info.st_mode):
        kind = "a named pipe" if stat.S_ISFIFO(info.st_mode) else "a device or socket"
        raise ImageError(f"Expected an image, got {kind}: save the image to an ordinary file first.")
    check_length(info.st_size, max_bytes)


def check_length(length: int, max_bytes: int) -> None:
    """Refuse a file of no bytes or of too many."""
    if length == 0:
        raise ImageError("Expected an image, got nothing (0 bytes): save or download it again.")
    if length > max_bytes:
        raise ImageError(f"Expected at most {max_bytes:,} bytes, got {length:,}: save it smaller, or raise max_bytes.")


def unreadable(error: OSError | TypeError | ValueError) -> ImageError:
    """Return an ImageError with the reason that the system gives for a file."""
    why = (isinstance(error, OSError) and error.strerror) or str(error)
    return ImageError(f"Expected an image, but the file cannot be read ({why}): check its name, permissions and disk.")
