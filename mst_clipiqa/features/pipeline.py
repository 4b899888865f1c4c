"""Work in threads, in order and in bounded memory.

From Python 3.14 on, ``Executor.map(buffersize=...)`` does what ``in_order`` does.
"""

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


class _Source(Iterator[_A]):
    """Items that seem to end where reading them fails, so that earlier ones are finished; ``check`` then raises."""

    def __init__(self, items: Iterable[_A]) -> None:
        self._items = iter(items)
        self._failure: Exception | None = None

    def __next__(self) -> _A:
        if self._failure is not None:
            raise StopIteration
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self._failure = error
            raise StopIteration from error

    def check(self) -> None:
        """Raise the error with which reading the items ended, if there was one."""
        if self._failure is not None:
            raise self._failure


Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar: ``bar(label, total)`` yields a function to call with the number of items done since."""


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
    """Yield (item, work(item)) in order; at most ``ahead`` items are started before they are asked for.

    Args:
        items: read only as far as needed; what reading them raises comes out after the items before it.
        work: called in ``workers`` threads; its exceptions are raised here, in their turn.
        workers: threads.
        ahead: bound on memory, at least 1.
    """
    waiting: deque[tuple[_A, Future[_B]]] = deque()
    source = _Source(items)
    pool, is_interrupted = ThreadPoolExecutor(workers, _NAME), False
    try:
        for item in islice(source, ahead):
            waiting.append((item, pool.submit(work, item)))
        while waiting:
            done, future = waiting.popleft()
            result = future.result()
            for item in islice(source, 1):
                waiting.append((item, pool.submit(work, item)))
            yield done, result
        source.check()
    except KeyboardInterrupt:
        is_interrupted = True  # the user asked to end at once: do not wait for work under way
        raise
    finally:
        for _, future in waiting:
            future.cancel()
        # A generator that was not read to its end may be collected in one of its own threads, which cannot wait for
        # itself.
        pool.shutdown(wait=not is_interrupted and not current_thread().name.startswith(_NAME))


def in_batches(items: Iterable[_A], size: int) -> Iterator[list[_A]]:
    """Yield the items in order, in lists of ``size``; the last list may be shorter, also where reading items fails."""
    source = _Source(items)
    while batch := list(islice(source, size)):
        yield batch
    source.check()
