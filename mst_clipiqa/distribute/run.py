"""One run on a cluster: plan the partitions, score them, and count every row at the end."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mst_clipiqa.distribute.listing import Listing, kinds_of, listed
from mst_clipiqa.distribute.plan import Partition, partitions, row_key
from mst_clipiqa.distribute.worker import Work, Worker, load
from mst_clipiqa.errors import UsageError, need, shown
from mst_clipiqa.scoring.controls import Controls
from mst_clipiqa.scoring.reloading import sha256
from mst_clipiqa.scoring.resume import check_same
from mst_clipiqa.scoring.score_rows import columns, origin
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.parquet import RUN_MANIFEST
from mst_clipiqa.tables.table import stream_table


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
        part: images per Parquet file.
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
    """

    rows: int
    failed: int
    scored: int
    parts: int
    seconds: float


def run(job: ClusterJob, advance: Callable[[int], None] = lambda count: None) -> ClusterSummary:
    """Score the rows that are missing from the output, and return the counts of the whole output.

    Args:
        job: what to score, how, and where.
        advance: called with the number of rows done.

    Raises:
        UsageError: ray is missing, the output belongs to another model or options, or rows are missing at the end.
    """
    ray = _ray()
    began = time.monotonic()
    scorer = load(replace(job.work, device="cpu"))  # for its hash: the driver may have no GPU
    work = job.work
    asked = {"device": work.device, "precision": work.precision, "gpus per actor": str(job.gpus)}
    asked |= {"--color": work.color, "--frames": "all" if job.listing.each_frame else work.frame}
    own = columns(scorer, intervals=work.intervals) | ({"frame": int} if job.listing.each_frame else {})
    found, others = listed(job.given, job.listing)
    if work.controls is not None:
        controls = work.controls.elsewhere(others)
        own |= Controls(scorer, controls, others).columns
        asked |= {"controls": str(replace(controls, folders=()))}
        work = replace(work, controls=controls, listed=tuple(others))
    more = [name for name in others if name not in own]
    job = replace(job, work=replace(work, sha256=sha256(scorer)), origin=origin(scorer, [*own, *more]) | asked)
    had = _prepare(job)
    committed = _committed(job.output)
    done = _done(committed)
    taken = {path.name for path in committed}
    todo = list(partitions(found, job.part_size, done, taken))
    every = (source for part in todo for source in part.sources)
    had["columns"] = kinds_of(more, every, had.get("columns"))
    _write(job.output, had)
    job = replace(job, work=replace(job.work, more=tuple(had["columns"].items()), each_frame=job.listing.each_frame))
    expected = sum(done.values()) + sum(len(part.sources) for part in todo)
    if todo:
        with _cluster(ray, job):
            _deal(ray, job, todo, advance)
    rows, failed, files = _count(job.output)
    scored = sum(len(part.sources) for part in todo)
    summary = ClusterSummary(rows, failed, scored, files, round(time.monotonic() - began, 3))
    if rows != expected:
        raise UsageError(
            f"Expected {expected:,} rows in {shown(job.output)}, got {rows:,}: start the same command again, or look "
            "for another run that writes there."
        )
    runs = [*had.get("runs", []), asdict(summary) | {"input": job.given, "actors": job.actors, "address": job.address}]
    _write(job.output, had | {"state": "complete", "rows": rows, "failed": failed, "parts": files, "runs": runs})
    return summary


def _prepare(job: ClusterJob) -> dict[str, Any]:
    """Create or check the manifest, and return it: all rows of an output have the same origin."""
    if job.output.exists() and not job.output.is_dir():
        raise UsageError(f"Expected a folder for the parts, got the file {shown(job.output)}: name another.")
    now = job.origin
    path = job.output / RUN_MANIFEST
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(job.output.glob("*.parquet")):
                raise UsageError(
                    f"Expected {RUN_MANIFEST} beside the parts in {shown(job.output)}, got none: name another."
                )
            _write(job.output, {"state": "running", "origin": now, "versions": _versions()})
        had: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check_same(had["origin"], now, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"Expected a folder for the parts at {shown(job.output)}, got {shown(error)}.") from error
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
    """Return a frame's number from 0, as in a source, of its number from 1, as in the table."""
    return int(cell) - 1 if isinstance(cell, int | float) else None


def _count(output: Path) -> tuple[int, int, int]:
    """Return the numbers of committed rows, failed rows and files."""
    found = _committed(output)
    states = Counter(row["status"] for path in found for row in stream_table(path))
    return states.total(), states["error"], len(found)


def _deal(ray: Any, job: ClusterJob, todo: list[Partition], advance: Callable[[int], None]) -> None:
    """Score the partitions on the actor pool, with back-pressure."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.print_on_execution_start = False, False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    wanted = min(job.actors, len(todo))
    blocks = [{"part": part.to_json()} for part in todo]
    share: dict[str, float] = {"num_gpus": job.gpus} if job.gpus else {"num_cpus": max(job.work.threads, 1)}
    counts = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=wanted),
        fn_constructor_args=(job.work,),
        **share,
    )
    for row in counts.iter_rows():
        advance(int(row["rows"]))


@contextmanager
def _cluster(ray: Any, job: ClusterJob) -> Iterator[None]:
    """Join or start a cluster for the block; one that is connected already stays so.

    A local cluster gets cores for all actors: otherwise Ray would wait for cores forever.
    """
    if ray.is_initialized():
        yield
        return
    try:
        quiet = {"log_to_driver": False, "logging_level": "error"}
        cores = max(os.cpu_count() or 1, job.actors * max(job.work.threads, 1))
        own = {"include_dashboard": False, "num_cpus": cores} if job.address == "local" else {}
        ray.init(address=job.address, **quiet, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"Expected a Ray cluster at {shown(job.address)}, got none ({shown(error)}): check --address."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _write(output: Path, manifest: dict[str, Any]) -> None:
    write_atomically(output / RUN_MANIFEST, f"{json.dumps(manifest, indent=2)}\n".encode())


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("mst-clipiqa", "torch", "pillow", "ray")}
    return {"python": platform.python_version(), **packages}


def _ray() -> Any:
    ray, _ = (need(name, extra="ray", otherwise="use score on one machine") for name in ("ray", "ray.data"))
    return ray
