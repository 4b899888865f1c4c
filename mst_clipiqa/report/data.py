"""Rows of a scores table -> everything that the page shows, as plain lists for JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.images import RowImage
from mst_clipiqa.analysis.rows import Row, number, split_failed, text
from mst_clipiqa.analysis.unfamiliar import is_unfamiliar
from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.evaluate.means import mean_interval
from mst_clipiqa.evaluate.resampling import Resampling
from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.tables.cells import csv_cell, rounded

ReportData = dict[str, Any]
STRIP_LENGTH = 12
"""Images in each strip of the overview: best, worst, least certain."""
BOOTSTRAP = Resampling(level=0.95, resamples=1000, seed=0)
_rounded = partial(rounded, digits=4)
_SHOWN_ELSEWHERE = {"file", "prompt", "quality", "correspondence", "gate", "status", "reason", "width", "height"}


def report_data(
    rows: Sequence[Row],
    found: Sequence[RowImage | None],
    home: Path,
    title: str,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    by: Sequence[str] = (),
) -> ReportData:
    """Return what the page shows.

    Args:
        rows: all rows of the table.
        found: each row's image, or None.
        home: the folder of the page; links to images are relative to it.
        title: heading of the page.
        ranges: the scale of each target; bars of one without run over the scores that occur.
        by: columns whose groups are compared, besides generators and prompts.

    Raises:
        DataError: the table is empty or has no scores, or a cell that should hold a number does not.
    """
    if not rows:
        raise DataError("Expected a table with rows to report on, got none: score some images first.")
    columns = dict.fromkeys(name for row in rows for name in row)
    if columns.keys().isdisjoint(TARGETS):
        raise DataError(
            f"Expected scores in a column {' or '.join(TARGETS)}, got a table with {shown(', '.join(columns))}: score "
            "its images first."
        )
    good = {id(row) for row in split_failed(rows)[0]}
    is_good = [id(row) in good for row in rows]
    scores = _scores(rows, is_good)
    unsure, unsure_by = _uncertainty(rows, is_good)
    familiarity = [number(row, "familiarity") if ok else None for row, ok in zip(rows, is_good, strict=True)]
    has_familiarity = any(value is not None for value in familiarity)
    unfamiliar = [is_unfamiliar(value) for value in familiarity]
    names = _names([text(row, "file") for row in rows])
    saved = {names["prefix"] + name for name in names["file"]} | {text(row, "prompt").strip() for row in rows}
    return {
        "title": title,
        "rows": len(rows),
        "ok": [int(ok) for ok in is_good],
        **names,
        "link": [_link(path, home) for path in found],
        **scores,
        "gate": [_rounded(number(row, "gate")) for row in rows],
        "size": [_size(row) for row in rows],
        "low_high": {t: _bounds(rows, t) for t in TARGETS},
        "level_names": QUALITY_LEVELS,
        "levels": _levels(rows),
        "spread": _spread(rows),
        "unsure": unsure,
        "unsure_by": unsure_by,
        "prompt": _coded([text(row, "prompt").strip() for row in rows]),
        "generator": _coded([text(row, "generator").strip() for row in rows]),
        "reason": _coded([text(row, "reason") for row in rows]),
        "familiarity": [_rounded(value) for value in familiarity] if has_familiarity else None,
        "unfamiliar": [int(one) for one in unfamiliar] if has_familiarity else None,
        "extra": _extras(rows),
        "overall": _means(scores, range(len(rows)), _groups(rows)),
        "generators": _table(rows, scores, is_good, unfamiliar, "generator"),
        "prompts": _table(rows, scores, is_good, unfamiliar, "prompt"),
        "by": [{"column": column, "lines": _table(rows, scores, is_good, unfamiliar, column)} for column in by],
        "ranges": {target: list(scale) for target, scale in (ranges or {}).items()},
        "correlation": _correlation(scores),
        "marked": sorted(value for value in saved if value and csv_cell(value) != value),
        "strips": _strips(scores["quality"], scores["correspondence"], unsure),
    }


def _scores(rows: Sequence[Row], is_good: Sequence[bool]) -> dict[str, list[float | None]]:
    return {
        t: [_rounded(number(row, t)) if ok else None for row, ok in zip(rows, is_good, strict=True)] for t in TARGETS
    }


def _names(files: Sequence[str]) -> dict[str, Any]:
    """Return the files without the folder that all are in, and that folder.

    Of an absolute folder only its own name is kept, because the page may be sent to others. A list of files that the
    page saves has the folder in front only if it is relative.
    """
    folders = [file[: file.rfind("/") + 1] for file in files]
    shared = os.path.commonprefix(folders)  # noqa: RUF071 - cut at a slash
    shared = shared[: shared.rfind("/") + 1]
    is_absolute = shared.startswith("/")
    return {
        "file": [file[len(shared) :] for file in files],
        "folder": f"{shared.rstrip('/').rpartition('/')[2]}/" if is_absolute and shared != "/" else shared,
        "prefix": "" if is_absolute else shared,
    }


def _size(row: Row) -> str:
    width, height = number(row, "width"), number(row, "height")
    return f"{width:.0f} × {height:.0f}" if width and height else ""


def _link(path: RowImage | None, home: Path) -> str | None:
    """Return a relative link to a file; it cannot begin with a scheme, whatever the file is called."""
    if not isinstance(path, Path):
        return None
    relative = os.path.relpath(path, home).replace(os.sep, "/")
    return "./" + quote(relative, safe="/", errors="surrogateescape")


def _coded(values: Sequence[str]) -> dict[str, list[Any]]:
    """Return the distinct texts and one index per row, because prompts repeat; "" has the index -1."""
    codes: dict[str, int] = {}
    of = [codes.setdefault(value, len(codes)) if value else -1 for value in values]
    return {"names": list(codes), "of": of}


def _bounds(rows: Sequence[Row], target: str) -> list[list[float | None]] | None:
    """Return the calibrated interval of each row, or None if the table has none."""
    low, high = f"{target}_low", f"{target}_high"
    if not any(low in row and high in row for row in rows):
        return None
    return [[_rounded(number(row, low)), _rounded(number(row, high))] for row in rows]


def _levels(rows: Sequence[Row]) -> list[list[int] | None] | None:
    """Return the probabilities of each row's quality levels in thousandths, or None if the table has none."""
    names = [f"quality_{level}" for level in QUALITY_LEVELS]
    if not any(name in row for row in rows for name in names):
        return None
    shares = [[number(row, name) for name in names] for row in rows]
    return [None if None in some else [round(1000 * (share or 0)) for share in some] for some in shares]


def _spread(rows: Sequence[Row]) -> list[float | None] | None:
    """Return the spread of each row's quality levels in native units, or None if the table has none."""
    if not any("quality_spread" in row for row in rows):
        return None
    return [_rounded(number(row, "quality_spread")) for row in rows]


def _extras(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the columns that the page does not know, unchanged."""
    known = (
        _SHOWN_ELSEWHERE
        | {"generator", "quality_spread", "familiarity"}
        | {f"quality_{level}" for level in QUALITY_LEVELS}
    )
    known |= {f"{t}{end}" for t in TARGETS for end in ("_low", "_high")}
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in known]
    return {name: [_cell(row.get(name)) for row in rows] for name in names}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _uncertainty(rows: Sequence[Row], is_good: Sequence[bool]) -> tuple[list[float | None] | None, str]:
    """Return the uncertainty of each score and the name of its measure, or None if the table has none.

    Intervals of the same width for all images do not rank them.
    """
    measures: list[tuple[str, Callable[[Row], float | None]]] = [
        ("spread of the quality levels", lambda row: number(row, "quality_spread")),
        ("width of the quality interval", _width),
    ]
    for name, measure in measures:
        values = [_rounded(measure(row)) if ok else None for row, ok in zip(rows, is_good, strict=True)]
        known = [value for value in values if value is not None]
        if known and max(known) - min(known) > 1e-3:
            return values, name
    return None, ""


def _width(row: Row) -> float | None:
    """Return twice the longer arm of the quality interval: the scale's end may cut the other arm."""
    value, low, high = (number(row, f"quality{end}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return None
    return 2 * max(value - low, high - value)


def _groups(rows: Sequence[Row]) -> list[str]:
    """Return the group that each row is resampled with: its prompt, else its image."""
    return [text(row, "prompt").strip() or image for row, image in zip(rows, _images(rows), strict=True)]


def _images(rows: Sequence[Row]) -> list[str]:
    """Return the image of each row: its file, of which it may be one frame, else the row itself."""
    return [f"file {text(row, 'file')}" if text(row, "file") else f"row {index}" for index, row in enumerate(rows)]


def _means(
    scores: dict[str, list[float | None]], members: Sequence[int], groups: Sequence[str]
) -> dict[str, list[float | None]]:
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


def _table(
    rows: Sequence[Row],
    scores: dict[str, list[float | None]],
    is_good: Sequence[bool],
    unfamiliar: Sequence[bool],
    column: str,
) -> list[dict[str, Any]]:
    """Return one line per generator or prompt; images of the same prompt are resampled individually."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if name := text(row, column).strip():
            members.setdefault(name, []).append(index)
    groups = _images(rows) if column == "prompt" else _groups(rows)
    return [
        {
            "name": name,
            "rows": len(some),
            "failed": sum(not is_good[i] for i in some),
            "unfamiliar": sum(unfamiliar[i] for i in some),
            **_means(scores, some, groups),
        }
        for name, some in members.items()
    ]


def _correlation(scores: dict[str, list[float | None]]) -> float | None:
    """Return the SRCC of quality and correspondence, or None with fewer than three rows that have both."""
    from mst_clipiqa.evaluate.measures import srcc, why_undefined

    pairs = [(q, c) for q, c in zip(*scores.values(), strict=True) if q is not None and c is not None]
    if len(pairs) < 3:
        return None
    quality, correspondence = zip(*pairs, strict=True)
    return None if why_undefined(quality, correspondence) else round(srcc(quality, correspondence), 3)


def _strips(
    quality: list[float | None], correspondence: list[float | None], unsure: list[float | None] | None
) -> list[dict[str, Any]]:
    """Return the rows that the overview shows as images."""
    strips = []
    for target, values in (("quality", quality), ("correspondence", correspondence)):
        best = _ordered(values)
        if best:
            strips += [
                {"name": f"Best {target}", "by": target, "rows": best[:STRIP_LENGTH]},
                {"name": f"Worst {target}", "by": target, "rows": best[::-1][:STRIP_LENGTH]},
            ]
    if unsure is not None:
        strips.append({"name": "Least certain", "by": "unsure", "rows": _ordered(unsure)[:STRIP_LENGTH]})
    return strips


def _ordered(values: Sequence[float | None]) -> list[int]:
    """Return the indices of the rows with a value, highest first, ties in order."""
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    return [index for index, _ in sorted(known, key=lambda pair: -pair[1])]
