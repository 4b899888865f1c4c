"""How one score changed from one table to another: the figures, and what they say in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mst_clipiqa.analysis.pairing import Pairing, plural_of
from mst_clipiqa.analysis.rows import LOWER_BETTER
from mst_clipiqa.analysis.unfamiliar import Unfamiliar
from mst_clipiqa.analysis.verdict import decimals, interval_cells, verdict_of, written

_COUNTED = ("target", "group", "paired_by", "unit", "old_count", "new_count", "old", "new", "difference")
CHANGE_COLUMNS = (*_COUNTED, "low", "high", "verdict", "old_unfamiliar_share", "new_unfamiliar_share")
"""The columns of a table of changes."""


@dataclass(frozen=True)
class Change:
    """How one score changed from one table to the other.

    Attributes:
        target: which score.
        group: the generator or category; empty for all rows.
        pairing: how the tables were paired: by "prompt", by "file", or "none".
        unit: what counts once: "prompt", however many images it has, "image", or "prompt or image" if only some images
            have a prompt.
        old_count, new_count: how many of these were compared; the same number if they are paired.
        old, new: mean score over them.
        difference: new - old.
        low, high: interval of the difference over resampled prompts or images; NaN with fewer than two.
        level: the confidence level, such as 0.95.
        also: further columns that a pair shares, such as ("seed",).
        old_unfamiliar, new_unfamiliar: how many of the images are unlike the training images; a share of about 0.05
            is to be expected. None if unknown.
    """

    target: str
    group: str
    pairing: Pairing
    unit: str
    old_count: int
    new_count: int
    old: float
    new: float
    difference: float
    low: float
    high: float
    level: float
    also: tuple[str, ...] = ()
    old_unfamiliar: Unfamiliar | None = None
    new_unfamiliar: Unfamiliar | None = None

    @property
    def verdict(self) -> str:
        """Return "better", "worse", "no difference", or "unknown" if there is no interval."""
        return verdict_of(self.low, self.high, lower_better=self.target in LOWER_BETTER)

    @property
    def over(self) -> str:
        """Return in words what was compared: "over 48 prompts"."""
        if self.pairing == "none":
            units = plural_of(self.unit)
            return f"over {self.old_count:,} old and {self.new_count:,} new {units} that are not paired"
        name = plural_of(self.unit) if self.new_count != 1 else self.unit
        found = f"over {self.new_count:,} {name}" + (" of the same name" if self.unit == "image" else "")
        return found + (f", paired by {' and '.join(self.also)}" if self.also else "")

    @property
    def evidence(self) -> str:
        """Return the difference in words, with its interval and what was compared."""
        return f"{written(self.difference, self.low, self.high, self.level)} {self.over}"

    def sentence(self) -> str:
        """Return the change in words."""
        start = f"{self.group}: the" if self.group else "The"
        if self.verdict == "unknown":
            minus = f"{self.difference:z.{decimals(self.difference)}f}"
            return (
                f"{start} difference in {self.target}, new minus old, is {minus} {self.over}, too few for an interval."
            )
        if self.verdict == "no difference":
            return f"{start} new images do not differ measurably from the old in {self.target}: {self.evidence}."
        return f"{start} new images are {self.verdict} in {self.target} by {self.size}."

    @property
    def size(self) -> str:
        """Return the absolute difference in words, as ``evidence`` does."""
        low, high = (self.low, self.high) if self.difference > 0 else (-self.high, -self.low)
        return f"{written(abs(self.difference), low, high, self.level)} {self.over}"

    def to_row(self) -> dict[str, Any]:
        """Return the change as a row of a table; an undefined interval is empty."""
        return {
            "target": self.target,
            "group": self.group or None,
            "paired_by": ",".join((self.pairing, *self.also)),
            "unit": self.unit,
            "old_count": self.old_count,
            "new_count": self.new_count,
            "old": self.old,
            "new": self.new,
            "difference": self.difference,
            **interval_cells(self.low, self.high, self.verdict),
            "old_unfamiliar_share": self.old_unfamiliar and self.old_unfamiliar.share,
            "new_unfamiliar_share": self.new_unfamiliar and self.new_unfamiliar.share,
        }
