"""What a trained learner makes of every rated image: what familiarity and intervals are fitted to."""

from __future__ import annotations

import numpy as np
import torch

from mini_training.data import HIGH, LOW
from mini_training.fit import Known, Sets
from mini_training.learner import Learner
from mini_training.refine import features
from mst_clipiqa.model.mst_clipiqa import to_native


@torch.no_grad()
def outcome(learner: Learner, sets: Sets, known: Known) -> dict[str, np.ndarray]:
    """Return arrays over AGIQA-3K's images and then LIVE in the Wild's, but for c: AGIQA-3K's alone.

    Returns:
        f_c, f_f: float32, (n, D).
        q, c: quality and correspondence, float32 on 0..5, not clipped.
        trained: bool, (n,): whether the learner was trained on the image.
    """
    of, n = features(learner, sets.maps.rated, sets.prompts), len(sets.rated.names)
    q = learner.score_quality(of.f_c, of.f_f, sets.prompts)
    c = learner.score_match(of.f_c[:n], of.f_f[:n], sets.prompts, torch.from_numpy(sets.prompt_of))
    trained = np.zeros(len(of.f_c), bool)
    trained[known.rows] = True
    trained[n + known.photos] = True
    arrays = {"f_c": of.f_c, "f_f": of.f_f, "q": to_native(q, LOW, HIGH), "c": to_native(c, LOW, HIGH)}
    return {name: array.numpy() for name, array in arrays.items()} | {"trained": trained}
