"""What can go wrong, as types that a caller may catch.

::

    MstClipiqaError
    ├── UsageError     a flag, an argument or a combination of them
    ├── ImageError     one image that cannot be read
    ├── PromptError    one prompt that cannot be scored
    ├── ModelError     a model folder, encoder weights or their configuration
    ├── DataError      a rated set: labels, splits, missing images
    └── Rejected       an HTTP request that the server does not answer

Every message is one sentence: what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
import errno
import importlib
from collections.abc import Iterable, Sequence
from numbers import Integral
from os import PathLike
from pathlib import PurePath
from types import ModuleType


class MstClipiqaError(Exception):
    """The root of every error that this package raises on purpose."""


class UsageError(MstClipiqaError, ValueError):
    """A flag, an argument or a combination of them makes no sense."""


class ImageError(MstClipiqaError, ValueError):
    """One image cannot be read; in bulk work it becomes a row with this reason."""


class PromptError(MstClipiqaError, ValueError):
    """One prompt cannot be scored; in bulk work it becomes a row with this reason."""


class ModelError(MstClipiqaError, ValueError):
    """A model folder, encoder weights or their configuration cannot be used."""


class DataError(MstClipiqaError, ValueError):
    """A rated set cannot be read as asked."""


class StoredError(DataError, OSError):
    """An image inside another file cannot be read; unlike that of other OSErrors, the message is a sentence."""


class Rejected(MstClipiqaError):
    """An HTTP request that the server does not answer.

    Attributes:
        status: HTTP status, 4xx or 503.
        sentence: the message; reasons of rows become whole sentences here.
        retry_after: seconds after which to try again, or None; only with 503.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.sentence = as_sentence(message)
        self.retry_after = retry_after


def disk_advice(error: OSError) -> str:
    """Return what helps if the disk takes no more, nothing at all or not this name; empty for other errors.

    Example:
        >>> disk_advice(OSError(errno.EROFS, "Read-only file system"))
        'make the disk writable'
    """
    advice = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EROFS: "make the disk writable"}
    advice[errno.ENAMETOOLONG] = "choose a shorter name"
    return advice.get(error.errno or 0, "")


def need(module: str, *, extra: str, otherwise: str = "") -> ModuleType:
    """Import a module that comes with an extra of this package.

    Args:
        module: full name, such as ``pyarrow.parquet``.
        extra: the extra that brings it.
        otherwise: what to do without it, for the message: "use .csv".

    Raises:
        UsageError: it is not installed; the message says how to install it.

    Example:
        >>> need("json", extra="train").dumps([])
        '[]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(error.name or module, extra, otherwise) from error


def missing(package: str, extra: str, otherwise: str = "") -> UsageError:
    """Return the error that says which extra brings a package."""
    choice = f", or {otherwise}" if otherwise else ""
    package = package.partition(".")[0]
    return UsageError(f"Expected {package}, which is not installed: {install(extra)}{choice}.")


def install(extra: str) -> str:
    """Return the command that adds an extra to the package, whether it was installed from a clone or from an index.

    Example:
        >>> install("serve")
        'pip install "mst-clipiqa[serve]"'
    """
    return f'pip install "mst-clipiqa[{extra}]"'


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Refuse what is not a whole number of at least ``least`` and, if given, at most ``most``.

    Example:
        >>> check_count("workers", 0)
        Traceback (most recent call last):
        mst_clipiqa.errors.UsageError: Expected workers to be a whole number of at least 1, got 0.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    number = int(value) if is_whole else 0  # type: ignore[call-overload]
    if not is_whole or number < least:
        raise UsageError(f"Expected {name} to be a whole number of at least {least}, got {brief(value)}.")
    if most is not None and number > most:
        raise UsageError(f"Expected {name} to be at most {most:,}, got {brief(value)}.")


def counted(number: int, noun: str) -> str:
    """Return "1 row" or "2,342 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    """Return the verb for this number of things: "is" or "are"."""
    return "is" if number == 1 else "are"


def percent(share: float, places: int = 0) -> str:
    """Return a share of 1 as "53 %"."""
    return f"{100 * share:.{places}f} %"


def percent_seen(share: float) -> str:
    """Return a share of 1 as "53 %", where "0 %" is none and "100 %" is all.

    Example:
        >>> percent_seen(0.004)
        'under 1 %'
    """
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else percent(share)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest known name, whatever its capital letters, or an empty string."""
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""


def as_reason(message: object) -> str:
    """Return an error or its message as the ``reason`` of a row, where several stand side by side, parted by "; ".

    Example:
        >>> as_reason("Expected an image, got a folder: name a file in it.")
        'expected an image, got a folder: name a file in it'
    """
    text = str(message).removesuffix(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text  # an acronym keeps its capitals


def as_sentence(reason: str, image: object = None) -> str:
    """Return the ``reason`` of a row as the message of an error.

    Args:
        reason: what ``as_reason`` returns.
        image: what it is about; if it is a file with a name, the message begins with that.

    Example:
        >>> as_sentence("expected an image, got a folder: name a file in it", "photos")
        "'photos': Expected an image, got a folder: name a file in it."
    """
    sentence = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
    name = image if isinstance(image, str | PathLike) else getattr(image, "name", None)
    return f"{shown(name)}: {sentence}" if isinstance(name, str | PathLike) else sentence


def brief(value: object) -> str:
    """Return a Python value of any type as it is written, on one line, and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def some_of(names: Sequence[object], limit: int = 60) -> str:
    """Return the first three names for use in a message, each as ``shown`` has it.

    Example:
        >>> some_of(["a", "b", "c", "d"])
        "'a', 'b', 'c', ..."
    """
    return ", ".join(shown(name, limit) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def shown(value: object, limit: int = 160) -> str:
    """Return a foreign name or text for use in a message: quoted, printable, on one line, and not too long.

    Control characters, lone surrogates (file names that are not UTF-8) and direction marks come as escapes.
    """
    text = value.as_posix() if isinstance(value, PurePath) else str(value)  # repr would double backslashes
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 2 :]}"
    return repr(text)
