"""Time per image against its size, decoded in full and at reduced scale, and against the length of its prompt.

    python -m speed.cost

With the embedded model. No prompt occurs twice, as one that is known costs nothing. Reduced scale (``--fast-decode``)
changes pixels; its largest effect on the score is reported.
"""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import median_seconds, run

SIDES, WORDS = (256, 512, 1024, 2048), (0, 4, 16, 64)
_new = itertools.count()


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return milliseconds per image for each size and each length."""
    plain, fast = Scorer.load("mini"), Scorer.load("mini", fast_decode=True)
    sizes = []
    for side in SIDES:
        files = [str(file) for file in jpegs(folder / str(side), images, side)]
        before, after = scores(plain, files), scores(fast, files)
        changes = [abs((a.quality or 0) - (b.quality or 0)) for a, b in zip(before, after, strict=True)]
        milliseconds, reduced = (1000 / images * median_seconds(partial(scores, s, files), 3) for s in (plain, fast))
        row = {"side": side, "milliseconds": milliseconds, "fast_decode_milliseconds": reduced}
        sizes.append(row | {"largest_change": max(changes), "mean_change": sum(changes) / images})
    files = [str(file) for file in jpegs(folder / "prompts", images, 256)]
    lengths = [
        {"words": n, "milliseconds": 1000 / images * median_seconds(partial(scores, plain, files, n), 3)} for n in WORDS
    ]
    return {"sizes": sizes, "prompts": lengths}


def scores(scorer: Scorer, files: list[str], words: int = 0) -> list[Score]:
    """Score files, each with a new prompt of ``words`` words."""
    prompts = [f"{next(_new)} " + "a red fox on a hill " * (words // 6 + 1) for _ in files]
    asked = [ScoreRequest[None](f, " ".join(p.split()[:words]) or None) for f, p in zip(files, prompts, strict=True)]
    return list(scorer.many(asked))


if __name__ == "__main__":
    run(__doc__ or "", measure, images=64)
