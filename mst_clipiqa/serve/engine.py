"""Images of all clients -> scores, in batches.

    request - admitted - opened in ``workers`` threads - [queue] - up to batch_size at once: encoded, scored - Score

``workers`` and ``batch_size`` are the scorer's. Up to two batches are encoded at once (``encoders/threads.py``). No
image waits for a batch to fill: a free thread takes whatever is waiting, so batches grow with the load. A score depends
on nothing else in its batch (``Scorer`` sees to that).
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from async_batcher.batcher import AsyncBatcher

from mst_clipiqa.encoders.threads import batches_at_once, return_freed_memory
from mst_clipiqa.encoders.torch_threads import set_torch_threads
from mst_clipiqa.errors import Rejected
from mst_clipiqa.features.opened import Failed, Opened
from mst_clipiqa.scoring.answers import compare_edges
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.body import HttpScoreRequest
from mst_clipiqa.serve.form import Upload
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.settings import Limits

_IDLE = 3.0  # seconds without work, after which freed memory is returned
_Value = TypeVar("_Value")


@dataclass
class _ImageJob:
    """One opened image, its prompts, and what else is asked; ``is_dropped`` once nobody waits for its scores."""

    opened: Opened
    prompts: tuple[str | None, ...]
    asked: ScoreRequest[None]
    is_dropped: bool = False


class Engine:
    """Scores images for many clients at once; lives in one event loop.

    Args:
        scorer: the model.
        limits: of pixels, waiting scores and seconds.
        metrics: counts images and batches.
    """

    def __init__(self, scorer: Scorer, limits: Limits, metrics: Metrics) -> None:
        self.scorer = scorer
        self.limits = limits
        self.metrics = metrics
        self.waiting = 0
        self._opening = dataclasses.replace(scorer.encoder.opening, max_pixels=limits.max_pixels)
        self._pace = 0.1  # seconds per score, of late
        self._idle: asyncio.TimerHandle | None = None
        self._openers = ThreadPoolExecutor(scorer.encoder.workers, thread_name_prefix="open")
        at_once = batches_at_once(scorer.encoder.encoders.device)
        all_cores = partial(set_torch_threads, torch.get_num_threads())
        self._encoders = ThreadPoolExecutor(at_once, thread_name_prefix="encode", initializer=all_cores)
        self._batches = _Batches(self.run_batch, self._encoders, max(2, scorer.encoder.batch_size), at_once)

    @property
    def is_full(self) -> bool:
        """Whether a request for one more score would be rejected."""
        return self.waiting >= self.limits.max_waiting

    async def score(self, asked: HttpScoreRequest) -> list[Score]:
        """Return a score for each image and prompt, in order; one that cannot be scored has its reason.

        Raises:
            Rejected: too many are waiting, or it took too long.
        """
        with self._admitted(asked.count + (asked.controls.reference is not None)):
            found = await self._in_time(asyncio.ensure_future(self._all(asked)))
        scores = [score for some in found for score in some]
        for score in scores:
            self.metrics.images.labels(score.status).inc()
        return scores

    async def call(self, work: Callable[[], _Value], weight: int = 1) -> _Value:
        """Return the result of ``work``, run in an encoding thread in its turn. Rejected as in ``score``."""
        with self._admitted(weight):
            return await self._in_time(asyncio.get_running_loop().run_in_executor(self._encoders, work))

    async def close(self) -> None:
        """Finish the batches under way, and stop the threads."""
        self._set_idle(False)
        with suppress(TimeoutError):  # whoever still waits then has had the time that was promised
            # A second more, as the batcher looks only once a second whether it should stop.
            await self._batches.stop(timeout=self.limits.seconds + 1)
        self._openers.shutdown(cancel_futures=True)
        self._encoders.shutdown(cancel_futures=True)

    async def _all(self, asked: HttpScoreRequest) -> list[list[Score]]:
        """Encode the reference image, if there is one, then open and score all images."""
        given = asked.controls.reference
        reference = None if given is None else await self._reference(given.data)
        further = ScoreRequest[None](None, negative=asked.controls.negative, reference=reference)
        control = asked.controls.control
        work = (self._one(*pair, further, control) for pair in zip(asked.images, asked.prompts, strict=True))
        return await asyncio.gather(*work)

    async def _reference(self, data: bytes) -> object:
        """Return the features of a reference image, or why it has none."""
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._openers, self._open, data, ())
        return (await loop.run_in_executor(self._encoders, self.scorer.encoder.encode_opened, [opened]))[0]

    async def _one(
        self, image: Upload, prompts: tuple[str | None, ...], asked: ScoreRequest[None], control: Upload | None
    ) -> list[Score]:
        """Open an image and have it scored in the next batch."""
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self._openers, self._open, image.data, prompts)
        if control is not None and not isinstance(opened, Failed):
            edges = await loop.run_in_executor(self._openers, compare_edges, image.data, control.data, self._opening)
            asked = dataclasses.replace(asked, control=edges)
        job = _ImageJob(opened, prompts, asked)
        try:
            # Shielded: if one of its futures is cancelled, the batcher never completes the rest of the batch.
            return await asyncio.shield(self._batches.process(job))
        except asyncio.CancelledError:
            job.is_dropped = True
            raise

    def _open(self, data: bytes, prompts: tuple[str | None, ...]) -> Opened:
        return self.scorer.encoder.open(data, prompts, max_pixels=self.limits.max_pixels)

    @contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        if self.waiting and self.waiting + count > self.limits.max_waiting:
            raise Rejected(
                503,
                f"Expected room for {count} more, but {self.waiting} scores are waiting: try again a little later.",
                self._soon(),
            )
        self.waiting += count
        self.metrics.waiting.set(self.waiting)
        self._set_idle(False)
        try:
            yield
        finally:
            self.waiting -= count
            self.metrics.waiting.set(self.waiting)
            self._set_idle(not self.waiting)

    def _set_idle(self, idle: bool) -> None:
        """Return freed memory after a while without work: else what the largest load needed is kept."""
        if self._idle is not None:
            self._idle.cancel()
        wait = asyncio.get_running_loop().call_later
        self._idle = wait(_IDLE, self._openers.submit, return_freed_memory) if idle else None

    async def _in_time(self, work: asyncio.Future[_Value]) -> _Value:
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await work
        except TimeoutError as error:
            raise Rejected(
                503,
                f"Expected to be done within {self.limits.seconds:g} seconds, but the server is too busy: "
                "try again later, or with fewer images.",
                self._soon(),
            ) from error

    def _soon(self) -> int:
        """Return the seconds after which half of the waiting scores should be done."""
        return min(60, max(1, math.ceil(self.waiting * self._pace / 2)))

    def run_batch(self, jobs: list[_ImageJob]) -> list[list[Score]]:
        """Return the scores of each job in a batch; none for jobs that were dropped."""
        start = time.perf_counter()
        is_live = [not job.is_dropped for job in jobs]  # read once: it may change while the batch runs
        live = [job for job, alive in zip(jobs, is_live, strict=True) if alive]
        encoded = self.scorer.encoder.encode_opened([job.opened for job in live])
        pairs = [(one, p, job.asked) for job, one in zip(live, encoded, strict=True) for p in job.prompts]
        found = self.scorer.score_encoded([one for one, _, _ in pairs], [prompt for _, prompt, _ in pairs])
        complete = self.scorer.answers.complete
        scores = (complete(score, asked, one) for (one, _, asked), score in zip(pairs, found, strict=True))
        results = [
            [next(scores) for _ in job.prompts] if alive else [] for job, alive in zip(jobs, is_live, strict=True)
        ]
        self.metrics.batches.observe(len(live))
        if pairs:
            self._pace += 0.2 * ((time.perf_counter() - start) / len(pairs) - self._pace)
        return results


class _Batches(AsyncBatcher[_ImageJob, list[Score]]):  # type: ignore[misc]  # the library ships no types
    """Collects jobs into batches, one batch per encoding thread at a time."""

    def __init__(
        self, work: Callable[[list[_ImageJob]], list[list[Score]]], threads: ThreadPoolExecutor, size: int, at_once: int
    ) -> None:
        super().__init__(max_batch_size=size, max_queue_time=0, concurrency=at_once)
        self._work = work
        self._threads = threads

    async def process_batch(self, batch: list[_ImageJob]) -> list[list[Score]]:
        """Score one batch in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, batch)
