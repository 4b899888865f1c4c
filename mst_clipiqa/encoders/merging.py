"""Token merging: in each block of an image encoder, tokens that are most alike become one.

    alike(i, j) = cosine of the keys of token i (even places) and j (odd places), averaged over heads
    the R even tokens with the most alike partner are merged into it:  x_j = (s_i x_i + s_j x_j) / (s_i + s_j)
    a token that stands for s tokens counts s times in attention:      softmax(q . k / sqrt(d) + log s)

[CLS] is never merged. Each image is merged by itself, so its batch changes nothing.

Source: Bolya et al., "Token Merging: Your ViT But Faster" (arXiv 2210.09461).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Sizes = Float[Tensor, "batch tokens 1"]
"""How many patches each token stands for."""


def no_merges(x: Float[Tensor, "batch tokens width"]) -> Sizes:
    """Return the sizes of tokens before any are merged: one each."""
    return torch.ones_like(x[..., :1])


def merged(
    x: Float[Tensor, "batch tokens width"],
    sizes: Sizes,
    keys: Float[Tensor, "batch heads tokens d"],
    count: int,
) -> tuple[Float[Tensor, "batch fewer width"], Float[Tensor, "batch fewer 1"]]:
    """Return the tokens after ``count`` of them were merged into others, and their sizes.

    Args:
        x: tokens, [CLS] first.
        sizes: how many patches each stands for.
        keys: by which their likeness is measured.
        count: tokens to merge; at most every second one but [CLS].
    """
    count = min(count, (x.shape[1] + 1) // 2 - 1)
    if count < 1:
        return x, sizes
    alike = F.normalize(keys.float().mean(1), dim=-1)
    likeness = alike[:, ::2] @ alike[:, 1::2].transpose(1, 2)
    likeness[:, 0] = -torch.inf  # [CLS]
    best, partner = likeness.max(-1)
    order = best.argsort(dim=-1, descending=True, stable=True).unsqueeze(-1)
    gone, kept = order[:, :count], order[:, count:].sort(dim=1).values
    target = partner.unsqueeze(-1).gather(1, gone)
    weighted = torch.cat([x * sizes, sizes], -1)
    even, odd = weighted[:, ::2], weighted[:, 1::2]
    wide = (-1, -1, weighted.shape[-1])
    into = odd.scatter_add(1, target.expand(wide), even.gather(1, gone.expand(wide)))
    together = torch.cat([even.gather(1, kept.expand(wide)), into], 1)
    return together[..., :-1] / together[..., -1:], together[..., -1:]
