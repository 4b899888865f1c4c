"""How the cores of a CPU are divided among threads that encode, and how these reuse memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

ENCODERS = 4
"""The most threads that encode at once: each needs memory of its own."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for what ``mallopt`` sets
_FREE = 2**30  # bytes of freed memory at the end of the heap
_LARGEST = 2**25  # bytes of a block that is kept when it is freed: more than glibc allows is refused

_Task = TypeVar("_Task")
_Found = TypeVar("_Found")


@contextmanager
def divided_threads(device: torch.device, most: int = ENCODERS) -> Iterator[tuple[int, Callable[[], None]]]:
    """Divide the cores of a CPU among threads that encode a batch each; afterwards torch has all of them again.

    Threads that share one batch wait for each other at every layer and keep the decoding threads from running
    while they do. A GPU is fed by one thread.

    Args:
        device: where batches are encoded.
        most: the most threads wanted; there are never more than cores.

    Yields:
        How many threads may encode at once, and the function that each must call first.
    """
    total = torch.get_num_threads()
    encoders = min(total, most) if device.type == "cpu" else 1
    try:
        yield encoders, lambda: compute_with(max(1, total // encoders))
    finally:
        torch.set_num_threads(total)  # what a thread sets for itself is also the start value of later threads


def compute_with(threads: int) -> None:
    """Let torch compute with this many threads in the calling thread, whatever other threads set for themselves."""
    torch.get_num_threads()  # on its first use in a thread, torch takes the number that any thread set last
    torch.set_num_threads(threads)


def side_by_side(
    device: torch.device, work: Callable[[_Task], _Found], tasks: Sequence[_Task], most: int
) -> list[_Found]:
    """Return the result of each task, in order; on a CPU up to ``most`` tasks run at once and share its cores."""

    @torch.inference_mode()  # which is each thread's own
    def one(task: _Task) -> _Found:
        return work(task)

    with divided_threads(device, most) as (threads, start):
        if threads == 1:
            return [one(task) for task in tasks]
        with ThreadPoolExecutor(threads, initializer=start) as pool:
            return list(pool.map(one, tasks))


def on_one_core(device: torch.device, work: Callable[[_Task], _Found], tasks: Sequence[_Task]) -> list[_Found]:
    """Return the result of each task, in order, each computed on one core: how many there are changes no bit of it."""
    return side_by_side(device, work, tasks, torch.get_num_threads())


def reuse_freed_memory() -> bool:
    """Let glibc keep the memory that activations free, for the whole process; return whether it does.

    By default it returns large blocks to the system, which hands them out again page by page, each filled with zeros.
    A malloc that is not glibc's, and one with settings in the environment, stays as it is.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _FREE))
