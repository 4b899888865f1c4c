"""Scores as rows of a table; the columns are the same wherever one is written or read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mst_clipiqa._version import __version__
from mst_clipiqa.errors import as_reason
from mst_clipiqa.features.opened import AlreadyScored, Failed
from mst_clipiqa.features.pipeline import in_batches
from mst_clipiqa.images.options import Frame
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.scoring.answers import ANSWERS
from mst_clipiqa.scoring.controls import Controls
from mst_clipiqa.scoring.granularity import FINE
from mst_clipiqa.scoring.resume import STAMP, Earlier
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.cells import Cell, rounded
from mst_clipiqa.tables.stamps import stamp_of

ScoreRow = dict[str, Cell]

COLUMNS: dict[str, type] = {
    "file": str,
    "prompt": str,
    "quality": float,
    "correspondence": float,
    "gate": float,
    "familiarity": float,
    "status": str,
    "reason": str,
    "width": int,
    "height": int,
    "model": str,
}

LEVEL_COLUMNS = tuple(f"quality_{level}" for level in QUALITY_LEVELS)
"""Columns of the template probabilities, worst first."""


@dataclass(frozen=True)
class FurtherColumns:
    """What a row holds beside the scores.

    Attributes:
        cells: of an item, known before it is scored.
        controls: what else to ask of each image.
    """

    cells: Callable[[Item], ScoreRow] = lambda _: {}
    controls: Controls | None = None

    def of(self, item: Item) -> ScoreRow:
        """Return the further cells of an item's row, what is asked of it among them."""
        return self.cells(item) | (self.controls.asked(item.more, item.source) if self.controls else {})

    def stamp(self, item: Item, cells: ScoreRow) -> str | None:
        """Return the state of all files that decide an item's row; None if its own cannot be read."""
        stamp = _stamp(item)
        return stamp if stamp is None or self.controls is None else f"{stamp}-{self.controls.state(cells)}"


def columns(scorer: Scorer, *, intervals: bool = False) -> dict[str, type]:
    """Return the columns of a scorer's table: the fixed ones, further targets, and what else was asked for.

    The uncertainty is an interval for each target and, for a quality from templates, their probabilities and spread.
    """
    targets = scorer.model.config.targets
    more: dict[str, type] = {name: float for name in targets if name not in COLUMNS}
    if intervals:
        more |= {f"{name}_{end}": float for name in targets for end in ("low", "high")}
        if "quality" in targets and targets["quality"].head == "template":
            more |= dict.fromkeys(("quality_spread", *LEVEL_COLUMNS), float)
    if scorer.encoder.policy.described:
        more["granularity"] = str
    return COLUMNS | more


def origin(scorer: Scorer, names: Iterable[str]) -> dict[str, str]:
    """Return the settings that decide a scorer's rows; with others, rows may differ. A run adds its own options."""
    encoders = scorer.encoder.encoders
    return {
        "mst-clipiqa": __version__,
        "model": scorer.predictor.name,
        "granularity": scorer.encoder.policy.described or FINE,
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
    more: FurtherColumns | None = None,
) -> Iterator[ScoreRow]:
    """Yield one row per item, in order.

    Args:
        scorer: the model.
        items: what to score; an item with a problem becomes a row with that reason.
        intervals: add ``<target>_low`` and ``<target>_high``, the 90 % interval, if the model is calibrated, and
            ``quality_spread`` and ``LEVEL_COLUMNS`` if quality comes from templates.
        stamped: add the hidden column that tells a later run whether a file has changed.
        earlier: rows of earlier runs; those whose file has not changed are copied.
        more: further columns of each row.
    """
    further = more or FurtherColumns()
    batches = in_batches(items, scorer.encoder.batch_size)  # the batches that the encoder will make
    requests = (request for batch in batches for request in _requests(batch, further, stamped, earlier))
    for batch in scorer.batches(requests):
        rows = [
            request.tag
            if isinstance(request.image, AlreadyScored)
            else request.tag | to_row(str(request.tag["file"]), request.prompt, score, intervals=intervals)
            for request, _, score in batch
        ]
        yield from rows


def _requests(
    items: Sequence[Item], more: FurtherColumns, stamped: bool, earlier: Earlier | None
) -> Iterator[ScoreRequest[ScoreRow]]:
    """Yield the requests of one batch; their tags are rows, to be completed if they are new.

    If one row is new, the whole batch is scored: where rounding depends on the batch (an export, a GPU), a resumed run
    should still write what an undisturbed one writes. Failed rows are always tried again.
    """
    cells = [more.of(item) for item in items]
    stamps = [more.stamp(item, row) if stamped else None for item, row in zip(items, cells, strict=True)]
    pairs = list(zip(items, stamps, strict=True))
    known = [earlier.find(item.file, item.prompt, stamp) if earlier is not None else None for item, stamp in pairs]
    for (item, stamp), row, had in zip(pairs, cells, known, strict=True):
        hidden: ScoreRow = {STAMP: stamp} if stamped else {}
        if None not in known and had and had["status"] == "ok":
            yield ScoreRequest(AlreadyScored(_score(had)), item.prompt, {**had, **hidden, **row})
        else:
            asked = more.controls.request(row) if more.controls else {}
            yield ScoreRequest(_image(item), item.prompt, {**hidden, **row, "file": item.file}, **asked)


def _stamp(item: Item) -> str | None:
    """Return the state of an item's file, and which frame of it is meant."""
    stamp = stamp_of(item.opened)
    return stamp if stamp is None or item.frame is None else f"{stamp}-{item.frame}"


def _image(item: Item) -> object:
    """Return the image as the scorer takes it, or the reason why it cannot be opened."""
    source = item.source
    if source is None:
        return Failed(as_reason(item.problem or "no file"))
    return source if item.frame is None else Frame(source, item.frame)


def _score(row: ScoreRow) -> Score:
    """Return the score that a row holds, without what only its further columns say."""
    names = ("quality", "correspondence", "gate", "familiarity", "reason", "width", "height", "model", "granularity")
    fields: dict[str, Any] = {name: row[name] for name in names if row.get(name) is not None}
    return Score(**fields)


def to_row(file: str, prompt: str | None, score: Score, *, intervals: bool = False) -> ScoreRow:
    """Return one score as a row."""
    row: ScoreRow = {
        "file": file,
        "prompt": prompt,
        "quality": rounded(score.quality),
        "correspondence": rounded(score.correspondence),
        "gate": rounded(score.gate),
        "familiarity": rounded(score.familiarity),
        "status": score.status,
        "reason": score.reason or None,
        "width": score.width,
        "height": score.height,
        "model": score.model,
    }
    row |= {name: rounded(value) for name, value in score.targets.items() if name not in COLUMNS}
    row |= {
        name: rounded(answer) for names in ANSWERS for name in names if (answer := getattr(score, name)) is not None
    }
    if score.granularity is not None:
        row["granularity"] = score.granularity
    if intervals:
        for name in score.targets:
            low, high = score.intervals.get(name, (None, None))
            row |= {f"{name}_low": rounded(low), f"{name}_high": rounded(high)}
        if score.levels is not None:
            row["quality_spread"] = rounded(score.quality_spread)
            row |= {name: rounded(share) for name, share in zip(LEVEL_COLUMNS, score.levels, strict=True)}
    return row
