"""What a user may have overlooked: prompts that were not read, and files that are not images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mst_clipiqa.errors import shown
from mst_clipiqa.inputs.beside import prompt_finder, sidecars_of
from mst_clipiqa.inputs.lists import Entry

LOOKED_AT = 3
"""Images of a folder that are looked at for prompts."""
_LISTS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_TITLES = ("prompt", "caption", "metadata")  # one of these is in the name of a file of prompts


def unread_prompts(folder: str, paths: Sequence[str], others: Sequence[str]) -> tuple[str, list[str]]:
    """Return a sentence on prompts that could be read, or nothing, and the paths of the files that hold them.

    Args:
        folder: where the images are.
        paths: of its images, the first of which are looked at.
        others: names of its other files.
    """
    for name in others:
        path = Path(name)
        if path.suffix.lower() in _LISTS and any(title in path.stem.lower() for title in _TITLES):
            path = Path(f"{folder}/{name}")
            return f"{shown(name)} is in {shown(folder or '/')} and was not read: --prompts {path}.", [str(path)]
    some = paths[:LOOKED_AT]
    for source, what in (("metadata", "images hold prompts"), ("sidecar", "images have text files beside them")):
        if any(prompt_finder(source)(path) for path in some):
            files = texts_beside(paths) if source == "sidecar" else []
            return f"These {what}, which were not read: --prompts-from {source}.", files
    return "", []


def misplaced(entry: Entry, folders: Sequence[str], named: str | None) -> str:
    """Return a hint if the file of a list is not where the list says but in one of the folders; else nothing.

    Args:
        entry: of the list.
        folders: those named beside it.
        named: the list; None for stdin.
    """
    if entry.stored is not None or entry.file is None or entry.path is None or Path(entry.path).exists():
        return ""
    found = next((folder for folder in folders if Path(folder, entry.file).is_file()), None)
    if found is None:
        return ""
    home = "the current folder" if named is None else f"the list {shown(named)}"
    return (
        f"Expected files relative to {home}, found {shown(entry.file)} in {shown(found)}: name only the folder, with "
        f"--prompts {named or 'and the list in a file'}."
    )


def left_out(others: Sequence[str], used: Sequence[str]) -> str:
    """Return a sentence on files of folders that are no images, or nothing.

    Args:
        others: paths of such files.
        used: paths of those that were read, such as lists of prompts.
    """
    known = {str(Path(path)) for path in used}
    unused = [path for path in others if str(Path(path)) not in known]
    if not unused:
        return ""
    noun = "file that is not an image was" if len(unused) == 1 else "files that are not images were"
    return f"{len(unused):,} {noun} left out (the first: {shown(unused[0])})."


def texts_beside(paths: Sequence[str]) -> list[str]:
    """Return the names of the texts that may be beside images."""
    return [name for path in paths for name in sidecars_of(path)]
