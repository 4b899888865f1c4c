"""Which granularity an image gets: the one that costs least, once a price is put on the risk of a change.

risk   = 1 - product over targets of P(|x| <= TOL), x normal with mean 0 and deviation e
chosen = the granularity with the lowest cost + price * risk

Cost is the time of the encoders as a share of that of fine, whose risk is 0. The price is the lowest at which, with a
confidence of 95 %, at least 95 % of images below fine have all their scores within the tolerance. That confidence
counts images as independent and each price alone, so it is lower where images of one prompt are alike. Where the model
was trained on the calibration images, 96 % must be: on new images their scores differ more (docs/granularity.md).

Source: Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets" (arXiv 2101.02703), for a limit that holds
with a confidence; Clopper and Pearson, 1934, for the limit of a share.
"""

from __future__ import annotations

import scipy
import torch
from torch import Tensor

COVERAGE = 0.95
"""Share of the images below fine that must be within a tolerance."""
_KNOWN = 0.2  # how much of what COVERAGE leaves is kept back where the model was trained on all calibration images
_CONFIDENCE = 0.95  # that they are, as far as calibration images can tell
_PRICES = torch.logspace(0, 3, 61, dtype=torch.float64)
"""From 1 on: however sure the calibration is, what a granularity saves must be more than the risk that it brings."""


def risks(e: Tensor, tolerance: float) -> Tensor:
    """Return the risk that a score differs from that at fine granularity by more than a tolerance.

    Args:
        e: of each granularity and target, float32 (batch, granularities, targets); NaN if a target is not scored.
        tolerance: as e, a share of a score's scale.

    Returns:
        float64 (batch, granularities + 1), the last one for fine.
    """
    within = torch.erf(tolerance / (e.double() * 2**0.5))
    below = 1 - torch.where(e.isnan(), 1.0, within).prod(dim=2)
    # Rounded, so that batch mates do not change the last digit.
    return torch.cat([below, torch.zeros(len(e), 1)], dim=1).float().double()


def cheapest(costs: Tensor, risk: Tensor, price: float) -> Tensor:
    """Return the granularity of each image, int64 (batch,), of costs (granularities + 1,) and risks; fine is the last.

    Without a price, which is infinite, every image is fine.
    """
    if price == float("inf"):
        return torch.full((len(risk),), len(costs) - 1)
    return (costs + price * risk).argmin(dim=1)


def outcomes(costs: Tensor, risk: Tensor, is_bad: Tensor, part: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Return how many images are below fine at each price, and how many of these are not within the tolerance.

    Args:
        costs: float64 (granularities + 1,).
        risk: float64 (images, granularities + 1).
        is_bad: whether an image is not within the tolerance at a granularity, bool (images, granularities).
        part: of each image, int64 (images,).
        parts: how many there are.

    Returns:
        Two counts, int64 (prices, parts).
    """
    below, bad = torch.zeros(2, len(_PRICES), parts, dtype=torch.int64).unbind()
    never = torch.zeros(len(risk), 1, dtype=torch.bool)
    for i, price in enumerate(_PRICES.tolist()):
        at = cheapest(costs, risk, price)
        is_below = at < len(costs) - 1
        missed = torch.cat([is_bad, never], dim=1).gather(1, at.unsqueeze(1)).squeeze(1)
        below[i] = torch.bincount(part[is_below], minlength=parts)
        bad[i] = torch.bincount(part[missed], minlength=parts)
    return below, bad


def lowest_price(below: Tensor, bad: Tensor, seen: float = 0.0) -> float:
    """Return the lowest price at which the limit holds; infinite if none does.

    Args:
        below, bad: counts of images below fine, and of those that are not within the tolerance, int64 (prices,).
        seen: share of the images that the model was trained on. New images differ more, so fewer of these may be bad.
    """
    limit = (1 - COVERAGE) * (1 - _KNOWN * seen)
    holds = torch.tensor([_most(int(k), int(n)) <= limit for k, n in zip(bad, below, strict=True)])
    places = holds.nonzero()
    return float(_PRICES[places[0]]) if len(places) else float("inf")


def _most(bad: int, images: int) -> float:
    """Return the upper confidence limit of the share of bad images, if ``bad`` of ``images`` are bad."""
    return float(scipy.special.betaincinv(bad + 1, images - bad, _CONFIDENCE)) if bad < images else 1.0
