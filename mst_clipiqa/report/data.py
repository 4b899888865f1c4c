"""Rows of a scores table -> everything that the page shows, as plain lists for JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import quote

from mst_clipiqa.analysis.compare import TARGETS, longer_arm
from mst_clipiqa.analysis.images import RowImage
from mst_clipiqa.analysis.rows import Row, are_good, column_names, file_of, number, prompt_of, text
from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.evaluate.caution import is_unfamiliar
from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.report.overview import ReportTable, Values, overview
from mst_clipiqa.tables.cells import csv_cell, rounded
from mst_clipiqa.tables.spelling import slashed

ReportData = dict[str, Any]
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
    columns = column_names(rows)
    if set(columns).isdisjoint(TARGETS):
        raise DataError(
            f"Expected scores in a column {' or '.join(TARGETS)}, got a table with {shown(', '.join(columns))}: score "
            "its images first."
        )
    rows = list(rows)
    table = ReportTable(rows, are_good(rows))
    scores = {target: table.of_good(partial(_number, column=target)) for target in TARGETS}
    unsure, unsure_by = _uncertainty(table)
    names = _names(list(map(file_of, rows)))
    saved = {names["prefix"] + name for name in names["file"]} | {prompt_of(row) for row in rows}
    return {
        "title": title,
        "rows": len(rows),
        **names,
        "link": [_link(path, home) for path in found],
        **scores,
        **_cells(table),
        "unsure": unsure,
        "unsure_by": unsure_by,
        **overview(table, scores, unsure, by),
        "ranges": {target: list(scale) for target, scale in (ranges or {}).items()},
        "marked": sorted(value for value in saved if value and csv_cell(value) != value),
    }


def _number(row: Row, column: str) -> float | None:
    """Return a cell as the page has it."""
    return _rounded(number(row, column))


def _cells(table: ReportTable) -> ReportData:
    """Return the columns of the page beside each image's scores, name and link."""
    rows, familiarity = table.rows, table.familiarity
    has_familiarity = any(value is not None for value in familiarity)
    return {
        "ok": [int(ok) for ok in table.is_good],
        "gate": [_number(row, "gate") for row in rows],
        "size": [_size(row) for row in rows],
        "low_high": {t: _bounds(rows, t) for t in TARGETS},
        "level_names": QUALITY_LEVELS,
        "levels": _levels(rows),
        "spread": _spread(rows),
        "prompt": _coded([prompt_of(row) for row in rows]),
        "generator": _coded([text(row, "generator").strip() for row in rows]),
        "reason": _coded([text(row, "reason") for row in rows]),
        "familiarity": list(map(_rounded, familiarity)) if has_familiarity else None,
        "unfamiliar": [int(is_unfamiliar(value)) for value in familiarity] if has_familiarity else None,
        "extra": _extras(rows),
    }


def _names(files: Sequence[str]) -> dict[str, Any]:
    """Return the files without the folder that all are in, and that folder.

    Of an absolute folder only its own name is kept, because the page may be sent to others. A list of files that the
    page saves has the folder in front only if it is relative.
    """
    folders = [file[: file.rfind("/") + 1] for file in files]
    shared = os.path.commonprefix(folders)  # noqa: RUF071 - cut at a slash
    shared = shared[: shared.rfind("/") + 1]
    is_absolute = shared.startswith("/") or PureWindowsPath(shared).is_absolute()
    return {
        "file": [file[len(shared) :] for file in files],
        "folder": f"{shared.rstrip('/').rpartition('/')[2]}/" if is_absolute and shared != "/" else shared,
        "prefix": "" if is_absolute else shared,
    }


def _size(row: Row) -> str:
    width, height = number(row, "width"), number(row, "height")
    return f"{width:.0f} × {height:.0f}" if width and height else ""


def _link(path: RowImage | None, home: Path) -> str | None:
    """Return a relative link to a file, if there is one; it cannot begin with a scheme, whatever the file is called."""
    if not isinstance(path, Path):
        return None
    try:
        relative = slashed(os.path.relpath(path, home))
    except ValueError:  # it is on another drive
        return None
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
    return [[_number(row, low), _number(row, high)] for row in rows]


def _levels(rows: Sequence[Row]) -> list[list[int] | None] | None:
    """Return the probabilities of each row's quality levels in thousandths, or None if the table has none."""
    names = [f"quality_{level}" for level in QUALITY_LEVELS]
    if not any(name in row for row in rows for name in names):
        return None
    shares = [[number(row, name) for name in names] for row in rows]
    return [None if None in some else [round(1000 * (share or 0)) for share in some] for some in shares]


def _spread(rows: Sequence[Row]) -> Values | None:
    """Return the spread of each row's quality levels in native units, or None if the table has none."""
    if not any("quality_spread" in row for row in rows):
        return None
    return [_number(row, "quality_spread") for row in rows]


def _extras(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the columns that the page does not know, unchanged."""
    known = (
        _SHOWN_ELSEWHERE
        | {"generator", "quality_spread", "familiarity"}
        | {f"quality_{level}" for level in QUALITY_LEVELS}
    )
    known |= {f"{t}{end}" for t in TARGETS for end in ("_low", "_high")}
    return {name: [_cell(row.get(name)) for row in rows] for name in column_names(rows) if name not in known}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def _uncertainty(table: ReportTable) -> tuple[Values | None, str]:
    """Return the uncertainty of each score and the name of its measure, or None if the table has none.

    Intervals of the same width for all images do not rank them.
    """
    measures: list[tuple[str, Callable[[Row], float | None]]] = [
        ("spread of the quality levels", partial(number, column="quality_spread")),
        ("width of the quality interval", _width),
    ]
    for name, measure in measures:
        values = list(map(_rounded, table.of_good(measure)))
        known = [value for value in values if value is not None]
        if known and max(known) - min(known) > 1e-3:
            return values, name
    return None, ""


def _width(row: Row) -> float | None:
    """Return twice the longer arm of the quality interval."""
    value, low, high = (number(row, f"quality{end}") for end in ("", "_low", "_high"))
    return None if value is None or low is None or high is None else 2 * longer_arm(value, (low, high))
