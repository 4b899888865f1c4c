"""What the user named -> one item per image, in a fixed order, with its prompt.

A name is an image, a folder of images, or a list of images (.csv, .jsonl). Only lists, prompts and folders
are opened; whether a file is an image is found out when it is scored. Items come one at a time, and only the names of
one folder and the prompts are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.folders import Folder, check_folder, walk
from mst_clipiqa.inputs.lists import ColumnsError, Entry, entries
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables.lines import is_unicode

LISTS = (".csv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")

_Finder: TypeAlias = Callable[[str], str | None]  # an image's path -> its prompt, or a DataError


@dataclass(frozen=True, slots=True)
class Item:
    """One row to come.

    Attributes:
        file: the image as the table shows it: the path from the current folder, in valid Unicode.
        path: what to open; None if there is nothing to open. Bytes that are not UTF-8 are surrogate escapes.
        prompt: text in valid Unicode, or None.
        problem: why this item cannot be scored, in one sentence, or None.
    """

    file: str
    path: str | None
    prompt: str | None = None
    problem: str | None = None


class Inputs(Iterator[Item]):
    """The items, once, in order; made by ``expand``.

    Attributes:
        notes: sentences for the user, complete once all items have been taken: prompts that match no image, images
            without a prompt, metadata that was not used, links that were left out.
    """

    def __init__(self, items: Iterator[Item], notes: list[str], count: Callable[[], int]) -> None:
        self.notes = notes
        self._items = items
        self._count = count

    def __next__(self) -> Item:
        return next(self._items)

    def count(self) -> int:
        """Return the number of items, for a progress bar; lists folders and reads lists once more."""
        return self._count()


def expand(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    prompt: str | None = None,
    prompts: str | os.PathLike[str] | None = None,
) -> Inputs:
    """Return the images that paths name: those of a folder in natural order, then those of its subfolders.

    In a folder, hidden files and files without an image's suffix are left out, and a ``metadata.csv`` or
    ``metadata.jsonl`` (file_name; prompt, text or caption) is read for prompts unless prompts are given.

    Args:
        paths: images, folders, or lists of images (.csv, .jsonl), whose names are relative to the list.
        recursive: include subfolders.
        prompt: the prompt of every image.
        prompts: a file with the prompts: .csv, .jsonl or .json (see ``prompts.PromptFile``).

    Returns:
        Inputs: an iterator over the items; its ``notes`` are complete at the end.

    Raises:
        UsageError: nothing has that name, a folder or list has no image, or the prompts cannot be used.
    """
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not named:
        raise UsageError("Expected at least one image, folder or list, got none: name one.")
    if prompt is not None and prompts is not None:
        raise UsageError("Expected one prompt for all images or a file of prompts, got both: leave one out.")
    if prompt is not None and not is_unicode(prompt):
        raise UsageError("Expected a prompt in UTF-8, got other bytes: correct it.")
    sources = [os.fspath(path) for path in named]
    try:
        given = PromptFile(Path(prompts)) if prompts is not None else None
        walker = _Walker(recursive, prompt, given)
        for source in sources:
            walker.check(source)
    except DataError as error:
        raise UsageError(str(error)) from error
    return Inputs(walker.items(sources), walker.notes, lambda: sum(_count(source, recursive) for source in sources))


@dataclass
class _Walker:
    """Goes through the sources with the prompts that were given."""

    recursive: bool
    prompt: str | None
    given: PromptFile | None
    notes: list[str] = field(default_factory=list)
    read: dict[str, PromptFile | None] = field(default_factory=dict)  # metadata that `check` has read already

    def check(self, source: str) -> None:
        """Refuse, before any work, a source that leads to no image."""
        path = Path(source)
        try:
            is_there, is_folder = path.exists(), path.is_dir()
        except OSError as error:
            raise UsageError(f"Expected a file or folder, but {shown(source)}: {error.strerror}.") from error
        if not source or not is_there:
            raise UsageError(f"Expected a file or folder, found nothing named {shown(source)}: check the name.")
        if is_folder:
            check_folder(source, self.recursive)
            self.read[source.rstrip("/")] = self._metadata(source.rstrip("/"))
        elif path.suffix.lower() in LISTS and next(entries(path), None) is None:
            raise UsageError(f"Expected a list of images, got one without rows: {shown(source)}.")

    def items(self, sources: Iterable[str]) -> Iterator[Item]:
        """Yield the items of all sources, and complete the notes."""
        for source in sources:
            if Path(source).is_dir():
                yield from self._in_folder(source)
            elif Path(source).suffix.lower() in LISTS:
                yield from self._in_list(Path(source))
            else:
                yield self._item(source, self._default(None))
        if self.given is not None:
            self.notes += self.given.notes()

    def _in_folder(self, root: str) -> Iterator[Item]:
        known: dict[str, PromptFile] = {}  # folder -> its metadata
        for folder in walk(root, recursive=self.recursive, notes=self.notes):
            problem = folder.problem
            try:
                if not problem and (found := self._metadata(folder.path)):
                    known[folder.path] = found
            except DataError as error:
                problem = str(error)
            yield from self._of_folder(folder, problem, known)
        for metadata in known.values():
            self.notes += metadata.notes()

    def _of_folder(self, folder: Folder, problem: str | None, known: dict[str, PromptFile]) -> Iterator[Item]:
        if folder.problem:
            yield Item(_in_unicode(folder.path), None, problem=folder.problem)
        find = self._default(_in_metadata(folder.path, known))
        for name in folder.images:
            path = f"{folder.path}/{name}"
            yield Item(_in_unicode(path), path, problem=problem) if problem else self._item(path, find)

    def _in_list(self, path: Path) -> Iterator[Item]:
        try:
            for entry in entries(path):
                if entry.path is None or entry.problem:
                    where = _in_unicode(entry.path or entry.where)
                    yield Item(where, None, problem=f"Expected a file in each row, but {entry.problem}.")
                else:
                    yield self._item(entry.path, self._default(_of_entry(entry)))
        except DataError as error:  # the rows before it have been scored, so this becomes a row too
            yield Item(_in_unicode(str(path)), None, problem=str(error))

    def _item(self, path: str, find: _Finder) -> Item:
        try:
            prompt = find(path)
        except DataError as error:
            return Item(_in_unicode(path), path, problem=str(error))
        if prompt is not None and not is_unicode(prompt):
            problem = "Expected a prompt in UTF-8, got other bytes: save the file of prompts as UTF-8."
            return Item(_in_unicode(path), path, problem=problem)
        return Item(_in_unicode(path), path, prompt)

    def _default(self, otherwise: _Finder | None) -> _Finder:
        """Return how to find prompts: as given, or else as the folder or the list says."""
        if self.prompt is not None:
            return lambda _: self.prompt
        if (given := self.given) is not None:
            return lambda path: _counted(given, given.find(path), path)
        return otherwise or (lambda _: None)

    def _metadata(self, folder: str) -> PromptFile | None:
        """Return the prompts in a folder's metadata, or None; not read if prompts were given."""
        if folder in self.read:
            return self.read.pop(folder)
        if self.prompt is not None or self.given is not None:
            return None
        found = [path for name in METADATA if (path := Path(f"{folder}/{name}")).is_file()]
        if len(found) > 1:
            raise DataError(f"Expected one of {' and '.join(METADATA)} in {shown(folder)}, got both: remove one.")
        try:
            return PromptFile(found[0]) if found else None
        except ColumnsError as error:
            self.notes.append(f"{found[0].name} is not read for prompts. {error}")
            return None


def _in_metadata(folder: str, known: dict[str, PromptFile]) -> _Finder | None:
    """Return how to find prompts in the metadata of a folder, or else of those that contain it."""
    around: list[tuple[str, PromptFile]] = []  # the nearest first
    outer = folder
    while known:
        if outer in known:
            around.append((outer, known[outer]))
        if not outer:
            break
        outer = outer.rpartition("/")[0]
    if not around:
        return None

    def find(path: str) -> str | None:
        for outer, metadata in around:
            if (prompt := metadata.exactly(path[len(outer) + 1 :])) is not None:
                return prompt
        return _counted(around[0][1], None, path)

    return find


def _of_entry(entry: Entry) -> _Finder:
    return lambda _: entry.prompt


def _counted(file: PromptFile, prompt: str | None, path: str) -> str | None:
    if prompt is None:
        file.miss(_in_unicode(path))
    return prompt


def _count(source: str, recursive: bool) -> int:
    path = Path(source)
    if path.is_dir():
        return sum(len(found.images) + bool(found.problem) for found in walk(source, recursive=recursive))
    return sum(1 for _ in entries(path)) if path.suffix.lower() in LISTS else 1


def _in_unicode(path: str) -> str:
    r"""Return a path in valid Unicode: bytes that are not UTF-8 as ``\xe9``."""
    if is_unicode(path):
        return path
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that encode no byte: from JSON, never from a file system
        return path.encode("utf-8", "backslashreplace").decode()
