"""Granularities: how much of an image the encoders look at.

    coarse      the coarse stream alone; f_f is estimated from f_c
    native:K    also K of the fine stream's native crops; f_f is estimated from both
    fine        both streams in full, as in training
    auto:TOL    of each image one of these: of 95 % of those below fine, no score should change by more than TOL

TOL is a share of a score's scale. The three above are the granularities that a row can have.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from mst_clipiqa.errors import UsageError, nearest, shown
from mst_clipiqa.model.preprocess import ViewSpec

FINE, COARSE = "fine", "coarse"
AUTO_TOLERANCE = 0.06
"""The tolerance of ``auto``, a share of a score's scale."""

CALIBRATION_FILE = "granularity.safetensors"
"""The file of a model folder that says when an image needs no more than a coarser granularity."""

_MARK = re.compile(r" \((?:coarse|native:[0-9]+|auto:[0-9.e-]+|merge:[0-9]+)\)$")


@dataclass(frozen=True)
class Granularity:
    """What ``--granularity`` asks for.

    Attributes:
        kind: coarse, native, fine or auto.
        crops: K of native, a square number; 0 for the others.
        tolerance: of auto, a share of a score's scale; 0 for the others.
    """

    kind: Literal["coarse", "native", "fine", "auto"]
    crops: int = 0
    tolerance: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Granularity:
        """Return the granularity that a text names.

        Raises:
            UsageError: the text is no granularity.

        Example:
            >>> Granularity.parse("native:4")
            Granularity(kind='native', crops=4, tolerance=0.0)
            >>> str(Granularity.parse("auto"))
            'auto:0.06'
        """
        name, _, value = text.partition(":")
        if name == "auto":
            return cls("auto", tolerance=_tolerance(value) if value else AUTO_TOLERANCE)
        if name == "native" and value.isdecimal():
            return cls("native", crops=_crops(int(value)))
        if name in (FINE, COARSE) and name == text:
            return cls("fine" if name == FINE else "coarse")
        known = ("auto", "auto:TOL", COARSE, FINE, "native:K")
        raise UsageError(f"Expected the granularity {', '.join(known)}, got {shown(text)}{nearest(text, known)}.")

    def __str__(self) -> str:
        """Return the text that asks for it."""
        match self.kind:
            case "auto":
                return f"auto:{self.tolerance:g}"
            case "native":
                return native(self.crops)
        return self.kind

    def seen_by(self, view: ViewSpec) -> Granularity:
        """Return the same for encoders with this view, for which all of the native crops are ``fine``.

        Raises:
            UsageError: the fine stream sees no native crops, or fewer of them.
        """
        if self.kind != "native":
            return self
        if view.fine != "native":
            raise UsageError(
                f"Expected auto, coarse or fine for encoders that see no native crops, got {self}: choose one of these."
            )
        if self.crops > view.crops:
            raise UsageError(f"Expected at most native:{view.crops} for these encoders, got {self}: use fine.")
        return dataclasses.replace(self, kind="fine", crops=0) if self.crops == view.crops else self


def native(crops: int) -> str:
    """Return the granularity with this many native crops, as rows have it."""
    return f"native:{crops}"


def cheaper_than_fine(view: ViewSpec) -> list[str]:
    """Return the granularities that encoders with a view have beside ``fine``, those that look at least first.

    Example:
        >>> cheaper_than_fine(ViewSpec(fine="native", crops=9))
        ['coarse', 'native:1', 'native:4']
    """
    grid = round(view.crops**0.5) if view.fine == "native" else 1
    return [COARSE, *(native(k * k) for k in range(1, grid))]


def kept_crops(name: str, crops: int) -> list[int]:
    """Return which of a square number of native crops a granularity looks at: an even part of their grid.

    Example:
        >>> kept_crops("native:4", 9)
        [0, 2, 6, 8]
    """
    grid, kept = round(crops**0.5), round(int(name.partition(":")[2]) ** 0.5)
    lines = [round(i * (grid - 1) / (kept - 1)) for i in range(kept)] if kept > 1 else [(grid - 1) // 2]
    return [row * grid + column for row in lines for column in lines]


def with_setting(model: str, asked: Granularity, merge: int = 0) -> str:
    """Return the name of a model in rows of a granularity or with merged tokens, whose scores must not be mixed.

    Example:
        >>> with_setting("mini", Granularity.parse("coarse"))
        'mini (coarse)'
        >>> with_setting("red-fox", Granularity.parse("fine"), merge=16)
        'red-fox (merge:16)'
    """
    how = f"merge:{merge}" if merge else "" if asked.kind == FINE else str(asked)
    return f"{model} ({how})" if how else model


def without_setting(model: str) -> str:
    """Return the model's own name.

    Example:
        >>> without_setting("mini (auto:0.06)")
        'mini'
    """
    return _MARK.sub("", model)


def _tolerance(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:  # nor is nan
        raise UsageError(f"Expected a share of the scale between 0 and 1 in auto:TOL, got {shown(text)}.")
    return found


def _crops(number: int) -> int:
    if number < 1 or round(number**0.5) ** 2 != number:
        raise UsageError(f"Expected a square number of crops in native:K, got {number}: use 1, 4 or 9.")
    return number
