"""How many threads torch computes with, in one thread of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_torch_threads(threads: int) -> None:
    """Let torch compute with this many threads in the calling thread, whatever other threads set for themselves."""
    torch.get_num_threads()  # on its first use in a thread, torch takes the number that any thread set last
    torch.set_num_threads(threads)


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Let torch compute with one thread in the calling thread: how many cores there are then changes no bit.

    Example:
        >>> with on_one_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
