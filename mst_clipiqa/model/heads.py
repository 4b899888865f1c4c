"""The two heads: fused feature z to a score q.

TemplateHead (variant A, no prompt), t_k the unit text embedding of "a photo with {level} quality":

    p = softmax_k(tau * cos(z, t_k))        q = sum_k k p_k, so 1 <= q <= 5

PromptHead (variant B), T the token states of the prompt and m their mask:

    z' = z + alpha * MHA(query = z, key = value = T, mask = m)        q = w_o(GELU(W_1 z') + W_2 z')

The mask is ours: the published code attends to padding, so its score depends on the batch. Source: section 3.3.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from mst_clipiqa.model.shapes import Embeddings, LevelWeights, Scores, Templates, TokenMask, TokenStates, TokenWeights


def attend_once(
    attention: nn.MultiheadAttention, query: Embeddings, tokens: TokenStates, mask: TokenMask
) -> tuple[Embeddings, TokenWeights]:
    """Return the output of ``attention`` for one query per row, at a fraction of its cost.

    With a single query, W_k and W_v need not be applied to every token: (W_k t) . q = t . (W_k^T q), and a weighted
    sum of W_v t is W_v times the weighted sum of t. The keys' bias shifts all logits of a row equally and drops out.

    Args:
        attention: the weights; the number of heads divides D.
        query: float (batch, D).
        tokens: float (batch, L, D).
        mask: bool (batch, L), True for tokens to attend to.

    Returns:
        Output, float (batch, D), and attention averaged over heads, float (batch, L).
    """
    heads = attention.num_heads
    dim = query.shape[1]
    w_q, w_k, w_v = attention.in_proj_weight.view(3, heads, dim // heads, dim)
    b_q, _, b_v = (b.view(heads, -1) for b in attention.in_proj_bias.chunk(3))
    q = torch.einsum("be,hde->bhd", query, w_q) + b_q
    logits = torch.einsum("bhe,ble->bhl", torch.einsum("bhd,hde->bhe", q, w_k), tokens) / w_q.shape[1] ** 0.5
    weights = logits.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(dim=-1)
    v = torch.einsum("bhe,hde->bhd", torch.einsum("bhl,ble->bhe", weights, tokens), w_v) + b_v
    return attention.out_proj(v.flatten(1)), weights.mean(dim=1)


class TemplateHead(nn.Module):
    """Quality as the expected level of five text templates."""

    def __init__(self) -> None:
        """Start the temperature at 100, where CLIP's logit scale ends."""
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(100.0))

    def forward(self, z: Embeddings, t: Templates) -> tuple[Scores, LevelWeights]:
        """Return the score and the probability of each level.

        Args:
            z: fused feature, float (batch, D).
            t: template embeddings, worst level first, float (5, D), unit length.

        Returns:
            q: float (batch,) in [1, 5]; p: float (batch, 5), rows sum to 1.
        """
        p = torch.softmax(self.temperature * F.normalize(z, dim=-1) @ t.T, dim=-1)
        return p @ torch.arange(1, 6, dtype=p.dtype, device=p.device), p


class PromptHead(nn.Module):
    """Score of an image given its prompt: cross-attention from z over the prompt's tokens."""

    def __init__(self, dim: int, heads: int = 8) -> None:
        """Build for features and token states of size D = ``dim``; alpha starts at 0."""
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.0))
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.W_1 = nn.Linear(dim, dim)
        self.W_2 = nn.Linear(dim, dim)
        self.w_o = nn.Linear(dim, 1)

    def forward(self, z: Embeddings, tokens: TokenStates, mask: TokenMask) -> Scores:
        """Return the score.

        Args:
            z: fused feature, float (batch, D).
            tokens: T, token states of the prompts, float (batch, L, D).
            mask: m, bool (batch, L), True for real tokens; every row has at least one.

        Returns:
            q: float (batch,), on the scale 1..5 but not bounded by it.
        """
        return self.attend(z, tokens, mask)[0]

    def attend(self, z: Embeddings, tokens: TokenStates, mask: TokenMask) -> tuple[Scores, TokenWeights]:
        """Return the score, and the attention over tokens, float (batch, L); rows sum to 1."""
        attended, attention = attend_once(self.cross_attn, z, tokens, mask)
        z = z + self.alpha * attended
        q = self.w_o(F.gelu(self.W_1(z)) + self.W_2(z))
        return q.squeeze(-1), attention
