"""What a model says of a generator that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mini_training.data import Rated
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.scoring.scorer import Scorer


def left_out(folder: Path, rated: Rated, data: Path, generator: str) -> dict[str, float]:
    """Return the number of a generator's images, and SRCC of quality on all of them and on those of new prompts."""
    rows = np.flatnonzero(rated.generators == generator)
    scores = Scorer.load(folder).many([data / "images" / rated.names[i] for i in rows])
    quality = np.array([score.quality for score in scores], float)
    mos, new = rated.ratings[rows, 0].astype(float), rated.part[rows] == "development"
    return {"n": len(rows), "srcc": srcc(quality, mos), "new_prompts": srcc(quality[new], mos[new])}
