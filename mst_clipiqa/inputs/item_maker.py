"""An image that a source found becomes an item with its prompt; what all sources of one run share is gathered here."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.hints import left_out, unread_prompts
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.list_columns import USUAL_COLUMNS, ListColumns
from mst_clipiqa.inputs.prompt_choice import PromptChoice, PromptFinder, in_unicode
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.inputs.stdin import save_list, temporary_folder
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.lines import is_unicode


@dataclass
class ItemMaker:
    """Makes items for the sources, and gathers what they find.

    Attributes:
        recursive: include subfolders.
        prompts: which prompt each image gets.
        columns: which columns of lists hold files and prompts.
        more: the other columns, in order.
        stdin: the folder with the list on stdin, removed with this object.
        images: paths of images that were named one by one.
        others: paths of files that are not images.
        used: of those, what was read for prompts.
    """

    recursive: bool
    prompts: PromptChoice
    columns: ListColumns = USUAL_COLUMNS
    more: dict[str, None] = field(default_factory=dict)
    stdin: Path | None = None
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        return self.prompts.notes

    def saved(self) -> str:
        """Save the list on stdin; return its path."""
        self.stdin = temporary_folder()
        weakref.finalize(self, shutil.rmtree, self.stdin, ignore_errors=True)
        return str(save_list(self.stdin))

    def check_prompts(self, given: PromptFile, paths: Iterable[str]) -> None:
        """Refuse, before any work, a file of prompts that is about none of the images."""
        self.more |= dict.fromkeys(given.columns)
        first = ""
        for path in paths:
            if given.fits(path):
                return
            first = first or path
        raise UsageError(
            f"Expected prompts for these images in {shown(given.path)}, got none that matches (the first image: "
            f"{shown(first)}; the first name there: {shown(given.first())}): use the images' names there."
        )

    def item(self, path: str, find: PromptFinder, more: Mapping[str, Cell] | None = None) -> Item:
        """Return the item of an image, with its prompt and the other columns of its rows."""
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

    def conclude(self) -> None:
        """Complete the notes, once every source has given its items."""
        self.prompts.conclude()
        if self.images and not self.prompts.is_made and (hint := unread_prompts("", self.images, [])[0]):
            self.notes.append(hint)
        if note := left_out(self.others, self.used):
            self.notes.append(note)
