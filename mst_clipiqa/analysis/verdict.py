"""What an interval of a difference says: better, worse, no difference, or nothing; and how it is written."""

from __future__ import annotations

import math
from collections.abc import Sequence


def verdict_of(low: float, high: float, *, lower_better: bool = False) -> str:
    """Return "better", "worse", "no difference", or "unknown" if there is no interval.

    Args:
        low, high: ends of the interval of a difference; both NaN if there is none.
        lower_better: whether a score that falls has become better.

    Example:
        >>> verdict_of(0.1, 0.4), verdict_of(-0.1, 0.4), verdict_of(math.nan, math.nan)
        ('better', 'no difference', 'unknown')
    """
    if math.isnan(low):
        return "unknown"
    if low <= 0 <= high:
        return "no difference"
    return "better" if (high < 0) is lower_better else "worse"


def say_by_chance(verdicts: Sequence[str], level: float, of: str = "") -> str:
    """Return how many of several comparisons are to be expected to find a difference by chance; empty for one.

    Args:
        verdicts: of all comparisons; "unknown" does not count, as it cannot find any.
        level: their confidence level.
        of: what is compared, such as " of groups".

    Example:
        >>> say_by_chance(["better", "worse", "unknown"], 0.95)
        'Of 2 comparisons at 95 %, about 0.1 would come out better or worse by chance if nothing had changed.'
    """
    count = sum(verdict != "unknown" for verdict in verdicts)
    if count < 2:
        return ""
    return (
        f"Of {count:,} comparisons{of} at {100 * level:g} %, about {(1 - level) * count:.1f} would come out better or "
        "worse by chance if nothing had changed."
    )


def decimals(*values: float) -> int:
    """Return how many decimals, 2 to 6, tell different values apart, from each other and from zero.

    Example:
        >>> decimals(0.25, -0.5), decimals(0.012, 0.004), decimals(0.0, 0.0), decimals(0.000001)
        (2, 3, 2, 6)
    """
    exact = {0.0, *(round(value, 6) for value in values)}
    return next((n for n in range(2, 6) if len({round(value, n) for value in exact}) == len(exact)), 6)


def written(value: float, low: float, high: float, level: float, sign: str = "") -> str:
    """Return a difference with its interval, as "0.41 (95 % 0.22 to 0.60)"; ``sign`` "+" marks what is positive."""
    form = f"{sign}z.{decimals(value, low, high)}f"
    return f"{value:{form}} ({100 * level:g} % {low:{form}} to {high:{form}})"


def interval_cells(low: float, high: float, verdict: str) -> dict[str, float | str | None]:
    """Return the end of a row: low and high, empty if there is no interval, and the verdict."""
    known = not math.isnan(low)
    return {"low": low if known else None, "high": high if known else None, "verdict": verdict}
