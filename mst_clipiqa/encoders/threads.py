"""How a batch is divided among threads, and how a reduced precision stays independent of the batch.

Low-precision kernels round differently for different batch shapes. So in bf16 and fp16 the towers always see chunks
of one fixed shape: an image's features are then the same alone, in any batch, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

CHUNK = 16
ENCODERS = 4
"""Threads that encode a batch each, at most: each needs memory of its own."""

_Task = TypeVar("_Task")


@contextmanager
def divided_threads(device: torch.device, most: int = ENCODERS) -> Iterator[tuple[int, Callable[[], None]]]:
    """Divide the processor between threads that encode a batch each, and give it back.

    Threads that share one batch wait for each other at every layer, and keep the decoding threads from running
    while they do. On a GPU one thread feeds it.

    Args:
        device: where batches are encoded.
        most: threads, at most; there are never more than cores.

    Yields:
        How many threads may encode at once, and what each must call first.
    """
    total = torch.get_num_threads()
    encoders = min(total, most) if device.type == "cpu" else 1
    try:
        yield encoders, lambda: torch.set_num_threads(max(1, total // encoders))
    finally:
        torch.set_num_threads(total)  # what a thread sets for itself is also the start value of later threads


def side_by_side(
    device: torch.device, work: Callable[[_Task], Tensor], tasks: Sequence[_Task], most: int
) -> list[Tensor]:
    """Return the work of each task, in order; on a processor up to ``most`` at once, its threads divided among them."""

    @torch.inference_mode()  # which is each thread's own
    def one(task: _Task) -> Tensor:
        return work(task)

    with divided_threads(device, most) as (threads, start):
        if threads == 1:
            return [one(task) for task in tasks]
        with ThreadPoolExecutor(threads, initializer=start) as pool:
            return list(pool.map(one, tasks))


def chunks(pixels: Tensor, precision: str) -> list[Tensor]:
    """Return chunks of ``CHUNK`` rows; below fp32 exactly that many, the last one filled with its first row."""
    parts = torch.split(pixels, CHUNK)
    return [filled(part, CHUNK) for part in parts] if precision in ("bf16", "fp16") else list(parts)


def filled(rows: Tensor, size: int) -> Tensor:
    """Return ``size`` rows: those given, then the first one again and again."""
    missing = size - len(rows)
    return rows if missing == 0 else torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
