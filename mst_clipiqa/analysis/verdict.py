"""What an interval of a difference says: better, worse, no difference, or nothing."""

from __future__ import annotations

import math


def verdict_of(low: float, high: float) -> str:
    """Return "better", "worse", "no difference", or "unknown" if there is no interval.

    Example:
        >>> verdict_of(0.1, 0.4), verdict_of(-0.1, 0.4), verdict_of(math.nan, math.nan)
        ('better', 'no difference', 'unknown')
    """
    if math.isnan(low):
        return "unknown"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference"


def interval_cells(low: float, high: float, verdict: str) -> dict[str, float | str | None]:
    """Return the end of a row: low and high, empty if there is no interval, and the verdict."""
    known = not math.isnan(low)
    return {"low": low if known else None, "high": high if known else None, "verdict": verdict}
