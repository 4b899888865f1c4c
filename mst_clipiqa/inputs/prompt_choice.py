"""Which prompt each image gets: the one that was given, or one from a list, from metadata, or from beside the image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mst_clipiqa.errors import DataError, UsageError, nearest, shown
from mst_clipiqa.inputs.beside import PROMPT_SOURCES, prompt_finder, prompt_in_file
from mst_clipiqa.inputs.list_columns import ColumnsError
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.lines import is_unicode
from mst_clipiqa.tables.stored import FileInFile

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Lists of prompts that are read from a folder even if no flag names them; not the metadata inside images."""

PromptFinder: TypeAlias = Callable[[str], str | None]
"""An image's path -> its prompt, or a DataError."""


@dataclass
class PromptChoice:
    """Where prompts come from; at most one of the first three is given.

    Attributes:
        prompt: of every image.
        given: a file of prompts.
        source: one of ``beside.PROMPT_SOURCES``.
        notes: sentences for the user.
        read: metadata files of folders that were read before their turn.
        missed: number of images without a prompt in ``source``.
        first_missed: the first of them.
    """

    prompt: str | None = None
    given: PromptFile | None = None
    source: str | None = None
    notes: list[str] = field(default_factory=list)
    read: dict[str, PromptFile | None] = field(default_factory=dict)
    missed: int = 0
    first_missed: str = ""

    def __post_init__(self) -> None:
        if self.source is not None and self.source not in PROMPT_SOURCES:
            hint = nearest(self.source, PROMPT_SOURCES)
            raise UsageError(f"Expected prompts from {', '.join(PROMPT_SOURCES)}, got {self.source!r}{hint}.")
        if self.prompt is not None and not is_unicode(self.prompt):
            raise UsageError("Expected a prompt in UTF-8, got other bytes: correct it.")

    @property
    def is_made(self) -> bool:
        """Whether the user said where prompts come from."""
        return self.prompt is not None or self.given is not None or self.source is not None

    def finder(self, otherwise: PromptFinder | None, stored: FileInFile | None = None) -> PromptFinder:
        """Return how to find prompts: as given, or else as the folder or the list says.

        Args:
            otherwise: what the folder or the list says.
            stored: the image, if it is inside another file, where what the list says is its text beside it.
        """
        if self.prompt is not None:
            return lambda _: self.prompt
        if (given := self.given) is not None:
            return lambda path: _counted(given, given.find(path), path)
        if self.source == "sidecar" and stored is not None:
            return otherwise or (lambda _: None)
        if self.source is not None:
            return lambda path: self._beside(path, stored)
        return otherwise or (lambda _: None)

    def _beside(self, path: str, stored: FileInFile | None) -> str | None:
        in_file = self.source == "metadata"
        prompt = prompt_in_file(stored or path) if in_file else prompt_finder(self.source or "")(path)
        if prompt is None:
            self.missed += 1
            self.first_missed = self.first_missed or in_unicode(path)
        return prompt

    def metadata_file(self, folder: str) -> PromptFile | None:
        """Return the prompts of a folder's metadata file, or None; not read if prompts were given."""
        if folder in self.read:
            return self.read.pop(folder)
        if self.is_made:
            return None
        found = [path for name in METADATA_FILES if (path := Path(f"{folder}/{name}")).is_file()]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            count = "both" if len(found) == 2 else "all"
            raise DataError(f"Expected one of {names} in {shown(folder)}, got {count}: remove one.")
        try:
            return PromptFile(found[0]) if found else None
        except ColumnsError as error:
            self.notes.append(f"{found[0].name} is not read for prompts. {error}")
            return None

    def above(self, root: str) -> PromptFinder | None:
        """Return how to find prompts in the metadata of the folder that contains ``root``; None if it has none."""
        folder = Path(root).absolute()
        try:
            found = self.metadata_file(str(folder.parent)) if folder.name else None
        except DataError:  # that folder was not named, so nothing in it can be a problem
            return None
        if found is None or not found.concerns(folder.name):
            return None
        return lambda path: _counted(found, found.exactly(f"{folder.name}{path[len(root.rstrip('/')) :]}"), path)

    def conclude(self) -> None:
        """Add the notes that are known only once all images have been looked up."""
        if self.given is not None:
            self.notes += self.given.notes()
        if self.missed:
            first = shown(self.first_missed)
            have = "image has no prompt in its" if self.missed == 1 else "images have no prompt in their"
            self.notes.append(f"{self.missed:,} {have} {self.source} (the first: {first}).")


def folder_prompt_finder(folder: str, known: dict[str, PromptFile]) -> PromptFinder | None:
    """Return how to find prompts in the metadata of a folder, or else of those that contain it."""
    around = _around(folder, known)
    if not around:
        return None

    def find(path: str) -> str | None:
        for outer, metadata in around:
            if (prompt := metadata.exactly(path[len(outer) + 1 :])) is not None:
                return prompt
        return _counted(around[0][1], None, path)

    return find


def folder_columns_finder(folder: str, known: dict[str, PromptFile]) -> Callable[[str], Mapping[str, Cell]]:
    """Return how to find the other columns of an image, in the metadata of a folder or of those that contain it."""
    around = _around(folder, known)

    def find(path: str) -> Mapping[str, Cell]:
        return next(filter(None, (metadata.exactly_more(path[len(outer) + 1 :]) for outer, metadata in around)), {})

    return find


def _around(folder: str, known: dict[str, PromptFile]) -> list[tuple[str, PromptFile]]:
    """Return the folders with metadata that contain a folder, itself among them, the nearest first."""
    around, outer = [], folder
    while known:
        if outer in known:
            around.append((outer, known[outer]))
        if not outer:
            break
        outer = outer.rpartition("/")[0]
    return around


def _counted(file: PromptFile, prompt: str | None, path: str) -> str | None:
    if prompt is None:
        file.miss(in_unicode(path))
    return prompt


def in_unicode(path: str) -> str:
    r"""Return a path in valid Unicode: bytes that are not UTF-8 as ``\xe9``."""
    if is_unicode(path):
        return path
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that encode no byte: from JSON, never from a file system
        return path.encode("utf-8", "backslashreplace").decode()
