"""Copy or move files so that none is ever overwritten, left half-written, or lost.

A copy is written under a temporary name next to its target, synced to disk, and then linked to the target's name,
which fails if the name is taken. A move removes the source only after that.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.analysis.images import RowImage
from mst_clipiqa.tables.atomic import sync_folder

# Errors of a full or read-only disk: the next file would fail as well.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# Errors of a link across file systems, or on one without hard links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_LINK |= {errno.EINVAL}  # what Windows says of a disk without them
# Windows has no such option, and never follows.
_LINK_OPTIONS = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
_KEEPS_READ_ONLY = os.name == "nt"  # Windows removes no read-only file


@dataclass(frozen=True)
class Outcome:
    """The result for one file: its new path, or why it was not transferred."""

    source: RowImage
    to: Path | None
    reason: str = ""


def transfer(pairs: Iterable[tuple[RowImage, Path]], *, move: bool) -> Iterator[Outcome]:
    """Copy or move files one by one; a file that cannot be transferred stays in place and is reported.

    Args:
        pairs: (source, target) files; folders are created as needed. If a name is taken, a number is added:
            "cat-2.png".
        move: remove each source once its copy is safe.

    Yields:
        Outcome: one per pair, in order. After an error of a full or read-only disk, no further file is tried.
    """
    stopped = ""
    for source, target in pairs:
        if stopped:
            yield Outcome(source, None, f"not tried, because {stopped}")
            continue
        try:
            yield Outcome(source, place(source, target, move=move))
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            yield Outcome(source, None, why)
            if error.errno in _HOPELESS:
                stopped = f"the target is unusable: {why}"


def foresee(pairs: Iterable[tuple[RowImage, Path]], *, move: bool) -> Iterator[Path]:
    """Yield where ``transfer`` would put each file, touching nothing."""
    taken: set[Path] = set()
    for source, target in pairs:
        if _is_there(source, target, move):
            yield target
            continue
        free = next(name for name in names(target) if name not in taken and not os.path.lexists(name))
        taken.add(free)
        yield free


def place(source: RowImage, target: Path, *, move: bool) -> Path:
    """Put one file at ``target`` or, if the name is taken, under a numbered name; return its new path.

    Copying a file whose identical copy exists does nothing.

    Raises:
        OSError: the transfer failed; the source is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if _is_there(source, target, move):
        return target
    if move and isinstance(source, Path) and not source.is_symlink():
        try:
            put = _link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            _remove(source, put)
            return put
    put = _copy(source, target)
    if move and isinstance(source, Path):
        _remove(source, put)
    return put


def _is_there(source: RowImage, target: Path, move: bool) -> bool:
    """Return whether nothing is to be done: the target is the source or, for a copy, has the same bytes."""
    if not isinstance(source, Path):
        return target.is_file() and target.read_bytes() == source.read_bytes()
    if not (target.exists() and source.exists()):
        return False
    return source.samefile(target) or (not move and filecmp.cmp(source, target, shallow=False))


def names(target: Path) -> Iterator[Path]:
    """Yield the target's name, then "stem-2.ext", "stem-3.ext" and so on."""
    yield target
    for count in range(2, 1_000_000):
        yield target.with_name(f"{target.stem}-{count}{target.suffix}")


def _link(source: Path, target: Path) -> Path:
    """Link a file to the first free name; unlike a rename, a link never replaces a file."""
    for name in names(target):
        try:
            os.link(source, name, **_LINK_OPTIONS)
        except FileExistsError:
            continue
        sync_folder(name.parent)
        return name
    raise OSError(errno.EEXIST, "every name is taken", str(target))


def _copy(source: RowImage, target: Path) -> Path:
    """Copy a file's content and times under the first free name."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".mst-clipiqa-", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as written:
            if isinstance(source, Path):
                with source.open("rb") as read:
                    shutil.copyfileobj(read, written, 1 << 20)
            else:
                written.write(source.read_bytes())
            written.flush()
            os.fsync(written.fileno())
        put = _publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # some file systems keep no modes or times
        shutil.copystat(source if isinstance(source, Path) else source.path, put)  # last, as it may make it read-only
    return put


def _publish(part: Path, target: Path) -> Path:
    """Give a finished copy the first free name."""
    try:
        return _link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    for name in names(target):  # no hard links: reserve the name with an empty file, then replace it
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        try:
            part.replace(name)
        except OSError:
            name.unlink()
            raise
        sync_folder(name.parent)
        return name
    raise OSError(errno.EEXIST, "every name is taken", str(target))


def _remove(source: Path, put: Path) -> None:
    """Remove the source of a finished transfer; if that fails, remove the copy."""
    try:
        if _KEEPS_READ_ONLY:
            source.chmod(stat.S_IWRITE)
        source.unlink()
    except FileNotFoundError:  # another program has removed it, so the copy may be the only one left
        pass
    except OSError:
        put.unlink()
        raise
