"""Images unlike those that the model was trained on: their scores stay, but no certainty is claimed for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mst_clipiqa.analysis.rows import Row, number, numbers, text
from mst_clipiqa.errors import DataError, are, shown
from mst_clipiqa.evaluate.caution import UNFAMILIAR, is_unfamiliar

_WORTH_A_WARNING = 2 * UNFAMILIAR  # twice what is to be expected of images of the training kind
_IMAGES_NAMED, _GROUPS_NAMED = 3, 5  # in a sentence


@dataclass(frozen=True)
class Unfamiliar:
    """How many images are unfamiliar, and of how many this is known (at least 1)."""

    images: int
    of: int

    @property
    def share(self) -> float:
        """The share of unfamiliar images, 0..1."""
        return self.images / self.of


def count_unfamiliar(rows: Sequence[Row]) -> Unfamiliar | None:
    """Count the unfamiliar images among the rows with a familiarity; None if no row has one.

    Raises:
        DataError: a familiarity is not a number.
    """
    known = [value for value in numbers(rows, "familiarity") if not math.isnan(value)]
    return Unfamiliar(sum(map(is_unfamiliar, known)), len(known)) if known else None


def say_unfamiliar(rows: Sequence[Row]) -> str:
    """Return a sentence that counts the unfamiliar images and names the first few; empty if there are none.

    A familiarity that is not a number counts as unknown: this sentence comes after a command's work, which it must not
    fail.
    """
    found = [row for row in rows if _is_known_unfamiliar(row)]
    if not found:
        return ""
    files = ", ".join(shown(text(row, "file"), 80) for row in found[:_IMAGES_NAMED])
    more = f" and {len(found) - _IMAGES_NAMED:,} more" if len(found) > _IMAGES_NAMED else ""
    their = "their" if len(found) > 1 else "its"
    return (
        f"{len(found):,} of {len(rows):,} images {are(len(found))} unlike those that the model was trained on, so "
        f"{their} scores are less certain: {files}{more}."
    )


def _is_known_unfamiliar(row: Row) -> bool:
    try:
        return is_unfamiliar(number(row, "familiarity"))
    except DataError:
        return False


def say_many_unfamiliar(counts: Mapping[str, Unfamiliar | None], where: str) -> str:
    """Return a sentence if more than a tenth of a table's images, or of a group's, are unfamiliar; else nothing.

    It has counts, not shares: a share would hide how few images it is of.

    Args:
        counts: of each group; of the whole table under "". None if unknown.
        where: the table, in words: "the new table".
    """
    many = {group: one for group, one in counts.items() if one is not None and one.share > _WORTH_A_WARNING}
    if not many:
        return ""
    some = sorted(many, key=lambda group: (group != "", -many[group].share))[:_GROUPS_NAMED]
    whose = [f"{many[one].images:,} of {many[one].of:,} {f'of {shown(one, 40)}' if one else 'images'}" for one in some]
    be = are(sum(many[one].images for one in some))
    listed = " and ".join(filter(None, (", ".join(whose[:-1]), whose[-1])))
    return (
        f"In {where}, {listed} {be} unlike those that the model was trained on, so a mean or a difference may come "
        "from the model's errors."
    )
