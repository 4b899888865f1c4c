"""Prompts that are with the images, not in a list: in the file, a text beside it, its name, or its folder's name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from mst_clipiqa.inputs.generation import generation_if_any, generation_of_text
from mst_clipiqa.tables.stored import FileInFile

PROMPT_SOURCES = ("metadata", "sidecar", "name", "folder")
"""Where a prompt may be found: in the file's metadata, in a text file beside it, in its name, in its folder's name."""
SIDECARS = (".txt", ".caption", ".json")
"""How the text beside an image ends; the first that exists counts."""

_MOST_BYTES = 2**20  # of such a text
_COUNTER = re.compile(r"(?:[ _-]+\(?\d+\)?|\(\d+\))+$")  # "a green bench_000000", "a dog (1)"
_SEPARATORS = re.compile(r"[_+]+")


def prompt_finder(source: str) -> Callable[[str], str | None]:
    """Return a function from an image's path to its prompt, or None if there is none.

    Args:
        source: one of ``PROMPT_SOURCES``.
    """
    return _FINDERS[source]


def prompt_in_file(source: str | FileInFile) -> str | None:
    """Return the prompt that an image file itself holds, or None."""
    found = generation_if_any(source)
    return found.prompt if found else None


def _in_sidecar(path: str) -> str | None:
    text = next((text for name in sidecars_of(path) if (text := _text(name)) is not None), None)
    if text is None:
        return None
    found = generation_of_text(text)
    return found.prompt if found else text.strip() or None


def sidecars_of(path: str) -> list[str]:
    """Return the names of texts that may be beside an image: "1.txt" and "1.png.txt" for "1.png", and so on."""
    stem = os.path.splitext(path)[0]  # noqa: PTH122 - a path of bytes that are no UTF-8 stays as it is
    return [base + ending for ending in SIDECARS for base in (stem, path)]


def _text(name: str) -> str | None:
    """Return the text of a small file, in whichever usual encoding; None if there is none."""
    try:
        if not Path(name).is_file() or Path(name).stat().st_size > _MOST_BYTES:
            return None
        data = Path(name).read_bytes()
    except (OSError, ValueError):
        return None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _in_name(path: str) -> str | None:
    return _words(os.path.splitext(os.path.basename(path))[0])  # noqa: PTH119, PTH122 - see above


def _in_folder(path: str) -> str | None:
    return _words(Path(path).absolute().parent.name)


def _words(name: str) -> str | None:
    """Return the words of a file's name: without the number that counts images, separators as blanks."""
    words = _SEPARATORS.sub(" ", _COUNTER.sub("", name))
    if " " not in words.strip():
        words = words.replace("-", " ")
    words = words.strip().encode("utf-8", "replace").decode()
    return words if any(character.isalpha() for character in words) else None


_FINDERS: dict[str, Callable[[str], str | None]] = {
    "metadata": prompt_in_file,
    "sidecar": _in_sidecar,
    "name": _in_name,
    "folder": _in_folder,
}
