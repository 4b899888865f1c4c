"""Putting the scores of a prompt head on the scale of the ratings.

A template head gives the mean of five levels, so its scores cannot leave the scale. A prompt head ends in a linear map,
q = w_o x + b_o, whose level is random at first, and the ranking half of the loss does not see it. On a few hundred
images training ends before the level is right, and the epoch is chosen by SRCC, which is blind to it as well. Both the
start and the end have a closed form that changes no order: the b_o that gives the mean rating, and least squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA


@torch.no_grad()
def transform(model: MSTCLIPIQA, slope: float, offset: float) -> None:
    """Change a model with a prompt head so that it gives slope * q + offset where it gave q."""
    if isinstance(model.head, PromptHead):
        model.head.w_o.weight.mul_(slope)
        model.head.w_o.bias.mul_(slope).add_(offset)


def start_at_mean(model: MSTCLIPIQA, q: Tensor, y: Tensor) -> None:
    """Shift the scores of an untrained prompt head to the mean rating.

    Args:
        model: changed in place.
        q: its scores of the training images, float32 (images,).
        y: their ratings on the head's scale 1..5, float32 (images,).
    """
    transform(model, 1.0, (y.mean() - q.mean()).item())


def fit_line(model: MSTCLIPIQA, q: Tensor, y: Tensor) -> None:
    """Put the scores of a trained prompt head on the line that fits the ratings best, by least squares.

    The order stays: if the line does not rise, the scores are only shifted to the mean rating. Arguments as for
    ``start_at_mean``.
    """
    x, z = q.double() - q.double().mean(), y.double() - y.double().mean()
    spread, together = (x * x).sum().item(), (x * z).sum().item()
    slope = together / spread if together > 0 and spread > 0 else 1.0
    transform(model, slope, y.double().mean().item() - slope * q.double().mean().item())
