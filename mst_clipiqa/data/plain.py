"""Rated sets of your own: a csv table, an image folder, pyiqa's meta_info files, Parquet or tars with the images."""

from __future__ import annotations

import math
from collections.abc import KeysView, Sequence
from pathlib import Path

from mst_clipiqa.data.label_files import LabelRow, check_read, find_labels, read_rows
from mst_clipiqa.data.ratings import Labels, Rating, deviations, number, plain_prompt
from mst_clipiqa.data.record import Range
from mst_clipiqa.data.sets import PLAIN as INFO
from mst_clipiqa.data.stored_sets import STORED_FORMATS, stored_labels
from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.tables.lines import csv_rows
from mst_clipiqa.tables.names import is_image_name

ONE_SCORE = ("mos", "gt_score", "score", "mos_score", "mean_opinion_score")
"""Names of a score that do not say what is scored; it is read as quality."""

GROUP_COLUMNS = ("prompt_group", "group", "prompt_id")
GENERATOR_COLUMNS = ("generator", "model", "generator_name")
SPLIT_COLUMNS = ("split", "official_split")
PART_NAMES = {"train": "train", "training": "train", "val": "validation", "valid": "validation"}
PART_NAMES |= {"validation": "validation", "dev": "validation", "test": "test", "testing": "test"}
SCALES: tuple[Range, ...] = ((0.0, 1.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))

_NOT_TEXT = (".xlsx", ".jsonl", ".parquet")
_PATTERNS = {
    "csv": ("*.csv",),
    "pyiqa": ("meta_info*.csv",),
    "imagefolder": ("metadata.csv", "metadata.jsonl", "metadata.parquet"),
}


def read(form: str, root: Path) -> Labels:
    """Read a set of your own.

    Args:
        form: "csv", "imagefolder", "pyiqa", or one of ``STORED_FORMATS``.
        root: the folder of the labels; except for "imagefolder" also the file itself.

    Raises:
        DataError: there is no label file or several, no column with images or scores, or a bad row.
    """
    if form in STORED_FORMATS:
        return _read_stored(form, root)
    labels = Labels()
    for path, below, split in _files(form, root):
        rows = read_rows(path, _positions(path))
        targets, note = _targets(path, rows)
        part_column, part_note = _split_column(rows)
        labels.notes += [n for n in (note, part_note) if n and n not in labels.notes]
        for row in rows:
            _check_name(row)
        labels.ratings += [_rating(row, targets, part_column, below, split) for row in rows]
        labels.files.append(path)
    return labels


def _read_stored(form: str, root: Path) -> Labels:
    """Read a set that holds its images; a file such as train-00000-of-00002.parquet names its official part."""
    labels, named = stored_labels(form, root)
    rows = [row for row, _ in named]
    targets, note = _targets(labels.files[0], rows)
    part_column, part_note = _split_column(rows)
    labels.notes += [n for n in (note, part_note) if n]
    for row, file in named:
        labels.ratings.append(_rating(row, targets, part_column, "", PART_NAMES.get(file.split("-")[0].casefold())))
    return labels


def _files(form: str, root: Path) -> list[tuple[Path, str, str | None]]:
    """Return the label files, the folder their names are relative to, and the official part of each."""
    if root.is_file():
        check_read([root])
        return [(root, "", None)]
    if form == "imagefolder":
        parts = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name in PART_NAMES]
        if inside := [(f, f"{d.name}/", PART_NAMES[d.name]) for d in parts for f in _metadata(d)]:
            return [*inside]
    found = [path for files in find_labels(root, _PATTERNS[form]).values() for path in files]
    if len(found) != 1:
        check_read(() if found else sorted(root.iterdir()))
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise DataError(
            f"Expected one label file ({' or '.join(_PATTERNS[form])}) in {shown(root)}, got {names}: "
            f"{'add one' if form == 'imagefolder' else 'give the file itself as the root'}."
        )
    return [(found[0], "", None)]


def _metadata(folder: Path) -> list[Path]:
    return [folder / name for name in _PATTERNS["imagefolder"] if (folder / name).is_file()]


def _positions(path: Path) -> tuple[str, ...]:
    """Name the columns of a table without a header row: image, (prompt,) score."""
    first = None if path.suffix.lower() in _NOT_TEXT else next(csv_rows(path), None)
    narrow = first is not None and len(first.value or ()) == 2
    return ("name", "mos") if narrow else ("name", "prompt", "mos")


def _targets(path: Path, rows: Sequence[LabelRow]) -> tuple[dict[str, tuple[str, ...]], str]:
    """Find the columns with scores: target -> columns, and a note if a name had to be interpreted."""
    every = _columns(rows)
    targets = {target: columns for target, columns in INFO.targets.items() if not every.isdisjoint(columns)}
    one = next((column for column in ONE_SCORE if column in every), None)
    if one is not None and "quality" not in targets:
        note = f"column {one!r} of {path.name} is read as quality"
        return {"quality": (one,), **targets}, note
    if not targets:
        raise DataError(
            f"Expected a column with scores ({', '.join(ONE_SCORE[:3])}, mos_quality, ...) in {shown(path)}, got the "
            f"columns {', '.join(every)}: rename the column with the scores to mos; higher must be better."
        )
    return targets, ""


def _columns(rows: Sequence[LabelRow]) -> KeysView[str]:
    """Return the columns of all rows, in order: a row of JSON may lack some."""
    return dict.fromkeys(column for row in rows for column in row.cells).keys()


def _split_column(rows: Sequence[LabelRow]) -> tuple[str | None, str]:
    """Find the column with the official split; pyiqa's files have many random splits beside it."""
    columns = _columns(rows)
    plain = [column for column in SPLIT_COLUMNS if column in columns]
    if plain:
        return plain[0], ""
    others = [column for column in columns if "split" in column]
    if not others:
        return None, ""
    return others[0], f"column {others[0]!r} is read as the official split"


def _check_name(row: LabelRow) -> None:
    name = row.get(INFO.file_column) or ""
    if not name:
        raise DataError(
            f"Expected an image's file name in a column such as {', '.join(INFO.file_column[:5])} in {row.where}, "
            "got none: rename the column with the images to file."
        )
    if not is_image_name(name):
        raise DataError(
            f"Expected a file name that ends as an image's does (.png, .jpg, ...) in {row.where}, got {shown(name)}: "
            "add the extension, or rename the column with the images to file."
        )


def _rating(
    row: LabelRow, targets: dict[str, tuple[str, ...]], part: str | None, below: str, split: str | None
) -> Rating:
    """Return the ratings of a row; of several scores it may lack some, but not all."""
    name = (row.get(INFO.file_column) or "").replace("\\", "/")
    said = (row.get((part,)) or "").casefold() if part else ""
    has = {target: columns for target, columns in targets.items() if row.get(columns)}
    if not has:
        raise DataError(
            f"Expected a rating of {' or '.join(targets)} in {row.where} ({name}), got none: add one or remove the row."
        )
    return Rating(
        name=below + name.removeprefix("./"),
        where=row.where,
        targets={target: number(row, columns, name) for target, columns in has.items()},
        prompt=plain_prompt(row.get(INFO.prompt_column)),
        deviations={t: value for t, value in deviations(row, INFO, name).items() if t in has},
        split=PART_NAMES.get(said) if said else split,
        style=row.get(("style",)) or "",
        group=row.get(GROUP_COLUMNS) or None,
        generator=row.get(GENERATOR_COLUMNS) or "",
    )


def guess_range(values: Sequence[float], likely: Range | None = None) -> Range:
    """Return the narrowest common scale (0..1, 0..5, 0..10, 0..100) that holds all values, else whole ends.

    A likely scale, as that of a model, counts as a common one.
    """
    low, high = min(values), max(values)
    for scale in sorted((likely, *SCALES) if likely else SCALES, key=lambda ends: ends[1] - ends[0]):
        if scale[0] <= low and high <= scale[1]:
            return scale
    below, above = float(math.floor(low)), float(math.ceil(high))
    return below, max(above, below + 1)  # all scores may be one whole number
