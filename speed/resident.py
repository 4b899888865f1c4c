"""Resident memory of another process, and how it grows. Linux only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 once it has ended."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def watched(pid: int, samples: list[tuple[float, float]]) -> None:
    """Record (seconds, MB) once per second."""
    while True:
        samples.append((time.perf_counter(), resident_mb(pid)))
        await asyncio.sleep(1)


def growth(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of the line through (seconds, MB), in MB per minute, and its standard error; at least three."""
    times, memory = zip(*samples, strict=True)
    line = stats.linregress(np.divide(times, 60), memory)
    return float(line.slope), float(line.stderr)
