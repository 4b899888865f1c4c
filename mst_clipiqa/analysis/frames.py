"""Rows of single frames -> one row per animated image."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence

from mst_clipiqa.analysis.rows import Row, column_names, number, text
from mst_clipiqa.errors import counted
from mst_clipiqa.tables.columns import Table

_FRAME = "frame"
_WHICH = re.compile(r"frame [\d,]+ of [\d,]+(?: or more)?")  # what the row of a frame notes first
_AVERAGED = ("quality", "correspondence", "gate", "familiarity")


def mean_of_frames(rows: Sequence[Row], columns: Collection[str], failed: Sequence[Row] = ()) -> Table:
    """Return rows in which the frames of one file and prompt are one row, at the place of the first.

    Its ``reason`` says of how many frames it is the mean, and what was noted of how many of them.

    Args:
        rows: scored rows of a table; only those with a cell ``frame`` are merged.
        columns: scores, of which the mean over the frames is taken, as of quality, correspondence, gate and
            familiarity, and of the ends of their intervals; all other cells are the first frame's.
        failed: rows of the same table that failed; those of frames are counted in ``reason``, with why.
    """
    if _FRAME not in column_names(rows):  # as in nearly every table
        return Table.of(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for place, row in enumerate(rows):
        key = _image(row) if text(row, _FRAME).strip() else (str(place),)
        groups.setdefault(key, []).append(row)
    bad: dict[tuple[str, ...], list[Row]] = {}
    for row in failed:
        bad.setdefault(_image(row), []).append(row)
    found = ((group, bad.get(key, [])) for key, group in groups.items())
    merged = (_merged(group, lost, columns) if len(group) > 1 or lost else group[0] for group, lost in found)
    return Table(merged, column_names(rows))


def _image(row: Row) -> tuple[str, str]:
    return text(row, "file"), text(row, "prompt")


def _merged(frames: Sequence[Row], failed: Sequence[Row], columns: Collection[str]) -> Row:
    merged = {**frames[0], _FRAME: None, "reason": _reason(frames, failed)}
    more = [name for name in _AVERAGED if name in merged and all(_is_number(row.get(name)) for row in frames)]
    scores = dict.fromkeys((*columns, *more))
    ends = [f"{column}_{end}" for column in scores for end in ("low", "high")]
    for column in (*scores, *(end for end in ends if end in merged)):
        values = [value for row in frames if (value := number(row, column)) is not None]
        merged[column] = math.fsum(values) / len(values) if values else None
    return merged


def _is_number(cell: object) -> bool:
    """Return whether a cell is a number or empty; a column of this name may be another program's."""
    try:
        float(str(cell or 0))
    except ValueError:
        return False
    return True


def _reason(frames: Sequence[Row], failed: Sequence[Row]) -> str:
    """Return of how many frames a row is the mean, what was noted of them, and why others failed."""
    notes = Counter(note for row in frames for note in text(row, "reason").split("; ") if not _WHICH.fullmatch(note))
    del notes[""]
    said = [f"mean of {counted(len(frames), 'frame')}"]
    said += [note if count == len(frames) else f"{note} ({counted(count, 'frame')})" for note, count in notes.items()]
    whys = Counter(text(row, "reason") for row in failed)
    said += [f"{counted(count, 'frame')} failed: {why or 'no reason given'}" for why, count in whys.items()]
    return "; ".join(said)
