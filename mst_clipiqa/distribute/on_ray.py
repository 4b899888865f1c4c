"""What Ray does for a run: join or start a cluster, and give its actors the partitions one by one."""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mst_clipiqa.distribute.plan import Partition
from mst_clipiqa.distribute.worker import Work, Worker
from mst_clipiqa.errors import MstClipiqaError, UsageError, need, shown


class Actor:
    """A worker as Ray runs it. It returns problems and warnings in words: Ray would show the driver tracebacks only."""

    def __init__(self, work: Work) -> None:
        """Start the worker, or keep why it cannot start."""
        self.problem = ""
        try:
            self.worker = Worker(work)
        except MstClipiqaError as error:
            self.problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score the parts of a batch; return of each how many rows it has, what stopped the worker, and a warning."""
        rows = [0] * len(batch["part"])
        if not self.problem:
            try:
                rows = [self.worker.score(Partition.from_json(str(text))) for text in batch["part"]]
            except (MstClipiqaError, OSError) as error:
                self.problem = _in_words(error, self.worker.work.output)
        warning = "" if self.problem else self.worker.warning
        told = {"problem": _on_here(self.problem), "warning": _on_here(warning)}
        return {"rows": rows} | {kind: [text] * len(rows) for kind, text in told.items()}


def _on_here(text: str) -> str:
    """Return a sentence with the name of this machine, or nothing."""
    return f"On {platform.node()}: {text}" if text else ""


def _in_words(error: Exception, output: str) -> str:
    if not isinstance(error, OSError):
        return str(error)
    why = error.strerror or str(error)
    return f"Expected a folder that parts can be written to, got {shown(output)} ({why}): free it, and start again."


def need_ray() -> Any:
    """Return the module ray; UsageError if it is not installed."""
    ray, _ = (need(name, extra="ray", otherwise="use score on one machine") for name in ("ray", "ray.data"))
    return ray


@dataclass(frozen=True)
class Pool:
    """The actors of a run.

    Attributes:
        actors: how many, at most.
        gpus: of each; a fraction shares one.
        threads: of torch in each; 0 leaves it to torch.

    Raises:
        UsageError: Ray cannot give an actor so many GPUs.
    """

    actors: int
    gpus: float
    threads: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.gpus) or self.gpus < 0 or (self.gpus > 1 and self.gpus % 1):
            raise UsageError(
                f"Expected a whole number of GPUs per actor, or a fraction of one, got {self.gpus:g}: correct it."
            )

    @property
    def share(self) -> dict[str, float]:
        """What Ray keeps free for an actor: its GPUs, or else a core per thread."""
        return {"num_gpus": self.gpus} if self.gpus else {"num_cpus": max(self.threads, 1)}


@contextmanager
def connected(ray: Any, address: str, pool: Pool) -> Iterator[None]:
    """Join or start a cluster for the block; one that is connected already stays so.

    A local cluster gets cores for all actors: otherwise Ray would wait for cores forever.

    Args:
        ray: the module.
        address: as in ``ClusterJob``.
        pool: what is to run there.

    Raises:
        UsageError: there is no such cluster, or it is this machine and has no room for an actor.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised; the rest is about Ray itself
    try:
        quiet = {"log_to_driver": False, "logging_level": "error"}
        cores = max(os.cpu_count() or 1, pool.actors * max(pool.threads, 1))
        own = {"include_dashboard": False, "num_cpus": cores} if address == "local" else {}
        ray.init(address=address, **quiet, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"Expected a Ray cluster at {shown(address)}, got none ({shown(error)}): check --address."
        ) from error
    try:
        if address == "local" and lacking(ray, pool):
            raise UsageError(
                f"Expected enough GPUs on this machine for an actor ({pool.gpus:g}), got fewer: "
                "correct --gpus-per-actor, or omit it."
            )
        yield
    finally:
        ray.shutdown()


def lacking(ray: Any, pool: Pool) -> str:
    """Return the share of an actor, such as "2 GPUs", that Ray waits for as no machine has it now; else nothing."""
    ((kind, count),) = pool.share.items()
    name = kind.removeprefix("num_")[:-1].upper()
    has_room = any(node["Alive"] and node["Resources"].get(name, 0) >= count for node in ray.nodes())
    return "" if has_room else f"{count:g} {name}{'' if count == 1 else 's'}"


def deal(
    ray: Any,
    work: Work,
    todo: Sequence[Partition],
    pool: Pool,
    advance: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    """Score the partitions on a pool of actors, with back-pressure.

    Args:
        ray: the module, connected.
        work: the settings of the actors.
        todo: the partitions.
        pool: the actors.
        advance: called with the number of rows done.
        say: called with each warning of an actor, once.

    Raises:
        UsageError: an actor cannot start or go on; the message says on which machine, and why.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.print_on_execution_start = False, False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = [{"part": part.to_json()} for part in todo]
    counts = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Actor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool.actors, len(todo))),
        fn_constructor_args=(work,),
        **pool.share,
    )
    said = {""}
    for row in counts.iter_rows():
        if row["problem"]:
            raise UsageError(str(row["problem"]))
        if row["warning"] not in said:
            said.add(row["warning"])
            say(str(row["warning"]))
        advance(int(row["rows"]))
