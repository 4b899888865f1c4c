"""What one actor does: load the model once, score parts, commit each by a rename."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from mst_clipiqa.distribute.listing import type_of
from mst_clipiqa.distribute.plan import Partition, Source
from mst_clipiqa.errors import ModelError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import Failed
from mst_clipiqa.images.files import MAX_BYTES
from mst_clipiqa.images.options import Frame
from mst_clipiqa.scoring.controls import Controls, ControlSources
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.reloading import sha256
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.score_rows import columns, to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables import parquet
from mst_clipiqa.tables.atomic import atomic
from mst_clipiqa.tables.cells import Cell, plain
from mst_clipiqa.tables.parquet_images import ParquetImage


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
    """The actor: Ray calls it with batches of parts."""

    def __init__(self, work: Work) -> None:
        """Load the model; ModelError if this machine has another one."""
        import torch

        if work.threads:
            torch.set_num_threads(work.threads)
        self.work = work
        self.scorer = load(work)
        self.controls = None if work.controls is None else Controls(self.scorer, work.controls, work.listed)
        if work.sha256 != (found := sha256(self.scorer)):
            raise ModelError(
                f"Expected the model {work.sha256[:40]} on every machine, got {found[:40]}: copy it there."
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score the parts of a batch; return a row of counts for each."""
        done = [self.score(Partition.from_json(str(text))) for text in batch["part"]]
        return {name: [counts[name] for counts in done] for name in ("name", "rows", "seconds")}

    def score(self, partition: Partition) -> dict[str, Any]:
        """Score one part and commit it; a part that exists is not scored again."""
        began = monotonic()
        path = Path(self.work.output) / partition.name
        if not path.exists():
            names = columns(self.scorer, intervals=self.work.intervals) | (
                {"frame": int} if self.work.each_frame else {}
            )
            names |= self.controls.columns if self.controls else {}
            names |= {name: type_of(kind) for name, kind in self.work.more}
            rows = [[plain(row.get(name)) for name in names] for row in self._rows(partition)]
            with atomic(path, sync=True) as file:
                parquet.write(file, names, rows)
        return {"name": partition.name, "rows": len(partition.sources), "seconds": monotonic() - began}

    def _rows(self, partition: Partition) -> Iterator[dict[str, Any]]:
        for request, score in self.scorer.stream(map(self._request, partition.sources)):
            source, asked = request.tag
            frame = {} if source.frame is None else {"frame": source.frame + 1}
            row = to_row(source.file, request.prompt, score, intervals=self.work.intervals)
            yield {**source.more, **asked, **frame, **row}

    def _request(self, source: Source) -> ScoreRequest[tuple[Source, dict[str, Cell]]]:
        image = _image(source)
        if self.controls is None:
            return ScoreRequest(image, source.prompt, (source, {}))
        asked = self.controls.asked(source.more, image)
        return ScoreRequest(image, source.prompt, (source, asked), **self.controls.request(asked))


def load(work: Work) -> Scorer:
    """Return the scorer that an actor uses."""
    return Scorer.load(work.model, work.options, cache=Cache(Path(work.cache)) if work.cache else None)


def _image(source: Source) -> object:
    """Return what the scorer opens: a path, the bytes of a member or of a URL, or why there is nothing to open."""
    if source.problem or source.path is None:
        return Failed(source.problem or "no file")
    if source.at is None and source.cell is None and not source.is_url:
        return source.path if source.frame is None else Frame(source.path, source.frame)
    try:
        if source.cell is not None:
            return ParquetImage(source.path, source.file, *source.cell).read_bytes()
        return _fetched(source.path) if source.is_url else _member(source.path, *source.at) if source.at else None
    except Exception as error:  # noqa: BLE001 - storage packages may raise anything, and one image must not end the run
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        return Failed(f"Expected an image, but it cannot be read ({why}): check that it is still there.")


def _member(path: str, offset: int, length: int) -> bytes:
    if length > MAX_BYTES:
        raise ValueError(f"{length:,} bytes")
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _fetched(url: str) -> bytes:
    import fsspec

    with fsspec.open(url, "rb") as file:
        data: bytes = file.read(MAX_BYTES + 1)
    return data
