"""Rows of single frames -> one row per animated image."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mst_clipiqa.analysis.rows import Row, number, text

_FRAME = "frame"


def mean_of_frames(rows: Sequence[Row], columns: Collection[str]) -> list[Row]:
    """Return rows in which the frames of one file and prompt are one row, at the place of the first.

    Args:
        rows: rows of a table of scores; only those with a cell ``frame`` are merged.
        columns: scores, of which the mean over the frames is taken, and of their intervals' ends; all other cells are
            the first frame's.
    """
    if not any(_FRAME in row for row in rows):  # as in nearly every table
        return list(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for place, row in enumerate(rows):
        is_frame = text(row, _FRAME).strip() if _FRAME in row else ""
        key = (text(row, "file"), text(row, "prompt") if "prompt" in row else "") if is_frame else (str(place),)
        groups.setdefault(key, []).append(row)
    return [_merged(group, columns) if len(group) > 1 else group[0] for group in groups.values()]


def _merged(frames: Sequence[Row], columns: Collection[str]) -> Row:
    merged = {**frames[0], _FRAME: None}
    ends = [f"{column}_{end}" for column in columns for end in ("low", "high")]
    for column in (*columns, *(end for end in ends if end in merged)):
        values = [value for row in frames if (value := number(row, column)) is not None]
        merged[column] = sum(values) / len(values) if values else None
    return merged
