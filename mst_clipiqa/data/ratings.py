"""Rows of label files -> ratings -> records, with the checks that every set goes through."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mst_clipiqa.data.label_files import LabelRow
from mst_clipiqa.data.record import ALONE, Range, Record, same_text
from mst_clipiqa.data.sets import SetInfo
from mst_clipiqa.errors import DataError, are, counted, shown
from mst_clipiqa.tables.stored import FileInFile

SAME = 1e-3  # two published copies of one score, one of them rounded, differ by less


@dataclass(frozen=True)
class Rating:
    """What one row says about one image, before its file is looked for.

    Attributes:
        name: the image, as the set calls it.
        where: the row, for messages.
        targets: target -> score.
        prompt: None if the row has none; likewise group, generator and split.
        deviations: target -> standard deviation of the score among raters.
        split: "train", "validation" or "test".
        style: the style that the prompt asks for.
        group: what identifies the prompt.
        generator: the model that made the image.
    """

    name: str
    where: str
    targets: dict[str, float]
    prompt: str | None = None
    deviations: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    style: str = ""
    group: str | None = None
    generator: str | None = None


@dataclass
class Labels:
    """What a reader found.

    Attributes:
        ratings: one per row.
        notes: what the reader did, one sentence each.
        files: the files that were read.
        images: name -> image, if these files hold the images too.
    """

    ratings: list[Rating] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    images: dict[str, FileInFile] = field(default_factory=dict)


def number(row: LabelRow, columns: Sequence[str], name: str) -> float:
    """Return the finite number in the first of these columns.

    Raises:
        DataError: the cell is empty or not a finite number; the message names file, row and image.
    """
    text = row.get(columns) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        column = next((column for column in columns if column.casefold() in row.cells), columns[0])
        raise DataError(
            f"Expected a number in column {column!r} in {row.where} ({name}), got {shown(text)}: "
            "correct the row or remove it."
        )
    return value


def rating(row: LabelRow, info: SetInfo, split: str | None = None) -> Rating:
    """Read one row with the columns that the table names.

    Raises:
        DataError: the row has no image name, or a score is not a number.
    """
    cell = row.get(info.file_column)
    name = (cell or "").replace("\\", "/").rsplit("/", 1)[-1]
    if not name:
        got = "got no such column: check the folder" if cell is None else "got an empty cell: correct it"
        raise DataError(f"Expected an image in column {info.file_column[0]!r} in {row.where}, {got}.")
    style = (row.get(("style",)) or "") if info.style == "column" else ""
    return Rating(
        name=name,
        where=row.where,
        targets={t: number(row, c, name) for t, c in info.targets.items() if row.get(c) is not None},
        prompt=plain_prompt(row.get(info.prompt_column)),
        deviations=deviations(row, info, name),
        split=split,
        style=style,
    )


def deviations(row: LabelRow, info: SetInfo, name: str) -> dict[str, float]:
    """Return the standard deviations in the row of an image; empty cells are left out."""
    return {t: number(row, c, name) for t, c in info.deviations.items() if row.get(c)}


def plain_prompt(text: str | None) -> str | None:
    """Return a prompt without the quotes that label files put around it, or None for an empty one.

    One pair of double quotes around the whole prompt is removed, but no quote inside it. A single quote that was
    escaped by a spreadsheet loses its backslash.
    """
    if text is None or not text.strip():
        return None
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return text.replace("\\'", "'") or None


def merge(ratings: Iterable[Rating], info: SetInfo) -> tuple[list[Rating], list[str]]:
    """Merge the rows of one image: the score may come from one file, the prompt from another.

    Returns:
        One rating per image that has a score, in order of first occurrence; and notes about what was left out.

    Raises:
        DataError: two rows give one image different scores, prompts or parts of the split.
    """
    merged: dict[str, Rating] = {}
    notes: list[str] = []
    for new in ratings:
        kept = info.kept.get(new.name)
        if kept is not None and any(abs(value - kept) > SAME for value in new.targets.values()):
            found = ", ".join(f"{value:.3f}" for value in new.targets.values())
            notes.append(f"{new.where} is left out: {new.name} is rated twice, {found} is not its own score")
        elif new.name in merged:
            merged[new.name] = _together(merged[new.name], new)
        else:
            merged[new.name] = new
    unrated = [r for r in merged.values() if not r.targets]
    if unrated:
        notes.append(
            f"{counted(len(unrated), 'image')} {are(len(unrated))} left out: no label file found here has a "
            f"score for {'it' if len(unrated) == 1 else 'them'} "
            f"({unrated[0].where}{' and on' if len(unrated) > 1 else ''})"
        )
    return [r for r in merged.values() if r.targets], notes


def _together(old: Rating, new: Rating) -> Rating:
    """Merge two rows of one image, or raise a DataError if they disagree."""
    for target in old.targets.keys() & new.targets.keys():
        if abs(old.targets[target] - new.targets[target]) > SAME:
            raise DataError(
                f"Expected one {target} score for {old.name}, got {old.targets[target]:g} in {old.where} and "
                f"{new.targets[target]:g} in {new.where}: keep one of them, or their mean."
            )
    for what, one, other in (("prompt", old.prompt, new.prompt), ("official part", old.split, new.split)):
        if one is not None and other is not None and one != other:
            raise DataError(
                f"Expected one {what} for {old.name}, got {shown(one)} in {old.where} and "
                f"{shown(other)} in {new.where}: remove the wrong one."
            )
    return replace(
        old,
        targets={**new.targets, **old.targets},
        deviations={**new.deviations, **old.deviations},
        prompt=old.prompt or new.prompt,
        split=old.split or new.split,
        style=old.style or new.style,
        where=old.where if old.targets else new.where,
    )


def native_ranges(ratings: Sequence[Rating], info: SetInfo) -> dict[str, Range]:
    """Return the native scale of every target, and check that all scores are within it.

    If a set is published in two scales, the median score decides, so that one wrong value cannot.

    Raises:
        DataError: a score is outside the scale, or so small that it must be from the other scale.
    """
    ranges: dict[str, Range] = {}
    for target in info.targets:
        values = sorted(r.targets[target] for r in ratings if target in r.targets)
        if values:
            median = values[len(values) // 2]
            ranges[target] = next((s for s in info.scales if median <= s[1]), info.scales[-1])
    smaller = info.scales[0][1] if len(info.scales) > 1 else -math.inf
    for r in ratings:
        for target, value in r.targets.items():
            low, high = ranges[target]
            low = smaller if high > smaller > value else low  # a value of the other scale
            if not low <= value <= high:
                raise DataError(
                    f"Expected {target} between {low:g} and {high:g}, as in the other rows, in {r.where} ({r.name}), "
                    f"got {value:g}: correct the row or remove it."
                )
    return ranges


def to_record(r: Rating, key: str, info: SetInfo, root: Path) -> Record:
    """Turn a rating into a record; generator, setting, group and official part come from the name.

    Raises:
        DataError: the name does not follow the set's rule, or the group needs the prompt and it is missing.
    """
    parts: dict[str, str | None] = {}
    if info.name_rule:
        match = re.fullmatch(info.name_rule, r.name)
        if match is None:
            raise DataError(
                f"Expected an image's name as in {info.title} in {r.where}, got {shown(r.name)}: correct the row."
            )
        parts = match.groupdict()
    generator = r.generator if r.generator is not None else parts.get("generator") or ""
    split = r.split
    if "part" in parts:
        split = "test" if parts["part"] == "11" else "train"
    return Record(
        name=r.name,
        file=root / r.name,
        prompt=r.prompt,
        group=f"{key}/{r.group or parts.get('id') or _group_of(r, info)}",
        generator=generator,
        targets=r.targets,
        deviations=r.deviations,
        split=split,
        setting=parts.get("setting") or generator,
        style=r.style or (_last_part(r.prompt) if info.style == "last part" else ""),
    )


def _group_of(r: Rating, info: SetInfo) -> str:
    """Return the prompt group from the prompt; an image without a prompt is a group of its own."""
    if info.group == "object and action":
        pieces = [piece.strip() for piece in (r.prompt or "").split(",")]
        if len(pieces) < 2:
            raise DataError(
                f"Expected the prompt 'object, action, ...' in {r.where} ({r.name}), got {shown(r.prompt)}: correct it."
            )
        return same_text(", ".join(pieces[:2]))
    return same_text(r.prompt) if r.prompt else f"{ALONE}{r.name}"


def _last_part(prompt: str | None) -> str:
    return (prompt or "").rsplit(",", 1)[-1].strip()
