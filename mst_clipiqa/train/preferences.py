"""Pairs of images in training: the Bradley-Terry model on the scores of a head.

    P(A preferred to B) = sigmoid(s (q_A - q_B))
    loss = - mean over pairs, weighted by strength, of p log P + (1 - p) log (1 - P)

p is 1 if A is preferred, 0 if B is, and 1/2 for a tie; q is on the head's scale 1..5. Without ratings nothing fixes
that scale: the slope s only sets how far apart the scores are. Source: Bradley and Terry, Rank analysis of incomplete
block designs, 1952.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.data import Preference
from mst_clipiqa.encoders.torch_threads import on_one_thread
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.train.features import FeatureTable, PairFeatures
from mst_clipiqa.train.scale import transform

SLOPE = 2.0
"""s: with 2, the better of two images that are one level apart is preferred in 88 % of cases."""
_MIDDLE, _REACH = 3.0, 1.5  # of the scores of training images, on the head's scale


def pair_features(table: FeatureTable, pairs: Sequence[Preference], head: str) -> PairFeatures:
    """Return the features of some pairs, whose images are all in the table; ``head`` is "template" or "prompt"."""
    a, b = (table.rows([getattr(pair, side) for pair in pairs]) for side in ("a", "b"))
    numbers = torch.tensor([(pair.preferred, pair.strength) for pair in pairs], dtype=torch.float32).view(-1, 2)
    return PairFeatures(table.f_c, table.f_f, a, b, numbers[:, 0], numbers[:, 1], lambda rows: table.text(rows, head))


def differences(model: MSTCLIPIQA, pairs: PairFeatures, which: Tensor) -> Tensor:
    """Return q_A - q_B of some of the pairs on the head's scale, float32 (pairs,)."""
    rows = torch.cat([pairs.a[which], pairs.b[which]])
    q: Tensor = model(pairs.f_c[rows], pairs.f_f[rows], pairs.text(rows)).q
    return q[: len(which)] - q[len(which) :]


def bradley_terry_loss(difference: Tensor, preferred: Tensor, strength: Tensor) -> Tensor:
    """Return the loss, a scalar, of q_A - q_B; all arguments are float (pairs,), as ``PairFeatures`` has them."""
    losses = F.binary_cross_entropy_with_logits(SLOPE * difference, preferred, reduction="none")
    return (strength * losses).sum() / strength.sum()


@torch.no_grad()
def all_differences(model: MSTCLIPIQA, pairs: PairFeatures) -> Tensor:
    """Return q_A - q_B of all pairs on the head's scale, float32 (pairs,), in batches that bound memory."""
    return torch.cat([differences(model, pairs, which) for which in torch.arange(len(pairs)).split(1024)])


def share_right(difference: Tensor, preferred: Tensor) -> float:
    """Return the share of pairs, ties of the raters left out, with the preferred image ahead; equal scores count half.

    NaN if all pairs are ties.
    """
    told = preferred != 0.5
    hits = (torch.sign(difference[told]) * torch.sign(preferred[told] - 0.5) + 1) / 2
    return float(hits.mean())


@on_one_thread()
@torch.no_grad()
def put_on_scale(model: MSTCLIPIQA, pairs: PairFeatures) -> None:
    """Shift, and shrink if needed, the scores of a prompt head so that those of the images in pairs are in 1.5..4.5.

    Pairs leave the level of the scores open, and scores outside the scale 1..5 would be cut to its ends, where they are
    equal. The order stays. A template head needs nothing: its scores cannot leave the scale.
    """
    if not isinstance(model.head, PromptHead):
        return
    rows = torch.cat([pairs.a, pairs.b]).unique()
    q = torch.cat([model(pairs.f_c[r], pairs.f_f[r], pairs.text(r)).q for r in rows.split(1024)])
    middle, reach = (q.max() + q.min()) / 2, (q.max() - q.min()) / 2
    scale = min(1.0, _REACH / max(reach.item(), 1e-6))
    transform(model, scale, _MIDDLE - scale * middle.item())
