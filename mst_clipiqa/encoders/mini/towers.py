"""The small encoders of the embedded model: two towers over computed statistics, and a text transformer of two layers.

A tower describes each of an image's views by numbers that are computed outright (``spectrum.py``), takes their mean
over the views (the fine tower also their deviation), and maps these 800 to 1,000 numbers to an embedding. Convolutions
trained on a few thousand rated images learnt these by heart and added nothing to it (mini_training/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.statistics import LAYOUT, SIZE, layout, statistics

FARTHEST = 5.0  # deviations from the mean at which a statistic is cut off


@dataclass(frozen=True)
class TowerConfig:
    """What one tower looks at, and its sizes."""

    dim: int  # D, size of the embedding
    hidden: int  # width of the layer before it
    layout: bool = False  # whether it also sees where colours and edges lie: for views of the whole image
    spread: bool = False  # whether it also sees the deviation over views: for more than one view
    drop: float = 0.0  # dropout, in training only

    @property
    def inputs(self) -> int:
        """How many numbers describe an image."""
        return (SIZE + LAYOUT * self.layout) * (1 + self.spread)


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder."""

    words: int  # tokens in the vocabulary
    word_dim: int  # size of a stored word vector
    dim: int  # D, width of the token states
    layers: int = 2
    heads: int = 4
    length: int = 64  # tokens read of a prompt
    drop: float = 0.0  # dropout, in training only


class Tower(nn.Module):
    """Views of an image to an embedding, by way of statistics."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.inputs))
        self.register_buffer("scale", torch.ones(config.inputs))
        self.enter = nn.Linear(config.inputs, config.hidden)
        self.leave = nn.Linear(config.hidden, config.dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return embeddings, float32 (batch, D), of normalised views, float32 (batch, K, 3, side, side)."""
        return self.embed(self.describe(pixels))

    def describe(self, pixels: Tensor) -> Tensor:
        """Return the numbers that the embedding is of, float32 (batch, inputs), of normalised views."""
        flat = pixels.flatten(0, 1)
        x = torch.cat([statistics(flat), layout(flat)], -1) if self.config.layout else statistics(flat)
        x = x.view(*pixels.shape[:2], -1)
        if not self.config.spread:
            return x.mean(1)
        return torch.cat([x.mean(1), x.std(1, correction=0)], -1)

    def embed(self, described: Tensor) -> Tensor:
        """Return embeddings, float32 (batch, D), of what ``describe`` returns."""
        x = ((described - self.mean) * self.scale).clamp(-FARTHEST, FARTHEST)
        x = F.gelu(self.enter(F.dropout(x, self.config.drop, self.training)))
        embedding: Tensor = self.leave(F.dropout(x, self.config.drop, self.training))
        return embedding


class TextBlock(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.drop = config.heads, config.drop
        self.norm_1 = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.norm_2 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, 2 * config.dim)
        self.down = nn.Linear(2 * config.dim, config.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map token states (batch, L, D); mask: bool (batch, L), True for real tokens."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + F.dropout(self.out(seen.transpose(1, 2).flatten(2)), self.drop, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm_2(x)))), self.drop, self.training)


class TextEncoder(nn.Module):
    """Token ids to token states T and a sentence embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        # Zeros, as random numbers on the meta device would first import torch's compiler, for a second.
        self.words = nn.Embedding(config.words, config.word_dim, _weight=torch.zeros(config.words, config.word_dim))
        self.enter = nn.Linear(config.word_dim, config.dim)
        self.positions = nn.Parameter(torch.zeros(config.length, config.dim))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.project = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return T, float (batch, L, D); ids: int (batch, L); mask: bool (batch, L), True for real tokens."""
        x = self.enter(self.words(ids)) + self.positions[: ids.shape[1]]
        x = F.dropout(x, self.config.drop, self.training)
        for block in self.blocks:
            x = block(x, mask)
        states: Tensor = self.norm(x)
        return states

    def sentence(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the projected mean of the real tokens, unit length, float (batch, D)."""
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        unit: Tensor = F.normalize(self.project((tokens * weight).sum(1) / weight.sum(1)), dim=-1)
        return unit
