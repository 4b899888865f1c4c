"""Split files: which image belongs to which part, in the forms that people publish.

- a JSON file {"train": [names], "validation": [names], "test": [names]}, as ``Split.save`` writes it;
- a csv file with a column of images and a column ``split``;
- a folder with train.csv and test.csv, and optionally val.csv; without test.csv, val.csv is the test part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path, PurePosixPath

from mst_clipiqa.data.label_files import LabelRow, read_rows
from mst_clipiqa.data.plain import PART_NAMES
from mst_clipiqa.data.sets import PLAIN
from mst_clipiqa.errors import DataError, counted, shown
from mst_clipiqa.tables.spelling import composed

Parts = dict[str, list[str]]


class ForeignSplitError(DataError):
    """A split has no image of a set in its training or test part."""


def read_parts(path: Path, names: Sequence[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Read a split file and find its images among those of a set.

    Args:
        path: a .json or .csv file, or a folder of csv files.
        names: the images of the set; the file may leave out their folders if that is unambiguous.

    Returns:
        "train", "test" and, if listed, "validation" -> names; and notes about what did not fit.

    Raises:
        ForeignSplitError: the test or train part has no image of the set.
        DataError: there is no such file, or it holds something else.
    """
    own = {composed(name) for name in names}
    if path.is_dir():
        listed = _from_folder(path, own)
    elif path.is_file():
        listed = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path, own)
    else:
        raise DataError(
            f"Expected 'prompt', 'image', 'official' or a split file, found no file {shown(path)}: correct the name."
        )
    known = _spellings(names)
    listed = {part: [composed(name) for name in listed[part]] for part in listed}
    found = {part: [known[name] for name in listed[part] if name in known] for part in listed}
    for part in ("train", "test"):
        if not found.get(part):
            raise ForeignSplitError(
                f"Expected a {part} part with images of this set in {shown(path)}, got "
                f"{counted(len(listed.get(part, [])), 'name')}, none of them in this set: check that the split belongs "
                "to it."
            )
    notes = []
    strangers = sum(name not in known for part in listed.values() for name in part)
    if strangers:
        notes.append(f"the split file has {counted(strangers, 'name')} of no image of this set")
    return _each_once(found, names, notes), tuple(notes)


def _each_once(found: Parts, names: Sequence[str], notes: list[str]) -> Parts:
    """Put every image into one part, test before validation before train, whatever the file says."""
    taken: set[str] = set()
    parts: Parts = {}
    for part in ("test", "validation", "train"):
        if part in found:
            unique = list(dict.fromkeys(found[part]))
            twice = [name for name in unique if name in taken]
            if twice:
                images = counted(len(twice), "image")
                notes.append(f"{images} of two parts removed from {part} (the first: {shown(twice[0])})")
            parts[part] = [name for name in unique if name not in taken]
            taken.update(unique)
    if len(taken) < len(names):
        notes.append(f"the split file leaves out {counted(len(names) - len(taken), 'image')}")
    return parts


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """Return the spellings of each image, accents composed: its name, and that without folders if it is unique."""
    last = {name: composed(PurePosixPath(name).name) for name in names}
    often = Counter(last.values())
    return {base: name for name, base in last.items() if often[base] == 1} | {composed(name): name for name in names}


def _from_json(path: Path) -> Parts:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {shown(path)}, got something else ({error}): correct it.") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in ("train", "test")):
        raise DataError(f'Expected {{"train": [names], "test": [names]}} in {shown(path)}, got other JSON: correct it.')
    lists = {PART_NAMES[key]: value for key, value in content.items() if key in PART_NAMES and isinstance(value, list)}
    return {part: [str(name) for name in value] for part, value in lists.items()}


def _from_csv(path: Path, own: Container[str]) -> Parts:
    parts: Parts = {}
    for row in read_rows(path):
        part = PART_NAMES.get((row.get(("split", "part", "set")) or "").casefold())
        if part is None:
            raise DataError(
                f"Expected train, validation or test in a column 'split' in {row.where}, "
                f"got {row.get(('split', 'part', 'set'))!r}: correct the row."
            )
        parts.setdefault(part, []).append(_name(row, own))
    return parts


def _from_folder(folder: Path, own: Container[str]) -> Parts:
    files = {PART_NAMES[p.stem]: p for p in sorted(folder.glob("*.csv")) if p.stem in PART_NAMES}
    if "test" not in files and "validation" in files:
        files["test"] = files.pop("validation")
    return {part: [_name(row, own) for row in read_rows(p, ("name", "prompt", "mos"))] for part, p in files.items()}


def _name(row: LabelRow, own: Container[str]) -> str:
    """Return the image of a row; ``own``: the names of the set, accents composed."""
    name = (row.get(PLAIN.file_column) or "").replace("\\", "/")
    if not name:
        raise DataError(f"Expected an image's name in a column such as file in {row.where}, got none: correct the row.")
    model = row.get(("model",))
    if model and "/" not in name and composed(name) not in own:
        return f"{model}/{name}"  # AIGCIQA2023: six images share a file name
    return PurePosixPath(name).name if name.startswith("/") else name
