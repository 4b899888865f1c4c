"""The images of a folder and of the folders in it, by name alone, in the order that people expect."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mst_clipiqa.errors import ImageError, UsageError, counted, shown
from mst_clipiqa.tables.names import UNREAD_SUFFIXES, is_image_name

_NUMBERS = re.compile(r"0*([0-9]+)")


@dataclass(frozen=True)
class Folder:
    """What one folder holds.

    Attributes:
        path: of the folder, from the current folder; "" for the root of the file system.
        images: names of images, in natural order: with a known suffix (including folders of such a name), or without
            any suffix but with the content of an image.
        others: names of other files, in natural order.
        problem: why it cannot be listed, or None.
    """

    path: str
    images: list[str]
    problem: str | None = None
    others: list[str] = field(default_factory=list)


def walk(root: str, *, recursive: bool, notes: list[str] | None = None) -> Iterator[Folder]:
    """Yield a folder and, if ``recursive``, its subfolders, each real folder once however many links lead to it.

    Args:
        root: path of the folder.
        recursive: include subfolders, except hidden ones.
        notes: a sentence is appended if links led to a folder again.
    """
    seen: set[tuple[int, int | str]] = set()
    stack, again = [root.rstrip("/")], 0
    while stack:
        path = stack.pop()
        try:
            if recursive:
                if (itself := _identity(f"{path}/")) in seen:
                    again += 1
                    continue
                seen.add(itself)
            images, others, folders = listing(path)
        except OSError as error:
            why = error.strerror or error
            yield Folder(path, [], f"Expected a folder that can be listed, got {why}: check its permissions.")
            continue
        yield Folder(path, sorted(images, key=natural), others=sorted(others, key=natural))
        if recursive:
            stack.extend(f"{path}/{name}" for name in sorted(folders, key=natural, reverse=True))
    if again and notes is not None:
        notes.append(f"{again:,} links in {shown(root)} lead to folders that were read already, so they were left out.")


def listing(path: str) -> tuple[list[str], list[str], list[str]]:
    """Return the names of images in a folder, of other files, and of folders."""
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    with os.scandir(f"{path}/") as found:  # "C:" alone would be another folder of that drive
        for entry in found:
            if entry.name.startswith("."):
                continue
            if is_image_name(entry.name) or entry.name.lower().endswith(UNREAD_SUFFIXES):
                images.append(entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
            elif "." not in entry.name and _holds_image(entry.path):
                images.append(entry.name)
            elif _is_file(entry):
                others.append(entry.name)
    return images, others, folders


def check_folder(root: str, recursive: bool) -> None:
    """Check that a folder has an image, before any work.

    Raises:
        UsageError: there is none, or the folder cannot be listed.
    """
    try:
        images, others, folders = listing(root.rstrip("/"))
    except OSError as error:
        raise UsageError(f"Expected a folder that can be listed, but {shown(root)}: {error.strerror}.") from error
    if images or (recursive and any(folder.images or folder.problem for folder in walk(root, recursive=True))):
        return
    hint = "include its subfolders with --recursive" if folders and not recursive else "name another folder"
    found = f"{counted(len(others), 'other file')}, {counted(len(folders), 'folder')}"
    raise UsageError(f"Expected images in {shown(root)}, got none ({found}): {hint}.")


def _holds_image(path: str) -> bool:
    """Return whether a file begins as an image does."""
    from mst_clipiqa.images.files import open_file
    from mst_clipiqa.images.formats import HEAD, kind_of  # imports Pillow, which those who only list files do not need

    try:
        with open_file(path) as file:
            kind_of(file.read(HEAD))
    except (ImageError, OSError):
        return False
    return True


def _identity(path: str) -> tuple[int, int | str]:
    """Return an identity that no other folder has; some disks on Windows number none of theirs."""
    info = Path(path).stat()
    return info.st_dev, info.st_ino or str(Path(path).resolve())


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def natural(name: str) -> tuple[str, str]:
    """Return a key that sorts "2.png" before "10.png", capitals beside small letters, and is unique."""
    # A number sorts by its length, then by its digits; the length is one character, so the key stays one string.
    return _NUMBERS.sub(lambda digits: f"0{chr(0x100 + len(digits[1]))}{digits[1]}", name.casefold()), name
