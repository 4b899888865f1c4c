"""How the cores of a CPU are divided among threads that encode, and how these reuse memory.

    batches - up to two at once, each led by a thread - chunks - a pool of threads that all batches share

Threads that share one chunk wait for each other at every layer, so each takes a chunk of its own. Between its chunks a
batch has work for one core, such as choosing what to encode next; the other batch's chunks then keep the others busy.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Literal, TypeVar

import torch

from mst_clipiqa.encoders.precision import own_settings
from mst_clipiqa.encoders.torch_threads import set_torch_threads

ENCODERS = 4
"""The most threads that encode at once: each needs memory of its own."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for what ``mallopt`` sets
_FREE = 2**30  # bytes of freed memory at the end of the heap
_LARGEST = 2**25  # bytes of a block that is kept when it is freed: more than glibc allows is refused

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_Kind = Literal["chunks", "rows"]

_pools: dict[tuple[_Kind, int, int], ThreadPoolExecutor] = {}  # kept, as what a thread sets up costs time
_making = Lock()
_is_forked = False


def batches_at_once(device: torch.device) -> int:
    """Return how many batches to encode at once: two on a CPU with several cores, else one."""
    return 2 if device.type == "cpu" and torch.get_num_threads() > 1 else 1


def map_in_parallel(
    device: torch.device, work: Callable[[_Task], _Result], tasks: Sequence[_Task], most: int, kind: _Kind = "chunks"
) -> list[_Result]:
    """Return the result of each task, in order; on a CPU up to ``most`` tasks run at once and share its cores.

    Tasks of all callers wait in one line. A GPU is fed by one thread.
    """

    @torch.inference_mode()  # which is each thread's own
    @own_settings(device)
    def run(task: _Task) -> _Result:
        return work(task)

    total = torch.get_num_threads()
    threads = min(total, most) if device.type == "cpu" else 1
    if threads == 1:
        return [run(task) for task in tasks]
    try:
        return list(_pool(kind, threads, total // threads).map(run, tasks))
    finally:
        torch.set_num_threads(total)  # what a thread sets for itself is also the start value of later threads


def map_on_single_cores(
    device: torch.device, work: Callable[[_Task], _Result], tasks: Sequence[_Task]
) -> list[_Result]:
    """Return the result of each task, in order, each computed on one core: how many there are changes no bit of it.

    They do not wait for chunks: whoever asks for them has the next batch to begin.
    """
    return map_in_parallel(device, work, tasks, torch.get_num_threads(), "rows")


def call_on_single_core(device: torch.device, work: Callable[[], _Result]) -> _Result:
    """Return the result of ``work``, computed on one core as by ``map_on_single_cores``."""
    return map_on_single_cores(device, lambda _: work(), [None])[0]


def _pool(kind: _Kind, threads: int, each: int) -> ThreadPoolExecutor:
    """Return the pool of ``threads`` threads, each of which computes with ``each`` cores."""
    key = kind, threads, each
    with _making:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, f"mst-clipiqa-{kind}", partial(set_torch_threads, each))
        return _pools[key]


def run_in_new_thread_after_fork(work: Callable[[], _Result]) -> _Result:
    """Return the result of ``work``; a forked process calls it in a new thread.

    There the old thread would wait forever for the threads with which it shared products before the fork.
    """
    if not _is_forked:
        return work()
    with ThreadPoolExecutor(1, "mst-clipiqa-forked") as new:
        return new.submit(work).result()


def _forget_pools() -> None:
    """Forget what a forked process does not have: threads, and a lock that one of them may have held."""
    global _making, _is_forked
    _making, _is_forked = Lock(), True
    _pools.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_pools)


def reuse_freed_memory() -> bool:
    """Let glibc keep the memory that activations free, for the whole process; return whether it does.

    By default it returns large blocks to the system, which hands them out again page by page, each filled with zeros.
    A malloc that is not glibc's, and one with settings in the environment, stays as it is.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = _from_c("mallopt")
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _FREE))


def return_freed_memory() -> bool:
    """Let glibc return the freed memory that it keeps, whatever thread freed it; return whether it had any.

    It looks at every free block, and the next batch gets its memory page by page: this is for times without work.
    Nothing happens with another malloc.
    """
    return bool(_from_c("malloc_trim")(0))


def _from_c(name: str) -> Callable[..., int]:
    """Return a function of the C library, or one that does nothing and returns 0 if it has none of this name."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # TypeError: on Windows
        return lambda *_: 0
    return found
