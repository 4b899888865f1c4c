"""What a spawned process does: in a module of its own, for the process imports it anew with all that it imports."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from mst_clipiqa.scoring.scorer import Scorer


def scored_elsewhere(scorer: Scorer, image: Path, sender: Connection) -> None:
    """Send what a scorer says of an image with a prompt, and what it says of itself."""
    score = scorer(image, "a red fox")
    sender.send((score.targets, score.gate, repr(scorer)))
