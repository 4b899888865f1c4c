"""One run on a cluster: plan the partitions, score them, and count every row at the end."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mst_clipiqa.distribute.listing import Listing, kinds_of, listed
from mst_clipiqa.distribute.on_ray import Pool, connected, deal, lacking, need_ray
from mst_clipiqa.distribute.plan import partitions, row_key
from mst_clipiqa.distribute.worker import Work, load_scorer
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.scoring.controls import Controls
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.scoring.resume import check_same
from mst_clipiqa.scoring.score_rows import columns, origin
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.parquet import RUN_MANIFEST
from mst_clipiqa.tables.reading import stream_table
from mst_clipiqa.tables.stamps import check_past


@dataclass(frozen=True)
class ClusterJob:
    """What to score, how, and where.

    Attributes:
        given: the INPUT of the command.
        output: folder of the Parquet files; every machine must see it under this path.
        work: settings of the actors.
        address: "local" for this machine only, "auto" for the cluster it belongs to, or a cluster's address.
        actors: number of actors, each with its own model.
        gpus: GPUs per actor; a fraction shares one.
        part_size: images per Parquet file.
        listing: how the INPUT is read.
        origin: what determines the rows; ``run`` fills it in.
    """

    given: str
    output: Path
    work: Work
    address: str = "local"
    actors: int = 1
    gpus: float = 0.0
    part_size: int = 256
    listing: Listing = field(default_factory=Listing)
    origin: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterSummary:
    """The outcome of a run.

    Attributes:
        rows, failed: rows in the output, and how many of them failed.
        scored: rows that this run scored.
        parts: Parquet files in the output.
        seconds: duration of the run.
        without_prompt: rows that were scored without a prompt, though the model reads prompts.
        notes: sentences for the user about what was listed.
    """

    rows: int
    failed: int
    scored: int
    parts: int
    seconds: float
    without_prompt: int = 0
    notes: tuple[str, ...] = ()


def run(
    job: ClusterJob,
    advance: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda note: None,
) -> ClusterSummary:
    """Score the rows that are missing from the output, and return the counts of the whole output.

    Args:
        job: what to score, how, and where.
        advance: called with the number of rows done.
        say: called with a sentence for the user while the run goes on.

    Raises:
        UsageError: ray is missing, the output belongs to another model or options, an actor cannot go on, or rows are
            missing at the end.
    """
    ray = need_ray()
    pool = Pool(job.actors, job.gpus, job.work.threads)
    began = time.monotonic()
    on_cpu = replace(job.work.options, device="cpu")
    scorer = load_scorer(replace(job.work, options=on_cpu))  # for its hash: the driver may have no GPU
    if caution := scorer.model.config.caution:
        say(caution)
    listing = listed(job.given, job.listing)
    job, more = _settled(job, scorer, listing.columns)
    had = _prepare(job)
    committed = _committed(job.output)
    done = _done(committed)
    taken = {path.name for path in committed}
    written = max((path.stat().st_mtime_ns for path in committed), default=None)
    check_past(written or 0, job.output, "name another output")
    todo = list(partitions(listing.items, job.part_size, done, taken, written))
    every = (item for part in todo for item in part.items)
    had["columns"] = kinds_of(more, every, had.get("columns"))
    _write(job.output, had)
    job = replace(job, work=replace(job.work, more=tuple(had["columns"].items())))
    expected = sum(done.values()) + sum(len(part.items) for part in todo)
    if todo:
        with connected(ray, job.address, pool):
            if what := lacking(ray, pool):
                say(f"No machine of the cluster has {what} for an actor: the run waits until one joins.")
            deal(ray, job.work, todo, pool, advance, say)
    rows, failed, without_prompt, files = _count(job.output)
    scored = sum(len(part.items) for part in todo)
    seconds = round(time.monotonic() - began, 3)
    if rows != expected:
        raise UsageError(
            f"Expected {expected:,} rows in {shown(job.output)}, got {rows:,}: start the same command again, or look "
            "for another run that writes there."
        )
    counts = {"rows": rows, "failed": failed, "parts": files}
    now = {"scored": scored, "seconds": seconds, "input": job.given, "actors": job.actors, "address": job.address}
    _write(job.output, had | {"state": "complete", **counts, "runs": [*had.get("runs", []), counts | now]})
    unread = without_prompt if scorer.predictor.reads_prompts else 0
    return ClusterSummary(**counts, scored=scored, seconds=seconds, without_prompt=unread, notes=tuple(listing.notes()))


def _settled(job: ClusterJob, scorer: Scorer, others: Sequence[str]) -> tuple[ClusterJob, list[str]]:
    """Return the job with what determines its rows, and those of the list's columns ``others`` that its rows keep."""
    work, each_frame = job.work, job.listing.each_frame
    options = work.options
    asked = {"device": options.device, "precision": options.precision, "gpus per actor": str(job.gpus)}
    asked |= {"--color": options.color, "--frames": "all" if each_frame else options.frame}
    own = columns(scorer, intervals=work.intervals) | ({"frame": int} if each_frame else {})
    if work.controls is not None:
        controls = work.controls.with_full_names(others)
        own |= Controls(scorer, controls, others).columns
        asked |= {"controls": str(replace(controls, folders=()))}
        work = replace(work, controls=controls, listed=tuple(others))
    more = [name for name in others if name not in own]
    work = replace(work, each_frame=each_frame, sha256=scorer_sha256(scorer))
    return replace(job, work=work, origin=origin(scorer, [*own, *more]) | asked), more


def _prepare(job: ClusterJob) -> dict[str, Any]:
    """Create or check the manifest, and return it: all rows of an output have the same origin."""
    if job.output.exists() and not job.output.is_dir():
        raise UsageError(f"Expected a folder for the parts, got the file {shown(job.output)}: name another.")
    now = job.origin
    path = job.output / RUN_MANIFEST
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        is_begun = any(job.output.glob("*.parquet"))
        if is_begun and not path.exists():
            raise UsageError(
                f"Expected {RUN_MANIFEST} beside the parts in {shown(job.output)}, got none: name another."
            )
        if not is_begun:  # a run that wrote no part decides nothing about the next one
            _write(job.output, {"state": "running", "origin": now, "versions": _versions()})
        had: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check_same(had["origin"], now, path, "name another output")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UsageError(
            f"Expected a folder for the parts that can be used, got {shown(job.output)} ({why}): name another."
        ) from error
    for left in job.output.glob(".part-*"):  # of machines that died while writing
        left.unlink(missing_ok=True)
    return had


def _committed(output: Path) -> list[Path]:
    """Return the Parquet files of the output."""
    return sorted(output.glob("part-*.parquet"))


def _done(committed: list[Path]) -> Counter[int]:
    """Return how often each row is in the output already."""
    return Counter(
        row_key(row["file"], row["prompt"], _frame(row.get("frame")))
        for path in committed
        for row in stream_table(path)
    )


def _frame(cell: Cell) -> int | None:
    """Return a frame's number from 0, as in an item, of its number from 1, as in the table."""
    return int(cell) - 1 if isinstance(cell, int | float) else None


def _count(output: Path) -> tuple[int, int, int, int]:
    """Return the numbers of committed rows, of failed ones, of others without a prompt, and of files."""
    found = _committed(output)
    states = Counter((row["status"], row["prompt"] is None) for path in found for row in stream_table(path))
    failed = states["error", True] + states["error", False]
    return states.total(), failed, states["ok", True], len(found)


def _write(output: Path, manifest: dict[str, Any]) -> None:
    write_atomically(output / RUN_MANIFEST, f"{json.dumps(manifest, indent=2)}\n".encode())


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("mst-clipiqa", "torch", "pillow", "ray")}
    return {"python": platform.python_version(), **packages}
