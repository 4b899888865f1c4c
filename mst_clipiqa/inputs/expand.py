"""What the user named -> one item per image, in a fixed order, with its prompt.

A name is an image, a folder of images, or a list of images (see ``lists.entries``). Whether a file is an image is found
out when it is scored. Items come one at a time; only the names of one folder and the prompts are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.item_maker import ItemMaker
from mst_clipiqa.inputs.list_columns import USUAL_COLUMNS, ListColumns
from mst_clipiqa.inputs.prompt_choice import PromptChoice
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.inputs.sources import source_of
from mst_clipiqa.tables.spelling import slashed


class Inputs(Iterator[Item]):
    """The items, once, in order; made by ``expand``.

    Attributes:
        notes: sentences for the user, complete once all items have been taken: prompts that match no image, images
            without a prompt, prompts that were not read, files and links that were left out.
        columns: names of the columns that ``Item.more`` may have.
    """

    def __init__(
        self, items: Iterator[Item], notes: list[str], count: Callable[[], int], columns: Sequence[str]
    ) -> None:
        self.notes = notes
        self.columns = list(columns)
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
    prompts_from: str | None = None,
    columns: ListColumns = USUAL_COLUMNS,
) -> Inputs:
    """Return the images that paths name: those of a folder in natural order, then those of its subfolders.

    In a folder, hidden files and files that are not images are left out; the notes count the latter. A
    ``metadata.csv``, ``.jsonl`` or ``.parquet`` (file_name; prompt, text or caption) in a folder, or in the one that
    contains it, is read for prompts unless prompts are given.

    Args:
        paths: images, folders, or lists of images (.csv, .tsv, .jsonl, .json, .parquet), whose names are relative to
            the list; or files that hold their images: WebDataset tars, and Parquet.
        recursive: include subfolders.
        prompt: the prompt of every image.
        prompts: a file with the prompts: a list like those (see ``prompts.PromptFile``).
        prompts_from: where else to find each image's prompt: one of ``beside.PROMPT_SOURCES``.
        columns: which columns hold files and prompts.

    Returns:
        Inputs: an iterator over the items; its ``notes`` are complete at the end.

    Raises:
        UsageError: nothing has that name, a folder or list has no image, or the prompts cannot be used.
    """
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not named:
        raise UsageError("Expected at least one image, folder or list, got none: name one.")
    if sum(one is not None for one in (prompt, prompts, prompts_from)) > 1:
        raise UsageError("Expected one of --prompt, --prompts and --prompts-from, got several: leave one out.")
    try:
        given = PromptFile(Path(prompts), by_number=True, columns=columns) if prompts is not None else None
        maker = ItemMaker(recursive, PromptChoice(prompt, given, prompts_from), columns)
        names = [maker.saved() if path == "-" else slashed(path) for path in named]
        folders = [name for name in names if Path(name).is_dir()]
        sources = []
        for name in names:
            sources.append(source_of(name, maker))
            sources[-1].check(folders)
        if given is not None:
            maker.check_prompts(given, (path for source in sources for path in source.paths()))
    except DataError as error:
        raise UsageError(str(error)) from error

    def items() -> Iterator[Item]:
        for source in sources:
            yield from source.items()
        maker.conclude()

    return Inputs(items(), maker.notes, lambda: sum(source.count() for source in sources), list(maker.more))
