"""Scores as rows of a table: the same columns wherever a table of scores is written or read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from mst_clipiqa.encode import Failed
from mst_clipiqa.inputs import Item
from mst_clipiqa.scorer import Request, Score, Scorer
from mst_clipiqa.tables import Cell

Row = dict[str, Cell]

COLUMNS: dict[str, type] = {
    "file": str,
    "prompt": str,
    "quality": float,
    "correspondence": float,
    "gate": float,
    "status": str,
    "reason": str,
    "width": int,
    "height": int,
    "model": str,
}


def columns(scorer: Scorer, *, intervals: bool = False) -> dict[str, type]:
    """Return the columns of a scorer's table: the fixed ones, then further targets, then intervals where asked."""
    targets = scorer.model.config.targets
    more: dict[str, type] = {name: float for name in targets if name not in COLUMNS}
    if intervals:
        more |= {f"{name}_{end}": float for name in targets for end in ("low", "high")}
    return COLUMNS | more


def score_rows(scorer: Scorer, items: Iterable[Item], *, intervals: bool = False) -> Iterator[Row]:
    """Score items as a stream of rows, one an item, in their order.

    Args:
        scorer: the model.
        items: what to score; an item with a problem becomes a row with that reason.
        intervals: add ``<target>_low`` and ``<target>_high``, the 90 % interval, where the model is calibrated.
    """
    waiting: deque[Item] = deque()

    def requests() -> Iterator[Request]:
        for item in items:
            waiting.append(item)
            picture = Failed(item.problem or "no file") if item.problem or item.path is None else item.path
            yield Request(picture, item.prompt)

    for score in scorer.many(requests()):
        item = waiting.popleft()
        yield to_row(item.file, item.prompt, score, intervals=intervals)


def to_row(file: str, prompt: str | None, score: Score, *, intervals: bool = False) -> Row:
    """Return one score as a row."""
    row: Row = {
        "file": file,
        "prompt": prompt,
        "quality": _rounded(score.quality),
        "correspondence": _rounded(score.correspondence),
        "gate": _rounded(score.gate),
        "status": score.status,
        "reason": score.reason or None,
        "width": score.width,
        "height": score.height,
        "model": score.model,
    }
    row |= {name: _rounded(value) for name, value in score.targets.items() if name not in COLUMNS}
    if intervals:
        for name in score.targets:
            low, high = score.intervals.get(name, (None, None))
            row |= {f"{name}_low": _rounded(low), f"{name}_high": _rounded(high)}
    return row


def _rounded(value: float | None) -> float | None:
    """Return a score without the digits that are rounding noise of the arithmetic."""
    return None if value is None else round(value, 6)
