"""The pieces of an explanation: streams, words and maps, as arrays and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mst_clipiqa.errors import UsageError, nearest

Float32Array = NDArray[np.float32]
MapStream = Literal["coarse", "fine", "both"]
Box = tuple[float, float, float, float]

ENCODER_STREAMS: tuple[MapStream, ...] = ("coarse", "fine")
STREAMS: tuple[MapStream, ...] = (*ENCODER_STREAMS, "both")


@dataclass(frozen=True)
class Fusion:
    """How much of one target's answer comes from each stream.

    z = z_c + z_f with z_c = g * (W_c f_c + b_c) and z_f = (1 - g) * (W_f f_f + b_f).

    Attributes:
        gate: mean of g, 0..1: the share of the coarse stream before the maps W_c and W_f have their say.
        gates: g, float32 (D,), one share a dimension.
        share: z_c . z / |z|^2, the part of the fused feature that the coarse stream makes up; with that of the fine
            stream it adds up to 1, and it lies outside 0..1 where one stream works against the other.
        coarse_alone: score where the head is given z_c alone, native units.
        fine_alone: score where the head is given z_f alone, native units.
    """

    gate: float
    gates: Float32Array
    share: float
    coarse_alone: float
    fine_alone: float

    def sentence(self, target: str) -> str:
        """Return the shares in words, beginning with the target's name."""
        return (
            f"{target}: {self.share:.0%} of the answer is the coarse stream's (gate {self.gate:.0%}); "
            f"alone, coarse says {self.coarse_alone:.2f} and fine {self.fine_alone:.2f}."
        )


@dataclass(frozen=True)
class Word:
    """What one word of the prompt does to the score.

    Attributes:
        text: the word as written.
        attention: share of the prompt head's attention on the word's tokens, 0..1; None where nothing attends.
        effect: score with the word minus score without it, native units; negative where the word lowers the score.
    """

    text: str
    attention: float | None
    effect: float


@dataclass(frozen=True)
class Maps:
    """Where one target's score is lost: float32 (rows, columns), higher is worse.

    A value says how much less a window has left to lose than the windows have on average (``METHOD``, maps.py), in
    log-odds of the score; for targets that read prompts, how much less it scores than they do, in native units. The
    maps of one stream keep the other stream's feature as it is.

    Attributes:
        coarse: only the coarse stream sees windows.
        fine: only the fine stream does.
        windows: float32 (rows, columns, 4): left, top, right, bottom of each window, 0..1 of width and height;
            neighbours overlap.
    """

    coarse: Float32Array
    fine: Float32Array
    windows: Float32Array

    @property
    def both(self) -> Float32Array:
        """The root of the summed squares of what the two find lost, 0 where neither does, float32 (rows, columns).

        Each sees faults that the other is blind to, and then likes what it sees (rates: docs/explain.md). So what one
        finds better than the mean window takes nothing off what the other finds worse, and one clear finding counts
        more than two faint ones.
        """
        lost: Float32Array = np.hypot(self.coarse.clip(min=0), self.fine.clip(min=0))
        return lost

    def of(self, stream: MapStream) -> Float32Array:
        """Return the map of a stream, "coarse", "fine" or "both"."""
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
        """Return where most is lost, and how much, in words."""
        left, top, right, bottom = self.worst(stream)
        lost = float(self.of(stream).max())
        spot = _place(left + right, top + bottom)
        return f"{stream}: most {target} is lost {spot}, {lost:.2f} more than in the mean window."


def _place(across: float, down: float) -> str:
    """Return a spot in words; ``across`` and ``down`` are twice the centre's, 0..2."""
    column = ("left", "centre", "right")[min(2, int(across * 1.5))]
    row = ("top", "middle", "bottom")[min(2, int(down * 1.5))]
    return "in the middle" if (row, column) == ("middle", "centre") else f"at the {row} {column}"
