"""What one actor does: load the model once, score parts, commit each by a rename."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from mst_clipiqa.distribute.listing import KINDS
from mst_clipiqa.distribute.plan import Partition
from mst_clipiqa.errors import ModelError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.inputs.item import Item, RemoteImage
from mst_clipiqa.scoring.controls import METADATA_SOURCE, Controls, ControlSources
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.scoring.score_rows import FurtherColumns, ScoreRow, columns, score_rows
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables import parquet
from mst_clipiqa.tables.atomic import atomic
from mst_clipiqa.tables.cells import plain


@dataclass(frozen=True)
class Work:
    """The settings of every actor."""

    output: str
    model: str
    options: ScoreOptions = field(default_factory=ScoreOptions)  # without a cache, which each actor opens for itself
    threads: int = 0  # of torch; 0 leaves it to torch
    cache: str | None = None  # folder of the feature cache, on every machine
    intervals: bool = False
    each_frame: bool = False  # whether rows have a column frame
    more: tuple[tuple[str, str], ...] = ()  # further columns and their kinds
    controls: ControlSources | None = None  # where controls come from, if any
    listed: tuple[str, ...] = ()  # columns of the list, from which controls may come
    sha256: str = ""  # of model, encoders and calibration: the same on every machine


class Worker:
    """What an actor does."""

    def __init__(self, work: Work) -> None:
        """Load the model; ModelError if this machine has another one."""
        import torch

        if work.threads:
            torch.set_num_threads(work.threads)
        self.work = work
        self.scorer = load_scorer(work)
        self.controls = None if work.controls is None else Controls(self.scorer, work.controls, work.listed)
        if work.sha256 != (found := scorer_sha256(self.scorer)):
            raise ModelError(
                f"Expected the model {work.sha256[:40]} on every machine, got {found[:40]}: copy it there."
            )

    @property
    def warning(self) -> str:
        """Why the feature cache is no longer used, or nothing."""
        cache = self.scorer.encoder.cache
        return (cache and cache.cache.given_up) or ""

    def score(self, partition: Partition) -> int:
        """Score one part and commit it, unless it exists; return the number of its rows."""
        path = Path(self.work.output) / partition.name
        if not path.exists():
            names = columns(self.scorer, intervals=self.work.intervals)
            names |= {"frame": int} if self.work.each_frame else {}
            names |= self.controls.columns if self.controls else {}
            names |= {name: KINDS[kind] for name, kind in self.work.more}
            further = FurtherColumns(_cells, self.controls)
            reads_texts = self.work.controls is not None and self.work.controls.negative_from == METADATA_SOURCE
            items = map(_fetched, partition.items) if reads_texts else partition.items
            scored = score_rows(self.scorer, items, intervals=self.work.intervals, more=further)
            rows = [[plain(row.get(name)) for name in names] for row in scored]
            with atomic(path, sync=True) as file:
                parquet.write(file, names, rows)
        return len(partition.items)


def _fetched(item: Item) -> Item:
    """Return an item at a URL with its file, which is read for its texts and again for its pixels."""
    if not isinstance(item.stored, RemoteImage):
        return item
    try:
        return replace(item, stored=item.stored.fetched())
    except OSError:  # which its row will say
        return item


def _cells(item: Item) -> ScoreRow:
    return dict(item.more) if item.frame is None else {**item.more, "frame": item.frame + 1}


def load_scorer(work: Work) -> Scorer:
    """Return the scorer that an actor uses."""
    return Scorer.load(work.model, work.options, cache=Cache(Path(work.cache)) if work.cache else None)
