"""What ``mst-clipiqa train`` is asked to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mst_clipiqa.data import Preference, PreferenceSet, RatedSet, Record, Split, rated_for
from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.model.mst_clipiqa import Head
from mst_clipiqa.train.recipe import Recipe


@dataclass(frozen=True)
class TrainingJob:
    """What to train.

    Attributes:
        rated: the rated set; with pairs alone, their images without ratings, on the head's own scale 1..5.
        split: its training, validation and test parts.
        target: the target to predict.
        head: "template" or "prompt".
        recipe: how to train.
        out: the model folder.
        leave_out: whether to calibrate the intervals also on each generator left out of a training of its own.
        preferences: pairs to train on; the split has their images too. With pairs, no generator is left out.

    Raises:
        UsageError: the set has no such target.
    """

    rated: RatedSet
    split: Split
    target: str
    head: Head
    recipe: Recipe
    out: Path
    leave_out: bool = True
    preferences: PreferenceSet | None = None

    def __post_init__(self) -> None:
        """Check the target."""
        if self.target not in self.rated.ranges:
            known = ", ".join(self.rated.ranges)
            hint = nearest(self.target, self.rated.ranges)
            raise UsageError(f"Expected a target of {self.rated.name} ({known}), got {self.target!r}{hint}.")

    @property
    def scale(self) -> tuple[float, float]:
        """Return the native range of the target."""
        return self.rated.ranges[self.target]

    @cached_property
    def usable(self) -> Split:
        """Return the split with only the images that have a rating of the target or are in a pair."""
        if not self.preferences:
            return self.split.rated(self.target)
        in_pairs = {record.name for record in self.preferences.images.records}
        return self.split.only(lambda record: self.target in record.targets or record.name in in_pairs)

    @property
    def has_ratings(self) -> bool:
        """Return whether there are ratings, without which scores are not calibrated."""
        return bool(rated_for(self.rated.records, self.target))

    def rated_only(self, records: Sequence[Record]) -> list[Record]:
        """Return the records with a rating."""
        return list(rated_for(records, self.target))

    def pairs(self, records: Sequence[Record]) -> tuple[Preference, ...]:
        """Return the pairs among some records."""
        return self.preferences.among(records) if self.preferences else ()
