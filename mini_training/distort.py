"""The ladders that ``mini`` is trained and measured on: fourteen distortions of the package, at four strengths.

Training ranks an image above its distorted self, and the card measures the mean score of clean photographs going down.
"""

from __future__ import annotations

from mst_clipiqa.images.distort import DISTORTIONS, distort

__all__ = ["KINDS", "LADDER", "distort"]

LADDER = (0.25, 0.5, 0.75, 1.0)
"""The four strengths of the card."""

KINDS = tuple(DISTORTIONS)[:14]
"""The kinds that training knows, in the order in which they were prepared; later ones measure what it does not."""
