"""Scores as rows of a table: the same columns wherever a table of scores is written or read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mst_clipiqa._version import __version__
from mst_clipiqa.features.image_encoder import Failed
from mst_clipiqa.features.pipeline import in_batches
from mst_clipiqa.inputs.expand import Item
from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.scoring.resume import STAMP, Earlier, stamp_of
from mst_clipiqa.scoring.scorer import Request, Score, Scorer
from mst_clipiqa.tables.cells import Cell, rounded

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


LEVELS = tuple(f"quality_{level}" for level in QUALITY_LEVELS)
"""Columns of the template probabilities, worst first."""


def columns(scorer: Scorer, *, intervals: bool = False) -> dict[str, type]:
    """Return the columns of a scorer's table: the fixed ones, further targets, and where asked how sure each score is.

    How sure: the interval of each target, and for a quality that comes from templates their probabilities and spread.
    """
    targets = scorer.model.config.targets
    more: dict[str, type] = {name: float for name in targets if name not in COLUMNS}
    if intervals:
        more |= {f"{name}_{end}": float for name in targets for end in ("low", "high")}
        if "quality" in targets and targets["quality"].head == "template":
            more |= dict.fromkeys(("quality_spread", *LEVELS), float)
    return COLUMNS | more


def origin(scorer: Scorer, names: Iterable[str]) -> dict[str, str]:
    """Return what of a scorer decides its rows: those of another origin differ. A run adds its own options."""
    encoders = scorer.encoder.encoders
    return {
        "mst-clipiqa": __version__,
        "model": scorer.model.config.name,
        "model sha256": scorer.model.sha256,
        "encoders sha256": encoders.sha256,
        "precision": encoders.precision,
        "device": encoders.device.type,
        "columns": ", ".join(names),
    }


def score_rows(
    scorer: Scorer,
    items: Iterable[Item],
    *,
    intervals: bool = False,
    stamped: bool = False,
    earlier: Earlier | None = None,
) -> Iterator[Row]:
    """Score items as a stream of rows, one an item, in their order.

    Args:
        scorer: the model.
        items: what to score; an item with a problem becomes a row with that reason.
        intervals: add ``<target>_low`` and ``<target>_high``, the 90 % interval, where the model is calibrated, and
            ``quality_spread`` and the columns ``LEVELS``, where quality comes from templates.
        stamped: add the hidden column by which a later run knows whether a file has changed.
        earlier: rows that are copied, not scored, where their file is as it was then.
    """
    waiting: deque[_Place] = deque()

    def requests() -> Iterator[Request]:
        for batch in in_batches(items, scorer.encoder.batch_size):  # as the encoder will make them
            for place in _places(batch, stamped, earlier):
                waiting.append(place)
                yield place.request

    for score in scorer.many(requests()):
        place = waiting.popleft()
        row = place.known or to_row(place.item.file, place.item.prompt, score, intervals=intervals)
        yield row | {STAMP: place.stamp} if stamped else row


@dataclass(frozen=True)
class _Place:
    """An item on its way, the state of its file, and its row where that is known."""

    item: Item
    stamp: str | None
    known: Row | None

    @property
    def request(self) -> Request:
        """What to ask: a known row rides along as an image that is not opened, so order and memory stay."""
        item = self.item
        reason = item.problem or ("no file" if item.path is None else "known" if self.known else None)
        return Request(Failed(reason) if reason else item.path, item.prompt)


def _places(items: Sequence[Item], stamped: bool, earlier: Earlier | None) -> list[_Place]:
    """Return one batch of items with what is known of them.

    Where one row is new, the whole batch is scored: the last digit of a score is rounding noise that depends on the
    batch, and a run that goes on should write what an undisturbed one writes. What failed is always tried again.
    """
    stamps = [stamp_of(item.path) if stamped else None for item in items]
    if earlier is None:
        return [_Place(item, stamp, None) for item, stamp in zip(items, stamps, strict=True)]
    known = [earlier.find(item.file, item.prompt, stamp) for item, stamp in zip(items, stamps, strict=True)]
    keep = None not in known
    rows = [row if keep and row and row["status"] == "ok" else None for row in known]
    return [_Place(*place) for place in zip(items, stamps, rows, strict=True)]


def to_row(file: str, prompt: str | None, score: Score, *, intervals: bool = False) -> Row:
    """Return one score as a row."""
    row: Row = {
        "file": file,
        "prompt": prompt,
        "quality": rounded(score.quality),
        "correspondence": rounded(score.correspondence),
        "gate": rounded(score.gate),
        "status": score.status,
        "reason": score.reason or None,
        "width": score.width,
        "height": score.height,
        "model": score.model,
    }
    row |= {name: rounded(value) for name, value in score.targets.items() if name not in COLUMNS}
    if intervals:
        for name in score.targets:
            low, high = score.intervals.get(name, (None, None))
            row |= {f"{name}_low": rounded(low), f"{name}_high": rounded(high)}
        if score.levels is not None:
            row["quality_spread"] = rounded(score.quality_spread)
            row |= {name: rounded(share) for name, share in zip(LEVELS, score.levels, strict=True)}
    return row
