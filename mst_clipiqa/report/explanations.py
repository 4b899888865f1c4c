"""Rows -> explanations in the page: maps as small images; levels, streams and words as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mst_clipiqa.analysis.images import RowImage
from mst_clipiqa.analysis.rows import LeftOut, Row, number, prompt_of, text
from mst_clipiqa.errors import ImageError, PromptError, as_reason
from mst_clipiqa.report.data import ReportData
from mst_clipiqa.report.page import to_block
from mst_clipiqa.report.thumbnails import webp
from mst_clipiqa.scoring.granularity import without_setting

if TYPE_CHECKING:
    from mst_clipiqa.explain import Explanation
    from mst_clipiqa.scoring.scorer import Scorer

MAP_SIDE, MAP_QUALITY = 320, 60
"""Longer side of a map in pixels, and its WebP quality."""
EXPLANATION_SHARE = 4
"""Explanations take at most one part in this many of the page."""
SCORE_TOLERANCE = 0.02
"""Largest difference between the explained score and the table's, as a share of the scale."""


@dataclass(frozen=True)
class ExplainOptions:
    """Which images of a report are explained, and with which model.

    Attributes:
        scorer: the model that scored the table; rows of other models are skipped.
        each: number of images at the start of each strip: best, worst, least certain.
        begin: called with the number of images before the first is explained; not called without any.
    """

    scorer: Scorer
    each: int
    begin: Callable[[int], None] = lambda count: None


@dataclass
class ExplanationBlocks:
    """The explanations of a report.

    Attributes:
        blocks: JSON by row index.
        left_out: rows that could not be explained, with the reason.
    """

    blocks: dict[int, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def rows_to_explain(
    data: ReportData, rows: Sequence[Row], found: Sequence[RowImage | None], options: ExplainOptions
) -> list[int]:
    """Return the indices of the rows to explain: those of this model with an image, each once."""
    model = options.scorer.model.config.name
    order = dict.fromkeys(row for strip in data["strips"] for row in strip["rows"][: options.each])
    return [row for row in order if found[row] is not None and without_setting(text(rows[row], "model")) == model]


def make_explanations(
    rows: Sequence[Row],
    found: Sequence[RowImage | None],
    some: Sequence[int],
    options: ExplainOptions,
    *,
    budget: int,
    advance: Callable[[int], None] = lambda count: None,
) -> ExplanationBlocks:
    """Explain some rows.

    Args:
        rows: all rows of the table.
        found: each row's image, or None.
        some: indices of the rows to explain.
        options: the model.
        budget: characters for all explanations.
        advance: called with the number of rows done.
    """
    why, spent = ExplanationBlocks(), 0
    for row in some:
        try:
            block = _block(rows[row], found[row], options.scorer)
        except ImageError:
            pass  # its thumbnail has the reason
        except PromptError as error:
            why.left_out.append(LeftOut(rows[row], f"not explained: {as_reason(error)}"))
        else:
            if spent + len(block) > budget:
                why.left_out.append(LeftOut(rows[row], "not explained: the page has no room for more"))
            else:
                why.blocks[row] = block
                spent += len(block)
        advance(1)
    return why


def _block(row: Row, path: RowImage | None, scorer: Scorer) -> str:
    """Return one explanation; PromptError if its score differs from the table's."""
    from mst_clipiqa.explain import explain

    explained = explain(scorer, path, prompt_of(row) or None)
    for name, now in explained.score.targets.items():
        then, (low, high) = number(row, name), explained.score.ranges[name]
        if now is not None and then is not None and abs(now - then) > SCORE_TOLERANCE * (high - low):
            found = f"{then:.2f}, got {now:.2f} now"
            raise PromptError(f"Expected the {name} of the table, {found}: score the image again.")
    return to_block(explanation_data(explained))


def explanation_data(found: Explanation) -> dict[str, Any]:
    """Return what the page shows of an explanation, for ``json.dumps``."""
    from mst_clipiqa.explain.results import ENCODER_STREAMS

    target = "quality" if "quality" in found.maps else next(iter(found.maps))
    return {
        "target": target,
        "maps": [
            {
                "stream": stream,
                "words": found.maps[target].sentence(stream, target),
                "image": webp(found.overlay(stream, target, MAP_SIDE), MAP_QUALITY),
            }
            for stream in ("both", *ENCODER_STREAMS)
        ],
        "levels": None if found.score.levels is None else [round(1000 * p) for p in found.score.levels],
        "streams": [found.fusion[name].sentence(name) for name in found.fusion],
        "words": {
            name: [
                [word.text, round(word.effect, 3), None if word.attention is None else round(word.attention, 3)]
                for word in words
            ]
            for name, words in found.words.items()
        },
    }
