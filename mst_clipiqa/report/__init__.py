"""One self-contained page from a table of scores: images, distributions, generators, prompts, failures.

    data.py         rows -> what the page shows: of each image, and the overview
    overview.py     rows -> means with intervals, of all and of groups; best, worst and least certain images
    thumbnails.py   images -> small WebP files, as large as the page's size limit allows
    explanations.py some rows -> the explanations of their images
    page.py         data, thumbnails and explanations -> one HTML file that may not use a network
    page.html, page.css, script/   the page itself, assembled when it is written

Names and prompts are untrusted text: they are stored as JSON in a block that no browser runs, and the script of the
page shows them as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mst_clipiqa.analysis.images import ImageFinder
from mst_clipiqa.analysis.rows import LeftOut, Row, text
from mst_clipiqa.features.pipeline import Bar, no_bar
from mst_clipiqa.report.data import report_data
from mst_clipiqa.report.explanations import (
    EXPLANATION_SHARE,
    ExplainOptions,
    ExplanationBlocks,
    make_explanations,
    rows_to_explain,
)
from mst_clipiqa.report.page import Page, write_page
from mst_clipiqa.report.thumbnails import make_thumbnails

__all__ = ["ExplainOptions", "ReportOptions", "ReportSummary", "write_report"]

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ReportOptions:
    """Title and size of a report.

    Attributes:
        title: heading of the page.
        limit: largest size of the file, in bytes; thumbnails shrink to fit.
        ranges: the scale of each target; bars of one without run over the scores that occur.
        by: columns whose groups are compared, besides generators and prompts.
    """

    title: str = "Scores"
    limit: int = 38 * MEGABYTE
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportSummary:
    """What a report contains.

    Attributes:
        size: size of the file, in bytes.
        side: longer side of most thumbnails, in pixels.
        explained: number of images with an explanation.
        left_out: rows without a thumbnail or an explanation, with the reason.
    """

    size: int
    side: int
    explained: int
    left_out: list[LeftOut]


def write_report(
    rows: Sequence[Row],
    path: Path,
    *,
    folders: Sequence[Path] = (),
    options: ReportOptions | None = None,
    explain: ExplainOptions | None = None,
    bar: Bar = no_bar,
) -> ReportSummary:
    """Write the report.

    Args:
        rows: rows of a scores table, failed ones included.
        path: the HTML file; an existing one is replaced once the new one is complete.
        folders: where to look for images with relative names; without folders the report has no images.
        options: title and largest size.
        explain: which images to explain, and with which model; None for none.
        bar: opens a progress bar: ``bar(label, total)``.

    Raises:
        DataError: the table is empty, or a cell that should hold a number does not.
        UsageError: the file cannot be written, or ``options.limit`` is too small for the table alone.
    """
    options = options or ReportOptions()
    finder = ImageFinder(folders)
    found = [finder.find(text(row, "file")) if folders else None for row in rows]
    shown = report_data(rows, found, path.parent, options.title, ranges=options.ranges, by=options.by)
    why = ExplanationBlocks()
    if explain is not None:
        some = rows_to_explain(shown, rows, found, explain)
        if some:
            explain.begin(len(some))
        with bar("Explaining", len(some)) as advance:
            budget = options.limit // EXPLANATION_SHARE
            why = make_explanations(rows, found, some, explain, budget=budget, advance=advance)
    page = Page(shown, options.limit, why.blocks)
    order = page.image_order
    with bar("Thumbnails", sum(one is not None for one in found)) as advance:
        thumbnails = make_thumbnails([found[index] for index in order], page.budget, advance)
    left = [LeftOut(rows[index], reason) for index, reason in zip(order, thumbnails.reasons, strict=True) if reason]
    size = write_page(page, thumbnails, path)
    return ReportSummary(size, thumbnails.side, len(why.blocks), [*left, *why.left_out] if folders else [])
