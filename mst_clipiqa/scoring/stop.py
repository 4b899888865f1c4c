"""Stop a long run between two batches of rows, so that no row is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from mst_clipiqa.errors import are, counted

_T = TypeVar("_T")


class Stopped(Exception):
    """A run that was asked to stop has finished its batch; the message says how many rows it leaves."""


@dataclass
class Stop:
    """Whether the run should stop.

    Attributes:
        asked: the number of the signal that asked for it, or 0.
    """

    asked: int = 0

    def between(self, rows: Iterable[_T], every: int) -> Iterator[_T]:
        """Yield the rows; once asked to stop, raise Stopped after a batch of ``every`` rows."""
        for number, row in enumerate(rows, 1):
            yield row
            if self.asked and number % every == 0:
                raise Stopped(f"{counted(number, 'row')} {are(number)} written.")

    @classmethod
    @contextmanager
    def listening(cls, wanted: bool = True) -> Iterator[Stop]:
        """Record a first Ctrl-C or SIGTERM in ``asked`` in place of an interruption; a second one interrupts.

        Args:
            wanted: False leaves signals as they are, so ``asked`` stays 0.
        """
        stop = cls()
        if not wanted or threading.current_thread() is not threading.main_thread():  # signals arrive only there
            yield stop
            return

        def note(number: int, _: FrameType | None) -> None:
            if stop.asked:
                raise KeyboardInterrupt
            stop.asked = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
