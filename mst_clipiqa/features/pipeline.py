"""Work in threads with the order kept and a bound on what waits; the scorer's conveyor belt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from threading import current_thread
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")

_NAME = "mst-clipiqa"

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar: ``bar(label, total)`` gives a function to call with the number of things done."""


def no_bar(label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda count: None)


def in_order(
    items: Iterable[_A],
    work: Callable[[_A], _B],
    *,
    workers: int,
    ahead: int,
) -> Generator[tuple[_A, _B], None, None]:
    """Yield (item, work(item)) in the order of the items, at most ``ahead`` of them begun and not yet taken.

    Args:
        items: read only as far as needed.
        work: called in ``workers`` threads; what it raises is raised here, at its item.
        workers: threads.
        ahead: bound on memory, at least 1.
    """
    waiting: deque[tuple[_A, Future[_B]]] = deque()
    source = iter(items)
    pool = ThreadPoolExecutor(workers, _NAME)
    try:
        for item in islice(source, ahead):
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            done, future = waiting.popleft()
            result = future.result()
            for item in islice(source, 1):
                waiting.append((item, pool.submit(work, item)))
            yield done, result
    finally:
        for _, future in waiting:
            future.cancel()
        # One that was left half read may be collected in a thread of its own, which cannot wait for itself.
        pool.shutdown(wait=not current_thread().name.startswith(_NAME))


def in_batches(items: Iterable[_A], size: int) -> Iterator[list[_A]]:
    """Yield lists of ``size`` items, the last one maybe shorter; joined, they are the items in order."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
