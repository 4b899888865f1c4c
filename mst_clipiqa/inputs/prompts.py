"""Which prompt belongs to which image: files of prompts, and how their keys match images."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mst_clipiqa.errors import DataError, counted, shown
from mst_clipiqa.inputs.list_columns import USUAL_COLUMNS, ListColumns
from mst_clipiqa.inputs.lists import entries
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.names import is_image_name
from mst_clipiqa.tables.spelling import composed


class PromptFile:
    """The prompts of one file, found by the path of an image or else by its base name.

    A key fits an image if the image's path is the key or ends in "/" and the key; so ``cat/1.png`` fits
    ``out/cat/1.png``, and ``1.png`` fits both. If no key fits, one with the same base name does, provided that all keys
    of that base name have the same prompt; and then one that is the same but for the suffix, so that "00012" fits
    ``0012.png``.

    Args:
        path: a list as ``lists.entries`` reads it: columns file and prompt, or {file: prompt}, ...
        columns: which of its columns hold files and prompts.
        by_number: take prompts without files too, and match them by number (see ``lists.entries``).

    Raises:
        DataError: it cannot be read, has no such columns, has a bad row, or gives one file two prompts.
    """

    def __init__(self, path: Path, *, by_number: bool = False, columns: ListColumns = USUAL_COLUMNS) -> None:
        self.path = path
        self.columns: list[str] = []  # the other columns
        self._more: dict[str, Mapping[str, Cell]] = {}
        self._prompts: dict[str, str | None] = {}
        self._by_name: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._used: set[str] = set()
        self._missed = 0
        self._first_missed = ""
        for entry in entries(path, need_prompt=True, by_number=by_number, columns=columns):
            if entry.file is None or entry.problem:
                raise DataError(f"Expected a file and its prompt in each row, but {entry.problem}.")
            self._add(key_of(entry.file), entry.prompt, entry.where)
            if entry.more:
                self._more[key_of(entry.file)] = entry.more
        self.columns = list(dict.fromkeys(name for more in self._more.values() for name in more))

    def _add(self, key: str, prompt: str | None, where: str) -> None:
        if key not in self._prompts:
            self._by_name[posixpath.basename(key)].append(key)
            self._by_stem[stem_of(key)].append(key)
        elif self._prompts[key] != prompt:
            raise DataError(f"Expected one prompt for {shown(key)}, got another in {where}: keep one of them.")
        self._prompts[key] = prompt

    def exactly(self, file: str) -> str | None:
        """Return the prompt whose key is this path, or None."""
        key = key_of(file)
        if key in self._prompts:
            self._used.add(key)
        return self._prompts.get(key)

    def concerns(self, folder: str) -> bool:
        """Return whether any key is a path within a folder."""
        return any(key.startswith(f"{key_of(folder)}/") for key in self._prompts)

    def find(self, file: str) -> str | None:
        """Return the prompt of an image, or None if there is none.

        Raises:
            DataError: several prompts fit equally well.
        """
        keys = self._keys(file)
        found = {self._prompts[key] for key in keys}
        if len(found) > 1:
            raise DataError(
                f"Expected one prompt for this image, got {len(found)} for the name "
                f"{shown(posixpath.basename(keys[0]))} in {shown(self.path)}: give paths there, not names."
            )
        self._used.update(keys)
        return next(iter(found), None)

    def fits(self, file: str) -> bool:
        """Return whether a row is about an image."""
        return bool(self._keys(file))

    def more(self, file: str) -> Mapping[str, Cell]:
        """Return the other columns of an image's row; none if no row or several fit."""
        keys = self._keys(file)
        return self._more.get(keys[0], {}) if len(keys) == 1 else {}

    def exactly_more(self, file: str) -> Mapping[str, Cell]:
        """Return the other columns of the row whose key is this path; none if there is no such row."""
        return self._more.get(key_of(file), {})

    def _keys(self, file: str) -> list[str]:
        """Return the keys that fit an image equally well."""
        parts = key_of(file).split("/")
        for start in range(len(parts)):
            if (key := "/".join(parts[start:])) in self._prompts:
                return [key]
        return self._by_name.get(parts[-1]) or self._by_stem.get(stem_of(parts[-1]), [])

    def first(self) -> str:
        """Return the first key."""
        return next(iter(self._prompts), "")

    def miss(self, file: str) -> None:
        """Count an image for which this file should have a prompt."""
        self._missed += 1
        self._first_missed = self._first_missed or file

    def notes(self) -> list[str]:
        """Return sentences for the user; complete once all images have been looked up."""
        notes = []
        if left := [key for key in self._prompts if key not in self._used]:
            notes.append(
                f"{len(left):,} of {len(self._prompts):,} prompts in {shown(self.path)} match no image "
                f"(the first: {shown(left[0])})."
            )
        if self._missed:
            first = shown(self._first_missed)
            have = f"{counted(self._missed, 'image')} {'has' if self._missed == 1 else 'have'}"
            notes.append(f"{have} no prompt in {shown(self.path)} (the first: {first}).")
        return notes


def key_of(file: str) -> str:
    """Return a path in the form in which names are compared: slashes, no "./", composed accents."""
    return posixpath.normpath(composed(file.replace("\\", "/")))


def stem_of(key: str) -> str:
    """Return a base name without an image's suffix; a number without the zeros before it."""
    name = posixpath.basename(key)
    stem = name[: name.rindex(".")] if is_image_name(name) else name
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem
