"""What the towers compute in, and how a reduced precision stays independent of the batch.

Low-precision kernels round differently for different batch shapes. So in bf16 and fp16 the towers always see chunks
of one fixed shape: a picture's features are then the same alone, in any batch, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError, nearest

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ARITHMETIC_VERSION = "2"
"""Part of every cache key: raise it when a precision computes anything otherwise."""

CHUNK = 16
ENCODERS = 4
"""Threads that encode a batch each, at most: each needs memory of its own."""

_Task = TypeVar("_Task")


def resolve_device(device: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:1", "mps"; UsageError if this machine lacks it."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        hint = nearest(device, ["auto", "cpu", "cuda", "mps"])
        raise UsageError(f"Expected a device such as auto, cpu, cuda or mps, got {device!r}{hint}.") from error
    absent = (resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count()) or (
        resolved.type == "mps" and not torch.backends.mps.is_available()
    )
    if absent or resolved.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"Expected a device that this machine has, got {device!r}: use --device auto.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16; "auto" is the fastest that the device computes natively."""
    if precision != "auto":
        if precision not in DTYPES:
            raise UsageError(
                f"Expected precision auto, fp32, bf16 or fp16, got {precision!r}{nearest(precision, DTYPES)}."
            )
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu._is_avx512_bf16_supported()
    ):
        return "bf16"
    return "fp32"


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
