"""One self-contained page from a scores table: pictures, distributions, generators, prompts, failures.

    facts.py        rows to what the page shows: columns, means with intervals, who is best, worst, least sure
    thumbnails.py   pictures to small WebP files, as large as the page's budget allows
    page.py         facts and thumbnails to one HTML file that may reach no network
    page.html, page.css, page.js   the page itself, put together when it is written

Names and prompts are foreign text: they travel as JSON in a block that no browser runs, and the script of the page
puts them on screen as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.report.facts import facts
from mst_clipiqa.report.page import Page, write_page
from mst_clipiqa.report.thumbnails import make_thumbnails
from mst_clipiqa.verbs.scores import LeftOut, Row, find_picture, text

__all__ = ["Written", "write_report"]

MEGABYTE = 1_000_000
NOT_FOUND = "its picture is not found"


@dataclass(frozen=True)
class Written:
    """What a report came to: bytes on disk, longer side of its thumbnails, and the rows without a picture."""

    size: int
    side: int
    left_out: list[LeftOut]


def write_report(
    rows: Sequence[Row],
    path: Path,
    *,
    folders: Sequence[Path] = (),
    title: str = "Scores",
    limit: int = 38 * MEGABYTE,
    advance: Callable[[int], None] = lambda count: None,
) -> Written:
    """Write the page.

    Args:
        rows: rows of a scores table, failed ones included.
        path: the HTML file; an older one is replaced once the new one is complete.
        folders: where to look for pictures that are named relatively; none at all leaves pictures out.
        title: heading of the page.
        limit: largest size of the file, in bytes; thumbnails shrink to keep it.
        advance: called with the number of pictures done.

    Raises:
        DataError: there is no row, or a cell that should hold a number does not.
        UsageError: the file cannot be written, or ``limit`` is too small for the table alone.
    """
    found = [find_picture(text(row, "file"), folders) if folders else None for row in rows]
    page = Page(facts(rows, found, path.parent, title), limit)
    order = page.picture_order
    thumbnails = make_thumbnails([found[index] for index in order], page.budget, advance)
    left = [LeftOut(rows[index], reason) for index, reason in zip(order, thumbnails.reasons, strict=True) if reason]
    size = write_page(page, thumbnails, path)
    return Written(size, thumbnails.side, left if folders else [])
