"""The text encoder: MiniLM (six layers of BERT, 384 wide) and a linear map of its token states to D.

Weights: all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), frozen; the map is trained by ``mini_training``.
Source: Wang et al., "MiniLM" (arXiv 2002.10957).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.layers import Linear

_EPSILON = 1e-12  # of BERT's layer norms


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder."""

    words: int  # tokens in the vocabulary
    dim: int  # D, width of the mapped token states
    width: int = 384
    inner: int = 1536  # width of the hidden layer of each block
    layers: int = 6
    heads: int = 12
    length: int = 128  # tokens read of a prompt, the first and the last one included


class TextBlock(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(config.width, 3 * config.width)
        self.out = Linear(config.width, config.width)
        self.norm_1 = nn.LayerNorm(config.width, _EPSILON)
        self.up = Linear(config.width, config.inner)
        self.down = Linear(config.inner, config.width)
        self.norm_2 = nn.LayerNorm(config.width, _EPSILON)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map token states (batch, L, width); mask: bool (batch, L), True for real tokens."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = self.norm_1(x + self.out(attended.transpose(1, 2).flatten(2)))
        states: Tensor = self.norm_2(x + self.down(F.gelu(self.up(x))))
        return states


class TextEncoder(nn.Module):
    """Token ids to token states T and sentence embeddings."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        # Zeros, as random numbers on the meta device would first import torch's compiler, for a second.
        self.words: nn.Module = nn.Embedding(
            config.words, config.width, _weight=torch.zeros(config.words, config.width)
        )
        self.positions = nn.Parameter(torch.zeros(config.length, config.width))
        self.norm = nn.LayerNorm(config.width, _EPSILON)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))
        self.project = Linear(config.width, config.dim)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return T, float (batch, L, D); ids: int (batch, L); mask: bool (batch, L), True for real tokens."""
        states: Tensor = self.project(self.states(ids, mask))
        return states

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return MiniLM's own token states, float (batch, L, width)."""
        x: Tensor = self.norm(self.words(ids) + self.positions[: ids.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        return x

    def sentence(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the real tokens of T, unit length, float (batch, D)."""
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        return F.normalize((tokens * weight).sum(1) / weight.sum(1), dim=-1)
