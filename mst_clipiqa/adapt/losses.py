r"""What adaptation minimises. No term needs a rating, but for those of labelled images.

    ladder      mean over pairs of rungs, a less distorted than b, of 1 - sqrt(p),  p = Phi((q_a - q_b) / (sqrt(2) s))
    agreement   mean of (q_1 - q_2)^2, of two crops of an image
    anchor      mean of KL(p_before || p_after), of the levels of clean images; of a prompt head, (q_before - q_after)^2
    teacher     mean of (q - mean of the teachers)^2, of clean images on which the teachers agree

Only images of one ladder are ranked: of two different images, nobody knows which is better. The anchor keeps the scale.
Sources: Thurstone's model with the fidelity loss, as in Zhang et al., UNIQUE (arXiv 2005.13983).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SPREAD = 0.3
"""s, on the scale 1..5: the order of rungs that are 1 apart is certain."""
_LEAST_CHANCE = 1e-8


def fidelity_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Return the mean fidelity loss of pairs whose order is certain, a scalar; better, worse: float (pairs,)."""
    p = torch.special.ndtr((better - worse) / (2**0.5 * SPREAD))
    loss: Tensor = (1 - (p + _LEAST_CHANCE).sqrt()).mean()
    return loss


def ladder_loss(q: Tensor, rungs: Tensor) -> Tensor:
    """Return the fidelity loss of all pairs of rungs of each ladder.

    Args:
        q: scores 1..5 of all versions, float (images, versions).
        rungs: positions of the versions on each ladder, best first, int64 (images, ladders, rungs).
    """
    on_ladder = q.gather(1, rungs.flatten(1)).view(rungs.shape)
    first, second = torch.triu_indices(rungs.shape[-1], rungs.shape[-1], 1)
    return fidelity_loss(on_ladder[..., first].flatten(), on_ladder[..., second].flatten())


def agreement_loss(q: Tensor) -> Tensor:
    """Return how far the scores of two crops are apart, squared; q: float (images, 2)."""
    return ((q[:, 0] - q[:, 1]) ** 2).mean()


def anchor_loss(after: tuple[Tensor, Tensor | None], before: tuple[Tensor, Tensor | None]) -> Tensor:
    """Return how far clean images moved: KL of their levels, or squared difference of their scores.

    Args:
        after, before: scores, float (images,), and levels, float (images, 5), or None without them.
    """
    if after[1] is not None and before[1] is not None:
        return F.kl_div((after[1] + _LEAST_CHANCE).log(), before[1], reduction="batchmean")
    return F.mse_loss(after[0], before[0])
