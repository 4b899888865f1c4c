"""Work on a CUDA card, recorded once for each shape of its input and replayed.

A block of an encoder is a dozen kernels. To start them one by one takes Python longer than the card takes to compute
them, and keeps the threads that decode from running; a recorded graph is started at once.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

import torch
from torch import Tensor

_MOST_SHAPES = 4
"""Shapes that are recorded: each recording holds the memory of its activations."""
_WARM = 2  # runs before a recording, in which libraries choose kernels and take memory

TensorMap: TypeAlias = Callable[[Tensor], Tensor]


class Recorded:
    """A function of one tensor, for inference; what it computes may depend on nothing else but weights.

    Weights may change in place, but not move: then it must be recorded anew.
    """

    def __init__(self, work: TensorMap) -> None:
        self.work = work
        self._recordings: dict[tuple[object, ...], TensorMap] = {}
        self._one_at_a_time = Lock()

    def __reduce__(self) -> tuple[type[Recorded], tuple[TensorMap]]:
        """Leave the recordings behind: a copy, or another process, makes its own."""
        return Recorded, (self.work,)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``work(x)`` in memory of its own; further shapes than ``_MOST_SHAPES`` are computed as they come."""
        key = (x.shape, x.dtype, x.device)
        with self._one_at_a_time:
            if key not in self._recordings:
                if len(self._recordings) == _MOST_SHAPES:
                    return self.work(x)
                self._recordings[key] = _Recording(self.work, x)
            return self._recordings[key](x)


class _Recording:
    """A function, recorded for one shape."""

    def __init__(self, work: TensorMap, x: Tensor) -> None:
        self.input = x.clone()
        with torch.cuda.device(x.device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(_WARM):
                    work(self.input)
            torch.cuda.current_stream().wait_stream(beside)
            self.graph = torch.cuda.CUDAGraph()
            # Other threads may copy to the card meanwhile.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.output = work(self.input)

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.graph.replay()
        return self.output.clone()
