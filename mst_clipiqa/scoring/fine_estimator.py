"""What a part of the views says about f_f, and by how much scores then depend on the rest.

x    = f_c at coarse granularity, [f_c ; f_K] at native:K, where f_K is the fine feature of K crops
f_f' = A x + b                estimate of the fine feature (ridge regression)
s'   = score(f_c, f_f')       through the same fusion and heads, so any prompt works
e    = |R ds/df_f|            deviation of the score, to first order: R^T R is the covariance of f_f - f_f'

The slope is taken at the estimate from f_c alone, so that e of every granularity is known before any crop is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mst_clipiqa.scoring.predictor import Predictor

_RIDGE = 100.0
_DIRECTIONS = 64  # of the covariance of residuals


@dataclass(frozen=True)
class FineEstimator:
    """The estimate of one granularity.

    Attributes:
        weight: A and b, float32 (inputs + 1, D_f).
        spread: R, float32 (directions, D_f).
    """

    weight: Tensor
    spread: Tensor

    def fine(self, x: Tensor) -> Tensor:
        """Return f_f', float32 (batch, D_f), of x, float32 (batch, inputs); no row depends on another."""
        x = x.double()
        return (x @ self.weight[:-1].double() + self.weight[-1].double()).float()


def fit_weight(x: Tensor, f_f: Tensor) -> Tensor:
    """Return A and b, float32 (inputs + 1, D_f), rounded as a file holds them.

    Args:
        x: what is seen of the images that fit them, float32 (images, inputs).
        f_f: float32 (images, D_f).
    """
    ones = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    a = ones.T @ ones + _RIDGE * torch.eye(ones.shape[1], dtype=torch.float64)
    weight: Tensor = torch.linalg.solve(a, ones.T @ f_f.double())
    return weight.half().float()


def fit_spread(rest: Tensor) -> Tensor:
    """Return R, float32 (directions, D_f), of f_f - f_f', float32 (images, D_f), of images that fitted neither."""
    _, size, directions = torch.linalg.svd(rest.double() / len(rest) ** 0.5, full_matrices=False)
    spread: Tensor = (size.unsqueeze(1) * directions)[:_DIRECTIONS]
    return spread.half().float()


def deviations(
    spreads: Mapping[str, Tensor], predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]
) -> dict[str, Tensor]:
    """Return e of each granularity and target as a share of the target's scale; NaN if the target is not scored.

    Args:
        spreads: R of each granularity.
        predictor: of the trained model.
        f_c: float32 (batch, D).
        f_f: its estimate from f_c alone, where slopes are taken, float32 (batch, D_f).
        prompts: of each row.

    Returns:
        granularity -> float32 (batch, targets).
    """
    ranges = predictor.ranges
    found = {name: torch.full((len(f_c), len(ranges)), torch.nan) for name in spreads}
    slopes = predictor.gradients(f_c, f_f, prompts)
    for column, (target, (low, high)) in enumerate(ranges.items()):
        if target not in slopes:
            continue
        rows, slope = slopes[target]
        for name, spread in spreads.items():
            # Rounded, so that batch mates do not change the last digit.
            e = (slope @ spread.double().T).norm(dim=1) / (high - low)
            found[name][rows, column] = e.float()
    return found


def values(predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> Tensor:
    """Return every target's score as a share of its scale, float32 (batch, targets); NaN if it is not scored."""
    rows = []
    for score in predictor.predict(f_c, f_f, prompts):
        pairs = [(score.targets[name], ends) for name, ends in predictor.ranges.items()]
        rows.append([torch.nan if v is None else (v - low) / (high - low) for v, (low, high) in pairs])
    return torch.tensor(rows, dtype=torch.float64).float().view(len(prompts), -1)
