"""The images of an INPUT with their prompts and further columns, as the flags of the command ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from mst_clipiqa.distribute.plan import items_in, with_full_name
from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.inputs.each_frame import each_frame
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.inputs.list_columns import USUAL_COLUMNS, ListColumns
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables import parquet
from mst_clipiqa.tables.stored import is_stored

KINDS: dict[str, type] = {"text": str, "whole": int, "number": float}
"""Kinds of columns -> their types."""


@dataclass(frozen=True)
class Listing:
    """How an INPUT is read.

    Attributes:
        recursive: include subfolders.
        prompt: the prompt of every image, or None.
        prompts: a file of prompts, or None.
        prompts_from: where else to find each image's prompt; for folders and lists.
        columns: which columns of lists hold files and prompts.
        each_frame: a row per frame of animated images; for folders and lists.
    """

    recursive: bool = False
    prompt: str | None = None
    prompts: Path | None = None
    prompts_from: str | None = None
    columns: ListColumns = USUAL_COLUMNS
    each_frame: bool = False


class Listed(NamedTuple):
    """What an INPUT holds.

    Attributes:
        items: the images, once, in order.
        columns: the names of their further columns.
        notes: returns sentences for the user, complete once all images have been taken.
    """

    items: Iterator[Item]
    columns: Sequence[str]
    notes: Callable[[], Sequence[str]]


def listed(given: str, listing: Listing) -> Listed:
    """Return the images of an INPUT.

    Raises:
        UsageError: it names nothing that can be scored, or flags do not go together.
        DataError: the file of prompts cannot be used, or a URL cannot be listed.
    """
    path = Path(given)
    if "://" in given or path.suffix.lower() == ".tar" or (has_magic(given) and not path.exists()):
        if listing.prompts_from or listing.each_frame:
            flag = "--prompts-from" if listing.prompts_from else "--frames all"
            raise UsageError(f"{flag} needs a folder, an image or a list, got {shown(given)}: omit it.")
        return _with_prompts(items_in(given, recursive=listing.recursive), listing)
    if listing.each_frame and path.suffix.lower() == ".parquet" and path.is_file() and is_stored(path):
        raise UsageError(f"--frames all needs images in files, got Parquet that holds them: {shown(given)}. Omit it.")
    items = expand(
        [given],
        recursive=listing.recursive,
        prompt=listing.prompt,
        prompts=listing.prompts,
        prompts_from=listing.prompts_from,
        columns=listing.columns,
    )
    found = map(with_full_name, each_frame(items) if listing.each_frame else items)
    return Listed(found, items.columns, lambda: items.notes)


def _with_prompts(found: Iterable[Item], listing: Listing) -> Listed:
    """Return images with the one prompt, or with theirs in a file of prompts, if either is given."""
    if listing.prompt is not None and listing.prompts is not None:
        raise UsageError("Expected one of --prompt and --prompts, got both: leave one out.")
    file = None if listing.prompts is None else PromptFile(listing.prompts, by_number=True, columns=listing.columns)
    items = (_with_prompt(item, listing.prompt, file) for item in found)
    return Listed(items, file.columns if file else [], file.notes if file else list)


def _with_prompt(item: Item, prompt: str | None, given: PromptFile | None) -> Item:
    if given is None:
        return item if prompt is None else replace(item, prompt=prompt)
    try:
        return replace(item, prompt=given.find(item.file), more={**item.more, **given.more(item.file)})
    except DataError as error:
        return replace(item, problem=item.problem or str(error))


def kinds_of(names: Sequence[str], found: Iterable[Item], had: dict[str, str] | None) -> dict[str, str]:
    """Return the kind of each further column ("text", "whole" or "number"), the same in all parts of an output.

    Args:
        names: of the columns.
        found: the images to score.
        had: the kinds of the parts that exist, or None.

    Raises:
        UsageError: the parts that exist have another kind that cannot hold the values.
    """
    of_type = {kind: name for name, kind in KINDS.items()}
    wanted = {name: KINDS[kind] for name, kind in (had or {}).items() if name in names}
    rows = ([item.more.get(name) for name in names] for item in found)
    kinds = {name: of_type[kind] for name, kind in parquet.kinds(names, wanted, rows).items()}
    for name, kind in (had or {}).items():
        if kinds.get(name, kind) != kind:
            raise UsageError(
                f"Expected values of column {shown(name)} as in the parts that exist ({kind}), got {kinds[name]}: "
                "name another output."
            )
    return kinds
