"""compare: which of two images is better, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_clipiqa.analysis.rows import Row, number, text
from mst_clipiqa.errors import UsageError, shown

SURE = 0.95
"""How probable a winner must be before it is called one."""
HALF_WIDTH_90 = 1.6448536269514722
"""Half the width of a 90 % interval of a normal distribution, in standard deviations."""
LOW, HIGH = "_low", "_high"


@dataclass(frozen=True)
class Comparison:
    """Two images by one score.

    Attributes:
        target: "quality", "correspondence" or another score of the table.
        a, b: the two scores; None where there is none.
        difference: a - b, in the units of the score.
        probability: that people would rate A higher than B; None where the model was not calibrated.
        verdict: "A", "B", "equal", "too close to call", "not sure how sure" (uncalibrated) or "not compared".
    """

    target: str
    a: float | None
    b: float | None
    difference: float | None
    probability: float | None
    verdict: str

    def sentence(self) -> str:
        """Return it in words."""
        name = self.target.capitalize()
        if self.a is None or self.b is None or self.difference is None:
            return f"{name}: not compared, {'neither has' if self.a is self.b else 'only one has'} a score."
        if self.difference == 0:
            return f"{name}: the same score, {self.a:.2f}."
        better, worse = ("A", "B") if self.difference > 0 else ("B", "A")
        high, low = max(self.a, self.b), min(self.a, self.b)
        start = f"{name}: {better} is ahead of {worse} by {abs(self.difference):.2f} ({high:.2f} against {low:.2f})"
        if self.probability is None:
            return f"{start}; how sure that is cannot be said, because the model was not calibrated."
        chance = max(self.probability, 1 - self.probability)
        if self.verdict == "too close to call":
            return f"{start}, too close to call: people would agree with {_percent(chance)}."
        return f"{start}; {better} is better with {_percent(chance)}."

    def to_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "target": self.target,
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "probability_a": self.probability,
            "verdict": self.verdict,
        }


def compare_scores(a: Row, b: Row, targets: Sequence[str] = ("quality", "correspondence")) -> list[Comparison]:
    """Compare two rows of a scores table, score by score.

    How sure: each score's 90 % interval (columns ``quality_low``, ``quality_high`` and so on) is taken for that of
    a normal distribution around it, and the errors of the two scores for independent; then the difference is
    normal too. Errors on images of one prompt tend to go together, so the truth is rather surer than this says.

    Args:
        a, b: rows with the columns of the scores table.
        targets: which scores.
    """
    return [_compare(target, a, b) for target in targets]


def row_of(rows: Sequence[Row], file: str, prompt: str | None = None) -> Row:
    """Return the row of a file, by the name in the table or else by the last part of it.

    Raises:
        UsageError: there is no such row, or there are several.
    """
    fitting = [row for row in rows if prompt is None or text(row, "prompt") == prompt]
    found = [row for row in fitting if text(row, "file") == file]
    found = found or [row for row in fitting if Path(text(row, "file")).name == Path(file).name]
    if len(found) != 1:
        hint = "name it as the table does" if not found else "give the prompt, or the file's name with its folder"
        raise UsageError(f"Expected one row of the table to be {shown(file)}, got {len(found)}: {hint}.")
    return found[0]


def intervals_to_columns(intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the intervals of a Score as the columns that ``compare_scores`` reads."""
    lows = {f"{name}{LOW}": low for name, (low, _) in intervals.items()}
    return lows | {f"{name}{HIGH}": high for name, (_, high) in intervals.items()}


def _compare(target: str, a: Row, b: Row) -> Comparison:
    value_a, value_b = number(a, target), number(b, target)
    if value_a is None or value_b is None:
        return Comparison(target, value_a, value_b, None, None, "not compared")
    difference = value_a - value_b
    chance = _probability(difference, _spread(a, target, value_a), _spread(b, target, value_b))
    if difference == 0:
        verdict = "equal"
    elif chance is None:
        verdict = "not sure how sure"
    elif max(chance, 1 - chance) < SURE:
        verdict = "too close to call"
    else:
        verdict = "A" if difference > 0 else "B"
    return Comparison(target, value_a, value_b, difference, chance, verdict)


def _spread(row: Row, target: str, value: float) -> float | None:
    """Return the standard deviation of a score's error; the longer arm counts, as the scale's end cuts the other."""
    low, high = number(row, target + LOW), number(row, target + HIGH)
    if low is None or high is None:
        return None
    arm = max(value - low, high - value)
    return arm / HALF_WIDTH_90 if arm > 0 else None


def _probability(difference: float, spread_a: float | None, spread_b: float | None) -> float | None:
    """Return the probability that A is better: Phi(difference / sqrt(spread_a^2 + spread_b^2))."""
    if spread_a is None or spread_b is None:
        return None
    return 0.5 * (1 + math.erf(difference / math.hypot(spread_a, spread_b) / math.sqrt(2)))


def _percent(chance: float) -> str:
    if chance > 0.995:
        return "more than 99 % probability"
    return f"{100 * chance:.0f} % probability"
