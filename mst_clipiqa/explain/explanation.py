"""What an explanation holds: arrays for those who compute, JSON for those who store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mst_clipiqa.errors import UsageError, nearest

if TYPE_CHECKING:
    from mst_clipiqa.scorer import Score

Floats = NDArray[np.float32]
Stream = Literal["coarse", "fine", "both"]
Box = tuple[float, float, float, float]

STREAMS: tuple[Stream, ...] = ("coarse", "fine", "both")
METHOD = (
    "isolation: each window of the picture is scored alone, mirrored until it fills the view. "
    "left = log-odds of its score minus the mean log-odds of itself blurred and compressed beyond use "
    "(targets that read prompts: its score, native units). "
    "lost = mean of left over all windows - left of this window"
)


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
    gates: Floats
    share: float
    coarse_alone: float
    fine_alone: float


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
        both: both do; the one to trust for the spot, the other two say which stream sees it.
        windows: float32 (rows, columns, 4): left, top, right, bottom of each window, 0..1 of width and height;
            neighbours overlap.
    """

    coarse: Floats
    fine: Floats
    both: Floats
    windows: Floats

    def of(self, stream: Stream) -> Floats:
        """Return the map of a stream, "coarse", "fine" or "both"."""
        if stream not in STREAMS:
            raise UsageError(f"Expected the stream coarse, fine or both, got {stream!r}{nearest(stream, STREAMS)}.")
        found: Floats = getattr(self, stream)
        return found

    def worst(self, stream: Stream = "both") -> Box:
        """Return the window where most is lost: left, top, right, bottom, 0..1 of width and height."""
        lost = self.of(stream)
        row, column = np.unravel_index(int(lost.argmax()), lost.shape)
        left, top, right, bottom = self.windows[row, column].tolist()
        return left, top, right, bottom


@dataclass(frozen=True)
class Explanation:
    """What one picture's score is made of.

    Attributes:
        score: the score that is explained; ``score.levels`` are the five template probabilities, worst first.
        prompt: as given.
        picture: RGB, upright.
        fusion: of each scored target.
        words: of each scored target whose head reads prompts.
        maps: of each scored target.
        encoder_rows: how many views went through each encoder.
    """

    score: Score
    prompt: str | None
    picture: Image.Image
    fusion: dict[str, Fusion]
    words: dict[str, tuple[Word, ...]]
    maps: dict[str, Maps]
    encoder_rows: int

    def overlay(self, stream: Stream = "both", target: str = "quality", side: int = 384) -> Image.Image:
        """Return the picture with a map over it, red where score is lost and a frame around the worst window.

        Args:
            stream: "coarse", "fine" or "both".
            target: a key of ``maps``.
            side: longer side of the result, pixels; a small picture is not enlarged beyond it.

        Raises:
            UsageError: there is no such target or stream.
        """
        from mst_clipiqa.explain.overlay import overlay

        if target not in self.maps:
            known = ", ".join(self.maps)
            raise UsageError(f"Expected a map of {known}, got {target!r}{nearest(target, self.maps)}.")
        low, high = self.score.ranges[target]
        return overlay(self.picture, self.maps[target], stream, span=high - low, side=side)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the picture, as what ``json.dumps`` takes."""
        score = self.score
        return {
            "model": score.model,
            "prompt": self.prompt,
            "width": score.width,
            "height": score.height,
            "scores": {name: _number(value) for name, value in score.targets.items()},
            "ranges": {name: list(ends) for name, ends in score.ranges.items()},
            "calibrated": score.calibrated,
            "note": score.reason,
            "levels": None if score.levels is None else [round(p, 6) for p in score.levels],
            "fusion": {name: _fusion(one) for name, one in self.fusion.items()},
            "words": {
                name: [{"word": w.text, "attention": _number(w.attention), "effect": _number(w.effect)} for w in words]
                for name, words in self.words.items()
            },
            "maps": {name: _maps(one) for name, one in self.maps.items()},
            "map_method": METHOD,
            "encoder_rows": self.encoder_rows,
        }


def _fusion(one: Fusion) -> dict[str, float | None]:
    names = ("gate", "share", "coarse_alone", "fine_alone")
    return {name: _number(getattr(one, name)) for name in names}


def _maps(one: Maps) -> dict[str, Any]:
    found: dict[str, Any] = {stream: _rounded(one.of(stream)) for stream in STREAMS}
    found["worst"] = {stream: [round(edge, 4) for edge in one.worst(stream)] for stream in STREAMS}
    return found | {"windows": _rounded(one.windows)}


def _rounded(values: Floats) -> list[Any]:
    found: list[Any] = np.round(values.astype(np.float64), 5).tolist()
    return found


def _number(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
