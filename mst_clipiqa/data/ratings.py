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
from mst_clipiqa.errors import DataError

SAME = 1e-3  # two published copies of one score, one of them rounded, differ by less


@dataclass(frozen=True)
class Rating:
    """What one row says about one image, before it is known where the image lies.

    `prompt`, `group`, `generator` and `split` are None where the row does not say.
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
    """What a reader found: ratings, notes about what it did, and the files it read them from."""

    ratings: list[Rating] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def number(row: LabelRow, columns: Sequence[str], name: str) -> float:
    """Return the finite number in the first of these columns.

    Raises:
        DataError: the cell is empty, is no number, or is not finite; names file, row and image.
    """
    text = row.get(columns) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{row.where} ({name}): expected a number in column {columns[0]!r}, got {text!r}; "
            "correct the row or take it out"
        )
    return value


def rating(row: LabelRow, info: SetInfo, split: str | None = None) -> Rating:
    """Read one row with the columns that the table names.

    Raises:
        DataError: no image name, no number where a score should be.
    """
    name = (row.get(info.file_column) or "").replace("\\", "/").rsplit("/", 1)[-1]
    if not name:
        raise DataError(f"{row.where}: expected an image in column {info.file_column[0]!r}, got an empty cell")
    style = (row.get(("style",)) or "") if info.style == "column" else ""
    return Rating(
        name=name,
        where=row.where,
        targets={t: number(row, c, name) for t, c in info.targets.items() if row.get(c) is not None},
        prompt=plain_prompt(row.get(info.prompt_column)),
        deviations=deviations(row, info),
        split=split,
        style=style,
    )


def deviations(row: LabelRow, info: SetInfo) -> dict[str, float]:
    """Return the standard deviations that the row has; an empty cell is left out."""
    return {t: number(row, c, t) for t, c in info.deviations.items() if row.get(c)}


def plain_prompt(text: str | None) -> str | None:
    """Return the prompt without the marks that label files put around it, or None for an empty one.

    One pair of double quotes around the whole is taken off, and no quote inside; a quote that a
    spreadsheet escaped loses its backslash.
    """
    if text is None or not text.strip():
        return None
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return text.replace("\\'", "'") or None


def merge(ratings: Iterable[Rating], info: SetInfo) -> tuple[list[Rating], list[str]]:
    """Bring the rows about one image together: the score from one file, the prompt from another.

    Returns:
        One rating an image with a score, in the order first met; and notes about what was left out.

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
            f"{len(unrated)} images are left out: no label file found here has a score for them "
            f"({unrated[0].where} and on)"
        )
    return [r for r in merged.values() if r.targets], notes


def _together(old: Rating, new: Rating) -> Rating:
    """Merge two rows about one image, or say how they disagree."""
    for target in old.targets.keys() & new.targets.keys():
        if abs(old.targets[target] - new.targets[target]) > SAME:
            raise DataError(
                f"expected one {target} score for {old.name}, got {old.targets[target]:g} in {old.where} and "
                f"{new.targets[target]:g} in {new.where}; take the wrong one out"
            )
    for what, one, other in (("prompt", old.prompt, new.prompt), ("official part", old.split, new.split)):
        if one is not None and other is not None and one != other:
            raise DataError(
                f"expected one {what} for {old.name}, got {one!r} in {old.where} and "
                f"{other!r} in {new.where}; take the wrong one out"
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
    """Tell the native scale of every target, and check that all scores lie on it.

    Where a set is published in two scales the median score decides, so that one wrong value cannot.

    Raises:
        DataError: a score lies outside the scale, or a small one betrays a mixture of two scales.
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
                    f"{r.where} ({r.name}): expected {target} between {low:g} and {high:g} "
                    f"as in the other rows, got {value:g}; correct the row or take it out"
                )
    return ranges


def to_record(r: Rating, key: str, info: SetInfo, root: Path) -> Record:
    """Turn a rating into a record: generator, setting, group and official part from the name's rule.

    Raises:
        DataError: the name does not follow the set's rule, or the prompt is needed for the group and missing.
    """
    parts: dict[str, str | None] = {}
    if info.name_rule:
        match = re.fullmatch(info.name_rule, r.name)
        if match is None:
            raise DataError(
                f"{r.where}: expected an image's name as {info.title} writes them, got {r.name!r}; correct the row"
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
    """Return the prompt group as the prompt tells it; an image without a prompt is a group of its own."""
    if info.group == "object and action":
        pieces = [piece.strip() for piece in (r.prompt or "").split(",")]
        if len(pieces) < 2:
            raise DataError(f"{r.where} ({r.name}): expected 'object, action, ...' as prompt, got {r.prompt!r}")
        return ", ".join(pieces[:2]).casefold()
    return same_text(r.prompt) if r.prompt else f"{ALONE}{r.name}"


def _last_part(prompt: str | None) -> str:
    return (prompt or "").rsplit(",", 1)[-1].strip()
