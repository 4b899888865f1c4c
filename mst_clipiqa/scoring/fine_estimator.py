"""What a part of the views says about f_f, and by how much scores then depend on the rest.

x    = f_c at coarse granularity, [f_c ; f_K] at native:K, where f_K is the fine feature of K crops
k_j  = exp(-|x - l_j|^2 / w)  nearness to each of some of the images that fit the estimate
f_f' = A x + B k + b          estimate of the fine feature (ridge regression)
s'   = score(f_c, f_f')       through the same fusion and heads, so any prompt works
e    = |R ds/df_f|            deviation of the score, to first order: R^T R is the covariance of f_f - f_f'

The slope is taken at the estimate from f_c alone, so that e of every granularity is known before any crop is encoded.

Source: Williams and Seeger, "Using the Nyström Method to Speed Up Kernel Machines", 2001, for k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mst_clipiqa.scoring.predictor import Predictor

_RIDGE, _RIDGE_NEAR = 100.0, 0.3  # of A and b, and of B
_LANDMARKS = 256
_DIRECTIONS = 64  # of the covariance of residuals


@dataclass(frozen=True)
class FineEstimator:
    """The estimate of one granularity.

    Attributes:
        landmarks: l, float32 (landmarks, inputs).
        width: w, float32 ().
        weight: A, B and b, float32 (inputs + landmarks + 1, D_f).
        spread: R, float32 (directions, D_f).
    """

    landmarks: Tensor
    width: Tensor
    weight: Tensor
    spread: Tensor

    def fine(self, x: Tensor) -> Tensor:
        """Return f_f', float32 (batch, D_f), of x, float32 (batch, inputs); no row depends on another."""
        return (_inputs(x, self.landmarks, self.width) @ self.weight.double()).float()


def fit_estimator(x: Tensor, f_f: Tensor, spread: Tensor) -> FineEstimator:
    """Return the estimator that some images fit, with numbers rounded as a file holds them.

    Args:
        x: what is seen of the images, float32 (images, inputs).
        f_f: float32 (images, D_f).
        spread: R, float32 (directions, D_f).
    """
    landmarks = x[torch.linspace(0, len(x) - 1, min(_LANDMARKS, len(x))).round().long()].half().float()
    apart = torch.pdist(landmarks.double()) ** 2
    width = apart.median().clamp(min=torch.finfo(torch.float32).tiny).float()  # images may be all alike
    seen = _inputs(x, landmarks, width)
    ridge = torch.full((seen.shape[1],), _RIDGE, dtype=torch.float64)
    ridge[x.shape[1] : -1] = _RIDGE_NEAR
    weight = torch.linalg.solve(seen.T @ seen + torch.diag(ridge), seen.T @ f_f.double())
    return FineEstimator(landmarks, width, weight.half().float(), spread)


def _inputs(x: Tensor, landmarks: Tensor, width: Tensor) -> Tensor:
    """Return [x ; k ; 1], float64 (batch, inputs + landmarks + 1)."""
    x = x.double()
    # Not by matrix products, whose rounding depends on the batch.
    apart = torch.cdist(x, landmarks.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    return torch.cat([x, torch.exp(-apart / width.double()), torch.ones(len(x), 1, dtype=x.dtype)], dim=1)


def fit_spread(rest: Tensor) -> Tensor:
    """Return R, float32 (directions, D_f), of ``rest``: f_f - f_f', float32 (images, D_f).

    The images are not those that f_f' was fitted on, where it errs less.
    """
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
    found = {name: torch.full((len(f_c), len(ranges)), torch.nan, dtype=torch.float32) for name in spreads}
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


def scaled_scores(predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> Tensor:
    """Return every target's score as a share of its scale, float32 (batch, targets); NaN if it is not scored."""
    rows = []
    for score in predictor.predict(f_c, f_f, prompts):
        pairs = [(score.targets[name], ends) for name, ends in predictor.ranges.items()]
        rows.append([torch.nan if v is None else (v - low) / (high - low) for v, (low, high) in pairs])
    return torch.tensor(rows, dtype=torch.float64).float().view(len(prompts), -1)
