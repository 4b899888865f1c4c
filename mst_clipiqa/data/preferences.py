"""Pairs of images with the one that people prefer: a table -> images and pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mst_clipiqa.data.links import Links
from mst_clipiqa.data.record import RatedSet, Record, same_text
from mst_clipiqa.errors import DataError, are, counted, nearest, shown
from mst_clipiqa.tables.reading import stream_table
from mst_clipiqa.tables.spelling import on_disk

PREFERRED = {"a": 1.0, "image_a": 1.0, "b": 0.0, "image_b": 0.0, "tie": 0.5}
_OF_PAIRS = "pairs/"  # of their names, beside those of a rated set
_PAIR_COLUMNS = ("image_a", "image_b", "preferred")


@dataclass(frozen=True)
class Preference:
    """Which of two images of one prompt people prefer.

    Attributes:
        a, b: the images, without ratings.
        preferred: 1 for A, 0 for B, 0.5 for a tie.
        strength: how much the pair weighs in training, such as its number of votes; above 0.
    """

    a: Record
    b: Record
    preferred: float
    strength: float = 1.0


@dataclass(frozen=True)
class PreferenceSet:
    """The pairs of a table.

    Attributes:
        images: every image with its prompt, once; they have no ratings.
        pairs: in the order of the table.
    """

    images: RatedSet
    pairs: tuple[Preference, ...]

    def file_of(self, record: Record) -> str:
        """Return the file of an image as the table names it."""
        name = record.name.removeprefix(_OF_PAIRS)
        first, hash_sign, number = name.rpartition("#")  # after "#", which prompt of this file it is
        again = hash_sign and number.isdecimal() and not str(record.file).replace("\\", "/").endswith(name)
        return first if again else name

    def among(self, records: Iterable[Record]) -> tuple[Preference, ...]:
        """Return the pairs of which both images are among these."""
        names = {record.name for record in records}
        return tuple(pair for pair in self.pairs if pair.a.name in names and pair.b.name in names)


def load_preferences(
    path: Path, root: Path | None = None, *, allow_missing: bool = False, images: bool = True
) -> PreferenceSet:
    """Read a table of pairs: columns image_a, image_b, prompt, preferred (a, b or tie) and, if any, strength.

    An image may be in many pairs; with another prompt it counts as another image. Images without a prompt that pairs
    link directly or through others are one prompt group.

    Args:
        path: ends in .csv, .tsv, .jsonl or .parquet.
        root: where the images are, if not beside the table.
        allow_missing: leave out pairs with an image that does not exist, instead of raising.
        images: whether the images have to exist; scores from a table need none.

    Raises:
        DataError: a column is missing, a row is bad, images do not exist, or there is no pair.
    """
    rows = list(stream_table(path))
    _check_columns(path, rows)
    found = _Images(path, root)
    pairs = [_pair(row, f"row {number} of {shown(path.name)}", found) for number, row in enumerate(rows, 1)]
    absent = found.absent if images else {}
    files = list(dict.fromkeys(absent.values()))
    if files and not allow_missing:
        raise DataError(
            f"Expected the images of {shown(path.name)} in {shown(found.folders[0])}, but {len(files):,} of "
            f"them {are(len(files))} missing, first {shown(files[0])}: give their folder with --root, or allow missing "
            "images (--allow-missing)."
        )
    kept = [pair for pair in pairs if absent.keys().isdisjoint((pair.a.name, pair.b.name))]
    if not kept:
        raise DataError(f"Expected pairs of images in {shown(path)}, got none: add rows.")
    return _as_set(found.name, path, kept, tuple(sorted(files)))


class _Images:
    """The images of a table, each once with each of its prompts.

    Attributes:
        name: of the set that they are.
        folders: where they are looked for.
        absent: name of the record of an image that does not exist -> its file as the table names it.
    """

    def __init__(self, path: Path, root: Path | None) -> None:
        self.name = f"pairs of {path.name}"
        self.folders = [path.parent] if root is None else [root, path.parent]
        self.absent: dict[str, str] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._prompts: Counter[str] = Counter()  # how many a file has so far

    def record(self, file: str, prompt: str) -> Record:
        """Return the record of an image with a prompt, which may be empty; a new one if there is none."""
        if (file, prompt) not in self._records:
            paths = (Path(on_disk(str(folder / file))) for folder in self.folders)
            found = next((path for path in paths if path.is_file()), None)
            self._prompts[file] += 1
            name = f"{_OF_PAIRS}{file}" + (f"#{self._prompts[file]}" if self._prompts[file] > 1 else "")
            if found is None:
                self.absent[name] = file
            group = f"{self.name}/{same_text(prompt)}"
            place = found or self.folders[-1] / file
            self._records[file, prompt] = Record(name, place, prompt or None, group, "", {})
        return self._records[file, prompt]


def _pair(row: Mapping[str, Any], where: str, images: _Images) -> Preference:
    """Return the pair of a row; DataError if the row is bad."""
    prompt = _text(row.get("prompt")).strip()
    files = [_text(row[column]).replace("\\", "/").strip() for column in _PAIR_COLUMNS[:2]]
    if not all(files) or files[0] == files[1]:
        raise DataError(f"Expected two images in {where}, got {shown(' and '.join(files))}: correct the row.")
    preferred, strength = _preferred(row["preferred"], where), _strength(row.get("strength"), where)
    a, b = (images.record(file, prompt) for file in files)
    return Preference(a, b, preferred, strength)


def _as_set(name: str, path: Path, pairs: list[Preference], missing: tuple[str, ...]) -> PreferenceSet:
    """Give images without a prompt the group of those that pairs link them to, and collect every image once."""
    links = Links[str]()
    for pair in pairs:
        links.link(pair.a.name, pair.b.name)

    def grouped(record: Record) -> Record:
        return record if record.prompt else replace(record, group=f"{name}/linked to {links.first(record.name)}")

    records = {record.name: grouped(record) for pair in pairs for record in (pair.a, pair.b)}
    linked = tuple(replace(pair, a=records[pair.a.name], b=records[pair.b.name]) for pair in pairs)
    absent = f"{counted(len(missing), 'image')} {are(len(missing))} missing"
    notes = (f"{absent}, and {'its' if len(missing) == 1 else 'their'} pairs are left out",) if missing else ()
    images = RatedSet(name, path.parent, tuple(records.values()), {}, missing, notes, labels=(path,))
    return PreferenceSet(images, linked)


def _check_columns(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for column in _PAIR_COLUMNS:
        if any(column not in row for row in rows) or not rows:
            hint = nearest(column, columns) or f"; its columns are: {', '.join(columns) or 'none'}"
            raise DataError(f"Expected a column {column} in each row of {shown(path)}, found none{hint}.")


def _preferred(cell: object, where: str) -> float:
    words = _text(cell).strip().lower()
    if words not in PREFERRED:
        raise DataError(f"Expected a, b or tie in column preferred in {where}, got {shown(_text(cell))}: correct it.")
    return PREFERRED[words]


def _strength(cell: object, where: str) -> float:
    if cell is None or cell == "":
        return 1.0
    if not isinstance(cell, float | int) or not math.isfinite(cell) or cell <= 0:
        raise DataError(f"Expected a number above 0 in column strength in {where}, got {shown(cell)}: correct it.")
    return float(cell)


def _text(cell: object) -> str:
    return "" if cell is None else str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
