"""The training loss: squared error plus pairwise ranking.

    L = mean_i (q_i - y_i)^2 + lambda * mean over pairs with y_i != y_j of ReLU(-sign(y_i - y_j)(q_i - q_j) + margin)

If all targets of a batch are equal, there are no pairs and the ranking term is 0. Source: section 3.4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.model.shapes import Scores


def ranking_loss(q: Scores, y: Scores, margin: float = 0.1) -> Float[Tensor, ""]:
    """Return the mean hinge over ordered pairs with different targets, a scalar; q, y: float (batch,)."""
    order = torch.sign(y.unsqueeze(1) - y.unsqueeze(0))
    hinge = torch.relu(margin - order * (q.unsqueeze(1) - q.unsqueeze(0)))
    different = order != 0
    return (hinge * different).sum() / different.sum().clamp(min=1)


def mst_clipiqa_loss(q: Scores, y: Scores, weight: float = 1.0, margin: float = 0.1) -> Float[Tensor, ""]:
    """Return MSE + ``weight`` (the paper's lambda) times the ranking loss, a scalar.

    Args:
        q: predicted scores, float (batch,).
        y: target scores on the same scale, float (batch,).
        weight: lambda.
        margin: how far the better image of a pair should lead, in units of the scale.
    """
    return F.mse_loss(q, y) + weight * ranking_loss(q, y, margin)
