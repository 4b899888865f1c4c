"""The results of an explanation: streams, words and maps, as arrays and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.errors import UsageError, nearest, percent, shown

Float32Array = NDArray[np.float32]
MapStream = Literal["coarse", "fine", "both"]
MapUnit = Literal["log-odds", "points"]
Box = tuple[float, float, float, float]

ENCODER_STREAMS: tuple[MapStream, ...] = ("coarse", "fine")
STREAMS: tuple[MapStream, ...] = (*ENCODER_STREAMS, "both")


@dataclass(frozen=True)
class Fusion:
    """How much of one target's score comes from each stream.

    z = z_c + z_f with z_c = g * (W_c f_c + b_c) and z_f = (1 - g) * (W_f f_f + b_f).

    Attributes:
        gate: mean of g, 0..1: the weight of the coarse stream, before W_c and W_f are applied.
        gates: g, float32 (D,), one weight per dimension.
        share: z_c . z / |z|^2, the part of the fused feature from the coarse stream. The shares of both streams add
            up to 1; a share is outside 0..1 if the streams work against each other.
        coarse_alone: score of the head from z_c alone, native units.
        fine_alone: score of the head from z_f alone, native units.
    """

    gate: float
    gates: Float32Array
    share: float
    coarse_alone: float
    fine_alone: float

    def sentence(self, target: str) -> str:
        """Return the shares as a sentence that begins with the target's name."""
        whence = f"{percent(self.share)} of the result comes from the coarse stream (mean gate {percent(self.gate)})"
        if not 0 <= self.share <= 1:
            stronger = "coarse" if self.share > 1 else "fine"
            whence = (
                f"the streams pull in opposite directions, the {stronger} one harder (mean gate {percent(self.gate)})"
            )
        return (
            f"{target}: {whence}; "
            f"alone, the coarse stream would give {self.coarse_alone:.2f} and the fine one {self.fine_alone:.2f} "
            "(the score comes from the sum of their features, so it is not the mean of these two)."
        )


@dataclass(frozen=True)
class Word:
    """What one word of the prompt does to the score.

    Attributes:
        text: the word as written, without punctuation around it.
        attention: share of the prompt head's attention on the word's tokens, 0..1; None for a head without attention.
        effect: score with the word minus score without it, native units; negative where the word lowers the score.
            Neither score is cut off at the ends of its scale, so that a word has an effect there too.
    """

    text: str
    attention: float | None
    effect: float


def words_sentence(target: str, words: Sequence[Word]) -> str:
    """Return which words raise and lower a score most, as a sentence; effects that round to 0.00 are none."""
    felt = [word for word in words if round(word.effect, 2)]
    least, most = min(felt, key=_effect, default=None), max(felt, key=_effect, default=None)
    if least is None or most is None:
        return f"{target}: no word changes it by 0.01 or more."
    down = f"{shown(least.text)} lowers it most ({least.effect:+.2f})"
    if most.effect < 0:
        return f"{target}: {down}; no word raises it."
    if least.effect > 0:
        return f"{target}: {shown(most.text)} raises it most ({most.effect:+.2f}); no word lowers it."
    return f"{target}: {down}, {shown(most.text)} raises it most ({most.effect:+.2f})."


def _effect(word: Word) -> float:
    return word.effect


@dataclass(frozen=True)
class Maps:
    """Where one target's score is lost: float32 (rows, columns), higher is worse.

    A value is how much less the window can still lose than the average window (maps.py), in log-odds of the score; for
    targets that read prompts, how much lower it scores than the average window, in points: units of the ratings. The
    map of one stream keeps the other stream's feature fixed.

    Attributes:
        coarse: the map if only the coarse stream sees windows.
        fine: the map if only the fine stream sees windows.
        both: the mean of ``fine`` and the map if both streams see windows.
        windows: float32 (rows, columns, 4): left, top, right, bottom of each window, 0..1 of width and height;
            neighbours overlap.
        unit: of the values of the three maps.
    """

    coarse: Float32Array
    fine: Float32Array
    both: Float32Array
    windows: Float32Array
    unit: MapUnit

    def of(self, stream: MapStream) -> Float32Array:
        """Return the map of a stream: "coarse", "fine" or "both"."""
        if stream not in STREAMS:
            raise UsageError(f"Expected the stream coarse, fine or both, got {stream!r}{nearest(stream, STREAMS)}.")
        found: Float32Array = getattr(self, stream)
        return found

    def worst(self, stream: MapStream = "both") -> Box:
        """Return the window where most is lost: left, top, right, bottom, 0..1 of width and height."""
        lost = self.of(stream)
        row, column = np.unravel_index(int(lost.argmax()), lost.shape)
        left, top, right, bottom = self.windows[row, column].tolist()
        return left, top, right, bottom

    def sentence(self, stream: MapStream, target: str) -> str:
        """Return where most is lost, and how much, as a sentence."""
        left, top, right, bottom = self.worst(stream)
        lost = float(self.of(stream).max())
        spot = _place(left + right, top + bottom)
        return f"{stream}: most {target} is lost {spot}, {lost:.2f} {self.unit} more than in an average window."


def _place(across: float, down: float) -> str:
    """Return a position in words; ``across`` and ``down`` are twice the coordinates of the centre, 0..2."""
    column = ("left", "centre", "right")[min(2, int(across * 1.5))]
    row = ("top", "middle", "bottom")[min(2, int(down * 1.5))]
    return "in the middle" if (row, column) == ("middle", "centre") else f"at the {row} {column}"
