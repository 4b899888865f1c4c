"""Two tables of scores with what pairs their rows, and the values of each score that are compared between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.pairing import Pairing, Side, differences_of, number_keys, pair_sides, side_of, unit_of
from mst_clipiqa.analysis.rows import texts
from mst_clipiqa.analysis.unfamiliar import Unfamiliar, count_unfamiliar
from mst_clipiqa.evaluate.resampling import Interval, Resampling
from mst_clipiqa.tables.columns import Table


@dataclass(frozen=True)
class Compared:
    """What is compared of a score.

    Attributes:
        target: the score.
        group: the generator or category; empty for all rows.
        before, after: its values in the old and the new table.
        unfamiliar: how many images of each table are unlike the training images; None if unknown.
    """

    target: str
    group: str
    before: Side
    after: Side
    unfamiliar: tuple[Unfamiliar | None, Unfamiliar | None]


@dataclass(frozen=True)
class BothTables:
    """Two tables and how they are paired.

    Attributes:
        old, new: scored rows, the frames of an image as one row.
        pairing: what names a value.
        folders: what ``folders_of`` returns for the whole tables.
        also: further columns that a pair must share.
    """

    old: Table
    new: Table
    pairing: Pairing
    folders: tuple[str, str]
    also: tuple[str, ...]

    def only(self, column: str, group: str) -> BothTables:
        """Return the rows that have this text in a column."""
        old, new = (
            rows.take([place for place, cell in enumerate(texts(rows, column)) if cell == group])
            for rows in (self.old, self.new)
        )
        return replace(self, old=old, new=new)

    def compared(self, targets: Sequence[str], group: str = "") -> list[Compared]:
        """Return what can be compared of the scores ``targets``; ``group`` names the rows."""
        unfamiliar = count_unfamiliar(self.old), count_unfamiliar(self.new)
        keys = number_keys((self.old, self.new), self.pairing, self.folders, self.also)
        found = []
        for target in targets:
            old = side_of(self.old, target, keys.old, self.pairing)
            new = side_of(self.new, target, keys.new, self.pairing)
            if pair := pair_sides(old, new, self.pairing, keys.names):
                found.append(Compared(target, group, *pair, unfamiliar))
        return found

    def changes(self, compared: Sequence[Compared], resampling: Resampling) -> list[Change]:
        """Return how each score changed, with its interval."""
        gaps = differences_of([(one.before, one.after) for one in compared], self.pairing, resampling)
        return [self._change(one, gap) for one, gap in zip(compared, gaps, strict=True)]

    def _change(self, one: Compared, gap: Interval) -> Change:
        before, after = one.before, one.after
        return Change(
            one.target,
            one.group,
            self.pairing,
            unit_of(before.prompts + after.prompts, len(before.values) + len(after.values)),
            old_count=len(before.values),
            new_count=len(after.values),
            old=before.mean,
            new=after.mean,
            difference=gap.value,
            low=gap.low,
            high=gap.high,
            level=gap.level,
            old_unfamiliar=one.unfamiliar[0],
            new_unfamiliar=one.unfamiliar[1],
            also=self.also,
        )
