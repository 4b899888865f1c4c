"""The explanation of one score: as arrays to compute with, and as JSON to store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.explain.results import STREAMS, Float32Array, Fusion, Maps, MapStream, Word
from mst_clipiqa.tables.cells import rounded

if TYPE_CHECKING:
    from mst_clipiqa.scoring.score import Score

METHOD = (
    "isolation: each window of the image is scored alone, mirrored until it fills the view. "
    "left = log-odds of its score minus the mean log-odds of itself blurred and compressed beyond use "
    "(targets that read prompts: its score, native units). "
    "lost = mean of left over all windows - left of this window. "
    "coarse, fine: that stream sees windows, the other one the whole image. "
    "both: the mean of fine and of the map if both streams see windows"
)


@dataclass(frozen=True)
class Explanation:
    """The explanation of one image's score.

    Attributes:
        score: the score that is explained; ``score.levels`` are the five template probabilities, worst first.
        prompt: the prompt, as given.
        image: the image, RGB, upright.
        fusion: shares of the streams, per scored target.
        words: effects of the words, per scored target whose head reads prompts.
        maps: where score is lost, per scored target.
        encoder_rows: number of views that each encoder encoded.
    """

    score: Score
    prompt: str | None
    image: Image.Image
    fusion: dict[str, Fusion]
    words: dict[str, tuple[Word, ...]]
    maps: dict[str, Maps]
    encoder_rows: int

    def overlay(self, stream: MapStream = "both", target: str = "quality", side: int = 384) -> Image.Image:
        """Return the image under a map: red where score is lost, with a frame around the worst window.

        Args:
            stream: "coarse", "fine" or "both".
            target: a key of ``maps``.
            side: longer side of the result, pixels; smaller images are not enlarged.

        Raises:
            UsageError: there is no such target or stream.
        """
        from mst_clipiqa.explain.overlay import overlay

        if target not in self.maps:
            known = ", ".join(self.maps)
            raise UsageError(f"Expected a map of {known}, got {target!r}{nearest(target, self.maps)}.")
        low, high = self.score.ranges[target]
        return overlay(self.image, self.maps[target], stream, span=high - low, side=side)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the image, for ``json.dumps``."""
        score = self.score
        return {
            "model": score.model,
            "prompt": self.prompt,
            "width": score.width,
            "height": score.height,
            "scores": {name: rounded(value) for name, value in score.targets.items()},
            "ranges": {name: list(ends) for name, ends in score.ranges.items()},
            "calibrated": score.calibrated,
            "note": score.reason,
            "levels": None if score.levels is None else [round(p, 6) for p in score.levels],
            "fusion": {name: _fusion(one) for name, one in self.fusion.items()},
            "words": {
                name: [{"word": w.text, "attention": rounded(w.attention), "effect": rounded(w.effect)} for w in words]
                for name, words in self.words.items()
            },
            "maps": {name: _maps(one) for name, one in self.maps.items()},
            "map_method": METHOD,
            "encoder_rows": self.encoder_rows,
        }


def _fusion(one: Fusion) -> dict[str, float | None]:
    names = ("gate", "share", "coarse_alone", "fine_alone")
    return {name: rounded(getattr(one, name)) for name in names}


def _maps(one: Maps) -> dict[str, Any]:
    found: dict[str, Any] = {stream: _rounded(one.of(stream)) for stream in STREAMS}
    found["worst"] = {stream: [round(edge, 4) for edge in one.worst(stream)] for stream in STREAMS}
    return found | {"windows": _rounded(one.windows), "unit": one.unit}


def _rounded(values: Float32Array) -> list[Any]:
    found: list[Any] = np.round(values.astype(np.float64), 5).tolist()
    return found
