"""The kinds of sources, a folder, a list and a single image: each goes through its images and finds their prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.folders import Folder, check_folder, walk
from mst_clipiqa.inputs.hints import misplaced, texts_beside, unread_prompts
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.item_maker import ItemMaker
from mst_clipiqa.inputs.lists import Entry, entries, is_list, other_columns
from mst_clipiqa.inputs.prompt_choice import (
    METADATA_FILES,
    PromptFinder,
    folder_columns_finder,
    folder_prompt_finder,
    in_unicode,
)
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.inputs.stdin import saved_entries
from mst_clipiqa.tables.spelling import slashed
from mst_clipiqa.tables.stamps import stamp_of


@dataclass(frozen=True)
class InputSource(ABC):
    """One of the things that the user named; there is something of this name.

    Attributes:
        name: its path, with slashes.
        maker: of the items of all sources.
    """

    name: str
    maker: ItemMaker

    @abstractmethod
    def check(self, folders: Sequence[str]) -> None:
        """Refuse, before any work, what leads to no image; ``folders`` are those named beside it."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def paths(self) -> Iterator[str]:
        """Yield the paths of the images."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield the items."""


def source_of(name: str, maker: ItemMaker) -> InputSource:
    """Return the source of a name; UsageError if there is nothing of that name."""
    path = Path(name)
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise UsageError(f"Expected a file or folder, but {shown(name)}: {error.strerror}.") from error
    if not name or not is_there:
        hint = "download it, URLs are not fetched" if "://" in name else "check the name"
        raise UsageError(f"Expected a file or folder, found nothing named {shown(name)}: {hint}.")
    kind = FolderSource if is_folder else ListSource if is_list(path) else ImageSource
    return kind(name, maker)


class ImageSource(InputSource):
    """A single image."""

    def check(self, folders: Sequence[str]) -> None:
        """Refuse nothing: whether it is an image is found out when it is scored."""

    def count(self) -> int:
        """Return 1."""
        return 1

    def paths(self) -> Iterator[str]:
        """Yield its path."""
        yield self.name

    def items(self) -> Iterator[Item]:
        """Yield its item."""
        self.maker.images.append(self.name)
        yield self.maker.item(self.name, self.maker.prompts.finder(None))


class ListSource(InputSource):
    """A list of images."""

    @property
    def is_stdin(self) -> bool:
        """Whether it is the copy of what stdin held."""
        return Path(self.name).parent == self.maker.stdin

    def check(self, folders: Sequence[str]) -> None:
        """Refuse a list without rows, and one whose first file is elsewhere."""
        named = None if self.is_stdin else self.name
        first = next(self._entries(), None)
        if first is None:
            raise UsageError(f"Expected a list of images, got one without rows: {shown(named) if named else 'stdin'}.")
        if problem := misplaced(first, folders, named):
            raise UsageError(problem)
        self.maker.more |= dict.fromkeys(other_columns(Path(self.name), self.maker.columns))

    def count(self) -> int:
        """Return the number of rows."""
        return sum(1 for _ in self._entries())

    def paths(self) -> Iterator[str]:
        """Yield the paths that the rows name."""
        return (entry.path for entry in self._entries() if entry.path)

    def items(self) -> Iterator[Item]:
        """Yield the item of each row, and one that says so if the list has changed while it was read."""
        before = stamp_of(self.name)
        try:
            for entry in self._entries():
                yield self._item(entry)
        except DataError as error:  # the rows before it have been scored, so this becomes a row too
            name = "stdin" if self.is_stdin else in_unicode(slashed(self.name))
            yield Item(name, None, problem=str(error))
        if stamp_of(self.name) not in (before, None):  # one that was removed has been read to its end
            problem = "Expected a list that stays as it is while it is read, but it has changed: score it again."
            yield Item(in_unicode(slashed(self.name)), None, problem=problem)

    def _item(self, entry: Entry) -> Item:
        if entry.path is None or entry.problem:
            where = in_unicode(entry.path or entry.where)
            return Item(where, None, problem=f"Expected a file in each row, but {entry.problem}.", more=entry.more)
        find = self.maker.prompts.finder(lambda _: entry.prompt, entry.stored)
        item = self.maker.item(entry.path, find, entry.more)
        return replace(item, path=None, stored=entry.stored) if entry.stored else item

    def _entries(self) -> Iterator[Entry]:
        path, columns = Path(self.name), self.maker.columns
        return saved_entries(path, columns) if self.is_stdin else entries(path, columns=columns)


class FolderSource(InputSource):
    """A folder of images."""

    def check(self, folders: Sequence[str]) -> None:
        """Refuse a folder without images, and metadata that cannot be read."""
        check_folder(self.name, self.maker.recursive)
        name, prompts = self.name.rstrip("/"), self.maker.prompts
        found = prompts.read[name] = prompts.metadata_file(name)
        self.maker.more |= dict.fromkeys(found.columns if found else ())

    def count(self) -> int:
        """Return the number of images, and of folders that cannot be listed."""
        found = walk(self.name, recursive=self.maker.recursive)
        return sum(len(folder.images) + bool(folder.problem) for folder in found)

    def paths(self) -> Iterator[str]:
        """Yield the paths of the images."""
        for folder in walk(self.name, recursive=self.maker.recursive):
            yield from (f"{folder.path}/{name}" for name in folder.images)

    def items(self) -> Iterator[Item]:
        """Yield the items of the folder, then those of its subfolders."""
        maker, prompts = self.maker, self.maker.prompts
        known: dict[str, PromptFile] = {}  # folder -> its metadata
        above = prompts.above(self.name)
        hint = ""
        for folder in walk(self.name, recursive=maker.recursive, notes=maker.notes):
            problem = folder.problem
            try:
                if not problem and (found := prompts.metadata_file(folder.path)):
                    known[folder.path] = found
            except DataError as error:
                problem = str(error)
            paths = [f"{folder.path}/{name}" for name in folder.images]
            maker.others += [f"{folder.path}/{name}" for name in folder.others]
            maker.used += [f"{folder.path}/{name}" for name in METADATA_FILES]  # what is wrong with it has been said
            if prompts.source == "sidecar":
                maker.used += texts_beside(paths)
            if not (hint or known or above or prompts.is_made):
                others = [name for name in folder.others if name not in METADATA_FILES]
                hint, files = unread_prompts(folder.path, paths, others)
                maker.used += files
            yield from self._of_folder(folder, problem, known, above)
        maker.used += [str(prompts.given.path)] if prompts.given else []
        for metadata in known.values():
            maker.notes.extend(metadata.notes())
        maker.notes.extend([hint] if hint else [])

    def _of_folder(
        self, folder: Folder, problem: str | None, known: dict[str, PromptFile], above: PromptFinder | None
    ) -> Iterator[Item]:
        if folder.problem:
            yield Item(in_unicode(folder.path), None, problem=folder.problem)
        find = self.maker.prompts.finder(folder_prompt_finder(folder.path, known) or above)
        more = folder_columns_finder(folder.path, known)
        for name in folder.images:
            path = f"{folder.path}/{name}"
            yield Item(in_unicode(path), path, problem=problem) if problem else self.maker.item(path, find, more(path))
