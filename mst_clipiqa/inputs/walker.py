"""Goes through folders, lists and single images, and finds the prompt of each image on the way."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.folders import Folder, check_folder, walk
from mst_clipiqa.inputs.hints import left_out, misplaced, texts_beside, unread_prompts
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.lists import USUAL_COLUMNS, Entry, ListColumns, entries, is_list, other_columns
from mst_clipiqa.inputs.prompt_choice import (
    METADATA_FILES,
    PromptChoice,
    PromptFinder,
    folder_columns_finder,
    folder_prompt_finder,
    in_unicode,
)
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.inputs.stdin import save_list, saved_entries, temporary_folder
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.lines import is_unicode
from mst_clipiqa.tables.spelling import slashed
from mst_clipiqa.tables.stamps import stamp_of


@dataclass
class Walker:
    """Goes through the sources.

    Attributes:
        recursive: include subfolders.
        prompts: which prompt each image gets.
        columns: which columns of lists hold files and prompts.
        more: the other columns, in order.
        others: paths of files that are not images.
        used: of those, what was read for prompts.
    """

    recursive: bool
    prompts: PromptChoice
    columns: ListColumns = USUAL_COLUMNS
    more: dict[str, None] = field(default_factory=dict)
    stdin: Path | None = None  # the folder with the list on stdin, removed with the walker
    others: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        return self.prompts.notes

    def check(self, source: str, folders: Sequence[str]) -> None:
        """Refuse, before any work, a source that leads to no image; ``folders`` are those named beside it."""
        path = Path(source)
        try:
            is_there, is_folder = path.exists(), path.is_dir()
        except OSError as error:
            raise UsageError(f"Expected a file or folder, but {shown(source)}: {error.strerror}.") from error
        if not source or not is_there:
            hint = "download it, URLs are not fetched" if "://" in source else "check the name"
            raise UsageError(f"Expected a file or folder, found nothing named {shown(source)}: {hint}.")
        if is_folder:
            check_folder(source, self.recursive)
            found = self.prompts.read[source.rstrip("/")] = self.prompts.metadata_file(source.rstrip("/"))
            self.more |= dict.fromkeys(found.columns if found else ())
        elif is_list(path):
            named = None if self._is_saved(path) else source
            first = next(self._entries(path), None)
            if first is None:
                raise UsageError(
                    f"Expected a list of images, got one without rows: {shown(named) if named else 'stdin'}."
                )
            if problem := misplaced(first, folders, named):
                raise UsageError(problem)
            self.more |= dict.fromkeys(other_columns(path, self.columns))

    def check_prompts(self, given: PromptFile, sources: Iterable[str]) -> None:
        """Refuse, before any work, a file of prompts that is about none of the images."""
        self.more |= dict.fromkeys(given.columns)
        first = ""
        for path in self._paths(sources):
            if given.fits(path):
                return
            first = first or path
        raise UsageError(
            f"Expected prompts for these images in {shown(given.path)}, got none that matches (the first image: "
            f"{shown(first)}; the first name there: {shown(given.first())}): use the images' names there."
        )

    def saved(self) -> str:
        """Save the list on stdin; return its path."""
        self.stdin = temporary_folder()
        weakref.finalize(self, shutil.rmtree, self.stdin, ignore_errors=True)
        return str(save_list(self.stdin))

    def _is_saved(self, path: Path) -> bool:
        return path.parent == self.stdin

    def _entries(self, path: Path) -> Iterator[Entry]:
        return saved_entries(path, self.columns) if self._is_saved(path) else entries(path, columns=self.columns)

    def count(self, source: str) -> int:
        """Return the number of items of a source."""
        path = Path(source)
        if path.is_dir():
            return sum(len(found.images) + bool(found.problem) for found in walk(source, recursive=self.recursive))
        return sum(1 for _ in self._entries(path)) if is_list(path) else 1

    def _paths(self, sources: Iterable[str]) -> Iterator[str]:
        for source in sources:
            path = Path(source)
            if path.is_dir():
                for folder in walk(source, recursive=self.recursive):
                    yield from (f"{folder.path}/{name}" for name in folder.images)
            elif is_list(path):
                yield from (entry.path for entry in self._entries(path) if entry.path)
            else:
                yield source

    def items(self, sources: Iterable[str]) -> Iterator[Item]:
        """Yield the items of all sources, and complete the notes."""
        for source in sources:
            if Path(source).is_dir():
                yield from self._in_folder(source)
            elif is_list(source):
                yield from self._in_list(Path(source))
            else:
                yield self._item(source, self.prompts.finder(None))
        self._conclude(sources)

    def _conclude(self, sources: Iterable[str]) -> None:
        """Complete the notes."""
        self.prompts.conclude()
        files = [source for source in sources if not (Path(source).is_dir() or is_list(source))]
        if files and not self.prompts.is_made and (hint := unread_prompts("", files, [])[0]):
            self.notes.append(hint)
        if note := left_out(self.others, self.used):
            self.notes.append(note)

    def _in_folder(self, root: str) -> Iterator[Item]:
        known: dict[str, PromptFile] = {}  # folder -> its metadata
        above = self.prompts.above(root)
        hint = ""
        for folder in walk(root, recursive=self.recursive, notes=self.notes):
            problem = folder.problem
            try:
                if not problem and (found := self.prompts.metadata_file(folder.path)):
                    known[folder.path] = found
            except DataError as error:
                problem = str(error)
            paths = [f"{folder.path}/{name}" for name in folder.images]
            self.others += [f"{folder.path}/{name}" for name in folder.others]
            self.used += [f"{folder.path}/{name}" for name in METADATA_FILES]  # what is wrong with it has been said
            if self.prompts.source == "sidecar":
                self.used += texts_beside(paths)
            if not (hint or known or above or self.prompts.is_made):
                hint, files = unread_prompts(
                    folder.path, paths, [name for name in folder.others if name not in METADATA_FILES]
                )
                self.used += files
            yield from self._of_folder(folder, problem, known, above)
        self.used += [str(self.prompts.given.path)] if self.prompts.given else []
        for metadata in known.values():
            self.notes.extend(metadata.notes())
        self.notes.extend([hint] if hint else [])

    def _of_folder(
        self, folder: Folder, problem: str | None, known: dict[str, PromptFile], above: PromptFinder | None
    ) -> Iterator[Item]:
        if folder.problem:
            yield Item(in_unicode(folder.path), None, problem=folder.problem)
        find = self.prompts.finder(folder_prompt_finder(folder.path, known) or above)
        more = folder_columns_finder(folder.path, known)
        for name in folder.images:
            path = f"{folder.path}/{name}"
            yield Item(in_unicode(path), path, problem=problem) if problem else self._item(path, find, more(path))

    def _in_list(self, path: Path) -> Iterator[Item]:
        before = stamp_of(str(path))
        try:
            for entry in self._entries(path):
                if entry.path is None or entry.problem:
                    where = in_unicode(entry.path or entry.where)
                    problem = f"Expected a file in each row, but {entry.problem}."
                    yield Item(where, None, problem=problem, more=entry.more)
                else:
                    find = self.prompts.finder(_of_entry(entry), entry.stored)
                    item = self._item(entry.path, find, entry.more)
                    yield replace(item, path=None, stored=entry.stored) if entry.stored else item
        except DataError as error:  # the rows before it have been scored, so this becomes a row too
            name = "stdin" if self._is_saved(path) else in_unicode(slashed(path))
            yield Item(name, None, problem=str(error))
        if stamp_of(str(path)) not in (before, None):  # one that was removed has been read to its end
            problem = "Expected a list that stays as it is while it is read, but it has changed: score it again."
            yield Item(in_unicode(slashed(path)), None, problem=problem)

    def _item(self, path: str, find: PromptFinder, more: Mapping[str, Cell] | None = None) -> Item:
        given = self.prompts.given
        others = {**(more or {}), **(given.more(path) if given else {})}
        try:
            prompt = find(path)
        except DataError as error:
            return Item(in_unicode(path), path, problem=str(error), more=others)
        if prompt is not None and not is_unicode(prompt):
            problem = "Expected a prompt in UTF-8, got other bytes: save the file of prompts as UTF-8."
            return Item(in_unicode(path), path, problem=problem, more=others)
        return Item(in_unicode(path), path, prompt, more=others)


def _of_entry(entry: Entry) -> PromptFinder:
    return lambda _: entry.prompt
