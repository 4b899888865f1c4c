"""Feeds cases to a surface and counts those accepted, refused, broken and hung, and the peak memory.

A case is a dict of names and bytes, so that every case can be written down and fed again. A surface may raise
MstClipiqaError, which is a refusal with a readable message; anything else is a traceback that a user would see.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import hashlib
import json
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from mst_clipiqa.errors import MstClipiqaError

Case: TypeAlias = dict[str, bytes]

HANG_S = 5.0
"""CPU seconds that one case may take."""
_ALARM_S = 60  # wall-clock seconds after which a case is stopped
_LONGEST_MESSAGE = 2000


class Hang(BaseException):
    """Raised when a case is stopped; no parser may catch it."""


@dataclass(frozen=True)
class Surface:
    """One kind of outside input: how to make a case, and what reads it."""

    name: str
    make: Callable[[random.Random], Case]
    feed: Callable[[Case], None]


@dataclass
class Counts:
    """The counts of one run."""

    surface: str
    seed: int
    cases: int = 0
    taken: int = 0
    refused: int = 0
    tracebacks: int = 0
    hangs: int = 0
    slowest_s: float = 0.0
    peak_mb: int = 0
    first_peak_mb: int = 0
    seconds: float = 0.0
    messages: set[str] = field(default_factory=set)

    def line(self) -> str:
        """Return the counts as a line of JSON."""
        counts = asdict(self) | {"messages": len(self.messages)}
        return json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in counts.items()})


def run(surface: Surface, count: int, seed: int, keep: Path | None = None) -> Counts:
    """Run ``count`` cases, each with its own seed, and return the counts.

    Args:
        surface: what to run.
        count: number of cases.
        seed: seed of the first case; case i has seed + i, so that one case can be made again alone.
        keep: a folder for the cases that broke or hung.
    """
    counts = Counts(surface.name, seed, first_peak_mb=_peak_mb())
    began = time.monotonic()
    _die_if_stuck()
    for number in range(seed, seed + count):
        case = surface.make(random.Random(f"{surface.name}-{number}"))
        problem = _fed(surface, case, counts)
        if problem:
            _report(surface, case, number, problem, keep)
        if number % 100 == 0:
            _die_if_stuck()
    faulthandler.cancel_dump_traceback_later()
    counts.seconds, counts.peak_mb = time.monotonic() - began, _peak_mb()
    return counts


def _die_if_stuck() -> None:
    """End the process with a traceback if it hangs in C code, where no signal handler runs."""
    faulthandler.dump_traceback_later(10 * _ALARM_S, exit=True, file=sys.__stderr__ or 2)


def _fed(surface: Surface, case: Case, counts: Counts) -> str:
    """Run one case; return what went wrong, or None."""
    counts.cases += 1
    problem = ""
    began = time.process_time()
    try:
        with _alarm():
            surface.feed(case)
        counts.taken += 1
    except MstClipiqaError as error:
        counts.refused += 1
        message = str(error)
        counts.messages.add(" ".join(message.split()[:6]))
        if not message.isprintable() or len(message) > _LONGEST_MESSAGE:
            problem = f"a message that cannot be shown: {message[:200]!r}"
    except Hang:
        counts.hangs += 1
        problem = "hung"
    except BaseException:  # noqa: BLE001 - a user would have seen it, whatever it is
        problem = traceback.format_exc()
    seconds = time.process_time() - began
    if seconds > HANG_S and problem != "hung":
        counts.hangs += 1
        problem = problem or f"took {seconds:.1f} s"
    elif problem and problem != "hung":
        counts.tracebacks += 1
    counts.slowest_s = max(counts.slowest_s, seconds)
    return problem


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_ALARM_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _report(surface: Surface, case: Case, number: int, problem: str, keep: Path | None) -> None:
    print(f"{surface.name} case {number}: {problem}")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        text = dumped(case)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        (keep / f"{surface.name}-{name}.json").write_text(text)


def dumped(case: Case) -> str:
    """Return a case as JSON."""
    return json.dumps({name: base64.b64encode(data).decode() for name, data in case.items()}) + "\n"


def loaded(text: str) -> Case:
    """Return the case that ``dumped`` wrote."""
    return {name: base64.b64decode(data) for name, data in json.loads(text).items()}


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
