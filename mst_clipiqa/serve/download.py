"""Rows that the page sends back -> a CSV table or a report, made in memory.

They are as untrusted as any file: cells follow the table's rules (no formula reaches a spreadsheet), and the report
shows text as text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.errors import Rejected
from mst_clipiqa.report.data import report_data
from mst_clipiqa.report.page import Page
from mst_clipiqa.report.thumbnails import Thumbnails
from mst_clipiqa.scoring.score_rows import COLUMNS, LEVEL_COLUMNS
from mst_clipiqa.tables.cells import csv_header, csv_row, whole_as_int

_MAX_ROWS = 20_000
_MAX_COLUMNS = 200  # each adds a cell to every row
_SPACE = 64 * 10**6  # bytes of a report, far more than a body can fill


class DownloadBody(BaseModel):
    """A JSON body of /v1/download: rows of results to turn into a file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    format: Literal["csv", "html"]
    rows: list[Annotated[dict[str, str | float | None], FailFast()]] = Field(
        min_length=1, max_length=_MAX_ROWS, fail_fast=True
    )
    thumbnails: list[str] = Field(
        [], description="One per row: WebP in base64, or empty; for html.", max_length=_MAX_ROWS, fail_fast=True
    )
    title: str = Field("Scores", max_length=200)


def make_download(asked: DownloadBody, ranges: Mapping[str, tuple[float, float]]) -> tuple[bytes, str]:
    """Return a file and its media type; Rejected for too many columns, or thumbnails that do not fit the rows.

    ``ranges`` holds the scale of each of the model's targets.
    """
    columns = COLUMNS.keys() | {name for row in asked.rows for name in row}
    if len(columns) > _MAX_COLUMNS:
        raise Rejected(422, f"Expected at most {_MAX_COLUMNS} columns, got {len(columns):,}: send fewer.")
    if asked.format == "csv":
        return _table(asked), "text/csv; charset=utf-8"
    return _report(asked, ranges), "text/html; charset=utf-8"


def _table(asked: DownloadBody) -> bytes:
    more = list(dict.fromkeys(name for row in asked.rows for name in row if name not in COLUMNS))
    ends = [name for target in TARGETS for name in (f"{target}_low", f"{target}_high")]
    order = [*ends, "quality_spread", *LEVEL_COLUMNS]  # as the command has them
    columns = [*COLUMNS, *(name for name in more if name not in order), *(name for name in order if name in more)]
    counts = {name for name, kind in COLUMNS.items() if kind is int}
    rows = ({name: whole_as_int(cell) if name in counts else cell for name, cell in row.items()} for row in asked.rows)
    return csv_header(columns) + b"".join(csv_row(row, columns) for row in rows)


def _report(asked: DownloadBody, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    images = asked.thumbnails or [""] * len(asked.rows)
    if len(images) != len(asked.rows):
        raise Rejected(
            422, f"Expected a thumbnail for each of {len(asked.rows)} rows, got {len(images)}: send one per row."
        )
    shown = report_data(asked.rows, [None] * len(asked.rows), Path(), asked.title, ranges=ranges)
    page = Page(shown, _SPACE)
    images = [_checked(images[row]) for row in page.image_order]
    return b"".join(page.parts(Thumbnails(images, [""] * len(images), 0)))


def _checked(image: str) -> str:
    """Return a thumbnail encoded anew, so that nothing but base64 of WebP gets into the page."""
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(422, "Expected thumbnails in base64, got other text: encode them.") from error
    if data and not (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        raise Rejected(422, "Expected thumbnails in WebP, got another format: convert them.")
    return base64.b64encode(data).decode("ascii")
