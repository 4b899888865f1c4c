"""The two heads: fused feature z to a score q.

TemplateHead (variant A, no prompt), t_k the unit text embedding of "a photo with {level} quality":

    p = softmax_k(tau * cos(z, t_k))        q = sum_k k p_k, so q lies in [1, 5]

PromptHead (variant B), T the token states of the prompt and m their mask:

    z' = z + alpha * MHA(query = z, key = value = T, mask = m)        q = w_o(GELU(W_1 z') + W_2 z')

The mask is ours: the published code attends to padding, so that its score depends on the batch. Source: section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 5


class TemplateHead(nn.Module):
    """Quality as the expected level of five text templates."""

    def __init__(self) -> None:
        """Start the temperature at 100, as CLIP's logit scale ends."""
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(100.0))

    def forward(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score and the probability of each level.

        Args:
            z: fused feature, float (batch, D).
            t: template embeddings, worst level first, float (5, D), unit length.

        Returns:
            q: float (batch,) in [1, 5]; p: float (batch, 5), rows add up to 1.
        """
        p = torch.softmax(self.temperature * F.normalize(z, dim=-1) @ t.T, dim=-1)
        levels = torch.arange(1, LEVELS + 1, dtype=p.dtype, device=p.device)
        return p @ levels, p


class PromptHead(nn.Module):
    """Score of a picture given its prompt: cross-attention from z over the prompt's tokens."""

    def __init__(self, dim: int, heads: int = 8) -> None:
        """Build for features and token states of size D = ``dim``; alpha starts at 0."""
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.0))
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.W_1 = nn.Linear(dim, dim)
        self.W_2 = nn.Linear(dim, dim)
        self.w_o = nn.Linear(dim, 1)

    def forward(self, z: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the score.

        Args:
            z: fused feature, float (batch, D).
            tokens: T, token states of the prompts, float (batch, L, D).
            mask: m, bool (batch, L), True for real tokens; every row has at least one.

        Returns:
            q: float (batch,), on the scale 1..5 but not bounded by it.
        """
        return self.attend(z, tokens, mask)[0]

    def attend(self, z: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score as ``forward`` does, and the attention over tokens, float (batch, L), rows add up to 1."""
        query = z.unsqueeze(1)
        a, weights = self.cross_attn(query, tokens, tokens, key_padding_mask=~mask, need_weights=True)
        z = z + self.alpha * a.squeeze(1)
        q = self.w_o(F.gelu(self.W_1(z)) + self.W_2(z))
        return q.squeeze(-1), weights.squeeze(1)
