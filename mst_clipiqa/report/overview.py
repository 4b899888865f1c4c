"""Rows of a scores table -> what the page shows of many images at once: means, groups, best and worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

from mst_clipiqa.analysis.rows import Row, number, prompt_of, text
from mst_clipiqa.evaluate.caution import is_unfamiliar
from mst_clipiqa.evaluate.means import mean_interval
from mst_clipiqa.evaluate.resampling import Resampling

STRIP_LENGTH = 12
"""Images in each strip of the overview: best, worst, least certain."""
BOOTSTRAP = Resampling(level=0.95, resamples=1000, seed=0)
Values: TypeAlias = list[float | None]
"""A number of each row; None where it has none."""


@dataclass(frozen=True)
class ReportTable:
    """The rows, and whether each of them was scored."""

    rows: Sequence[Row]
    is_good: Sequence[bool]

    def of_good(self, value: Callable[[Row], float | None]) -> Values:
        """Return a value of each row; None for one that was not scored."""
        return [value(row) if ok else None for row, ok in zip(self.rows, self.is_good, strict=True)]

    @cached_property
    def familiarity(self) -> Values:
        """The familiarity of each image, 0..1; None if it is unknown."""
        return self.of_good(partial(number, column="familiarity"))


def overview(table: ReportTable, scores: dict[str, Values], unsure: Values | None, by: Sequence[str]) -> dict[str, Any]:
    """Return means and groups with their intervals, and which images are best, worst and least certain.

    Args:
        table: the rows.
        scores: target -> its score of each row.
        unsure: how uncertain the score of each row is; None if that does not rank them.
        by: columns whose groups are compared, besides generators and prompts.
    """
    return {
        "overall": _means(scores, range(len(table.rows)), _groups(table.rows)),
        "generators": _lines(table, scores, "generator"),
        "prompts": _lines(table, scores, "prompt"),
        "by": [{"column": column, "lines": _lines(table, scores, column)} for column in by],
        "correlation": _correlation(scores),
        "strips": _strips(scores, unsure),
    }


def _groups(rows: Sequence[Row]) -> list[str]:
    """Return the group that each row is resampled with: its prompt, else its image."""
    return [prompt_of(row) or image for row, image in zip(rows, _images(rows), strict=True)]


def _images(rows: Sequence[Row]) -> list[str]:
    """Return the image of each row: its file, of which it may be one frame, else the row itself."""
    return [f"file {text(row, 'file')}" if text(row, "file") else f"row {index}" for index, row in enumerate(rows)]


def _means(scores: dict[str, Values], members: Sequence[int], groups: Sequence[str]) -> dict[str, list[float | None]]:
    """Return [mean, low, high, count] of each score over the rows ``members``."""
    found: dict[str, list[float | None]] = {}
    for target, values in scores.items():
        here = [(index, value) for index in members if (value := values[index]) is not None]
        if not here:
            found[target] = [None, None, None, 0]
            continue
        result = mean_interval([value for _, value in here], [groups[index] for index, _ in here], BOOTSTRAP)
        bounds = [None if math.isnan(end) else round(end, 4) for end in (result.low, result.high)]
        found[target] = [round(result.value, 4), *bounds, len(here)]
    return found


def _lines(table: ReportTable, scores: dict[str, Values], column: str) -> list[dict[str, Any]]:
    """Return one line per value of a column, such as a generator; images of one prompt are resampled individually."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        if name := text(row, column).strip():
            members.setdefault(name, []).append(index)
    groups = _images(table.rows) if column == "prompt" else _groups(table.rows)
    return [
        {
            "name": name,
            "rows": len(some),
            "failed": sum(not table.is_good[i] for i in some),
            "unfamiliar": sum(is_unfamiliar(table.familiarity[i]) for i in some),
            **_means(scores, some, groups),
        }
        for name, some in members.items()
    ]


def _correlation(scores: dict[str, Values]) -> float | None:
    """Return the SRCC of quality and correspondence, or None with fewer than three rows that have both."""
    from mst_clipiqa.evaluate.measures import srcc, why_undefined

    pairs = [(q, c) for q, c in zip(*scores.values(), strict=True) if q is not None and c is not None]
    if len(pairs) < 3:
        return None
    quality, correspondence = zip(*pairs, strict=True)
    return None if why_undefined(quality, correspondence) else round(srcc(quality, correspondence), 3)


def _strips(scores: dict[str, Values], unsure: Values | None) -> list[dict[str, Any]]:
    """Return the rows that the overview shows as images."""
    strips = []
    for target, values in scores.items():
        best = _ordered(values)
        half = (len(best) + 1) // 2  # so that no image of a small table is both among the best and among the worst
        ends = {"Best": best[:half], "Worst": best[half:][::-1]}
        strips += [
            {"name": f"{end} {target}", "by": target, "rows": rows[:STRIP_LENGTH]} for end, rows in ends.items() if rows
        ]
    if unsure is not None:
        strips.append({"name": "Least certain", "by": "unsure", "rows": _ordered(unsure)[:STRIP_LENGTH]})
    return strips


def _ordered(values: Sequence[float | None]) -> list[int]:
    """Return the indices of the rows with a value, highest first, ties in order."""
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    return [index for index, _ in sorted(known, key=lambda pair: -pair[1])]
