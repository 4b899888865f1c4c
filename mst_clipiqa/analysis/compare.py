"""compare: which of two images is better, by how much, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_clipiqa.analysis.rows import Row, file_of, number, prompt_of, text
from mst_clipiqa.analysis.verdict import decimals
from mst_clipiqa.errors import UsageError, percent, shown
from mst_clipiqa.evaluate.caution import is_unfamiliar

if TYPE_CHECKING:
    from mst_clipiqa.scoring.score import Score

SURE = 0.95
"""A winner is named if its probability is at least this."""
HALF_WIDTH_90 = 1.6448536269514722
"""Half-width of a 90 % interval of a normal distribution, in standard deviations."""
TARGETS = ("quality", "correspondence")


@dataclass(frozen=True)
class Comparison:
    """Two images compared by one score.

    Attributes:
        target: "quality", "correspondence" or another score of the table.
        a, b: the two scores; None if there is none.
        difference: a - b, in the units of the score.
        probability: that people would rate A higher than B, if both images are like those that calibrated the
            intervals; None if there are no intervals to compute it from.
        verdict: "A", "B", "equal", "too close to call", "unfamiliar" (it would be "A" or "B", but one of the images is
            unlike the training images), "uncalibrated" (the model), "no interval" (in the table) or "not compared".
        familiarity_a, familiarity_b: of the two images, 0..1; None if the model has no reference.
    """

    target: str
    a: float | None
    b: float | None
    difference: float | None
    probability: float | None
    verdict: str
    familiarity_a: float | None = None
    familiarity_b: float | None = None

    def sentence(self, names: tuple[str, str] = ("A", "B")) -> str:
        """Return the comparison in words; ``names`` are what to call the two images."""
        name = self.target.capitalize()
        if self.a is None or self.b is None or self.difference is None:
            return f"{name}: not compared, {'neither has' if self.a is self.b else 'only one has'} a score."
        if self.difference == 0:
            return f"{name}: the same score, {self.a:z.2f}."
        better, worse = names if self.difference > 0 else names[::-1]
        high, low = max(self.a, self.b), min(self.a, self.b)
        digits = decimals(self.difference)
        gap, scores = f"{abs(self.difference):.{digits}f}", f"{high:z.{digits}f} against {low:z.{digits}f}"
        start = f"{name}: {better} is ahead of {worse} by {gap} ({scores})"
        if self.verdict == "no interval":
            return f"{start}; there is no probability, because the table has no intervals: score with --intervals."
        if self.probability is None:
            return f"{start}; there is no probability, because the model is not calibrated."
        chance = _percent(max(self.probability, 1 - self.probability))
        strange = self._unfamiliar(names)
        if self.verdict == "too close to call":
            condition = " if both images were like the training images" if strange else ""
            return f"{start}, too close to call (below {percent(SURE)}): people would agree with {chance}{condition}."
        if strange:
            return (
                f"{start}; no winner is named, because {strange} unlike the images that the model was trained on. "
                f"If both images were like them, {better} would be better with {chance}."
            )
        return f"{start}; {better} is better with {chance}."

    def _unfamiliar(self, names: tuple[str, str]) -> str:
        """Return which images are unlike the training images, with a verb; empty if neither is."""
        pairs = zip(names, (self.familiarity_a, self.familiarity_b), strict=True)
        found = [name for name, familiarity in pairs if is_unfamiliar(familiarity)]
        return f"{found[0]} is" if len(found) == 1 else "both are" if found else ""

    def to_row(self) -> dict[str, Any]:
        """Return the comparison as a row of a table."""
        return {
            "target": self.target,
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "probability_a": self.probability,
            "verdict": self.verdict,
            "familiarity_a": self.familiarity_a,
            "familiarity_b": self.familiarity_b,
        }


def compare_scores(a: Score, b: Score, targets: Sequence[str] = TARGETS) -> list[Comparison]:
    """Compare the scores of two images, target by target.

    The probability takes each 90 % interval as that of a normal distribution around its score, and the errors of the
    two scores as independent, so the difference is normal too. Errors on images of the same prompt are positively
    correlated, so the true confidence is somewhat higher than stated here. On images unlike those that calibrated the
    intervals it may be lower (docs/reliability.md has what was measured), so no winner is named if the familiarity of
    either image is below 0.05.

    Args:
        a, b: the scores of two images by one model.
        targets: names of the scores to compare.
    """
    side_a, side_b = (_Side(one.targets, one.intervals, one.familiarity) for one in (a, b))
    return [_compare(t, side_a, side_b) for t in targets]


def compare_rows(a: Row, b: Row, targets: Sequence[str] = TARGETS) -> list[Comparison]:
    """Compare two rows of a table of scores as ``compare_scores`` does, by columns such as ``quality_low``.

    Raises:
        DataError: a cell that should hold a number does not.
    """
    side_a, side_b = _side(a, targets), _side(b, targets)
    # A table written with intervals has the columns, empty if the model is not calibrated.
    is_written = {t: f"{t}_low" in a and f"{t}_low" in b for t in targets}
    return [_compare(t, side_a, side_b, "uncalibrated" if is_written[t] else "no interval") for t in targets]


def row_of(rows: Sequence[Row], file: str, prompt: str | None = None) -> Row:
    """Return the row of a file, found by its name in the table or by the last part of it.

    Raises:
        UsageError: no row matches, or several do.
    """
    fitting = [row for row in rows if prompt is None or prompt_of(row) == prompt.strip()]
    found = _named(fitting, file)
    if not found and (others := _named(rows, file)):
        prompts = ", ".join(dict.fromkeys(shown(text(row, "prompt"), 60) for row in others[:3]))
        raise UsageError(
            f"Expected a row of {shown(file)} with the prompt {shown(prompt, 60)}, got {prompts}: give that prompt, or "
            "omit --prompt."
        )
    if len(found) != 1:
        hint = "name it as the table does" if not found else "give the prompt, or the file's name with its folder"
        raise UsageError(f"Expected one row of the table to be {shown(file)}, got {len(found)}: {hint}.")
    return found[0]


def _named(rows: Sequence[Row], file: str) -> list[Row]:
    file = file.replace("\\", "/")
    exactly = [row for row in rows if file_of(row) == file]
    return exactly or [row for row in rows if Path(file_of(row)).name == Path(file).name]


@dataclass(frozen=True)
class _Side:
    """What is known of one image: each target's score and interval, and the familiarity."""

    scores: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    familiarity: float | None


def _side(row: Row, targets: Sequence[str]) -> _Side:
    ends = {t: (number(row, f"{t}_low"), number(row, f"{t}_high")) for t in targets}
    known = {t: (low, high) for t, (low, high) in ends.items() if low is not None and high is not None}
    return _Side({t: number(row, t) for t in targets}, known, number(row, "familiarity"))


def _compare(target: str, a: _Side, b: _Side, doubt: str = "uncalibrated") -> Comparison:
    """Return a comparison; ``doubt`` is the verdict if an interval is missing."""
    familiarity = a.familiarity, b.familiarity
    score_a, score_b = a.scores.get(target), b.scores.get(target)
    if score_a is None or score_b is None:
        return Comparison(target, score_a, score_b, None, None, "not compared", *familiarity)
    difference = score_a - score_b
    arms = _arm(score_a, a.intervals.get(target)), _arm(score_b, b.intervals.get(target))
    chance = None if arms[0] is None or arms[1] is None else probability(difference, arms[0], arms[1])
    if difference == 0:
        verdict = "equal"
    elif chance is None:
        verdict = doubt
    elif max(chance, 1 - chance) < SURE:
        verdict = "too close to call"
    elif any(map(is_unfamiliar, familiarity)):
        verdict = "unfamiliar"
    else:
        verdict = "A" if difference > 0 else "B"
    return Comparison(target, score_a, score_b, difference, chance, verdict, *familiarity)


def _arm(value: float, ends: tuple[float, float] | None) -> float | None:
    arm = 0.0 if ends is None else longer_arm(value, ends)
    return arm if arm > 0 else None


def longer_arm(value: float, ends: tuple[float, float]) -> float:
    """Return the longer arm of an interval of a score: the scale's end may cut the other."""
    return max(value - ends[0], ends[1] - value)


def probability(difference: float, half_a: float, half_b: float) -> float:
    """Return the probability that A is better, from the half-widths of both 90 % intervals, not cut by the scale."""
    return 0.5 * (1 + math.erf(difference * HALF_WIDTH_90 / math.hypot(half_a, half_b) / math.sqrt(2)))


def _percent(chance: float) -> str:
    if chance > 0.995:
        return "more than 99 % probability"
    whole = 100 * chance
    return f"{whole if chance >= SURE else math.floor(whole + 1e-9):.0f} % probability"  # 94.9 is not yet 95
