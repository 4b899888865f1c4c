r"""Gated feature fusion: f_c and f_f to one feature z.

    h = ReLU(W_h [f_c ; f_f] + b_h)                        (batch, D / 4)
    g = sigmoid(W_g h + b_g)                               (batch, D)
    z = g * (W_c f_c + b_c) + (1 - g) * (W_f f_f + b_f)    (batch, D)

Source: section 3.2.
"""

from __future__ import annotations

import torch
from torch import nn

from mst_clipiqa.model.shapes import Embeddings


class GFF(nn.Module):
    """A gate per dimension between the coarse and the fine stream."""

    def __init__(self, dim: int) -> None:
        """Build the four maps for features of size D = ``dim``."""
        super().__init__()
        self.W_h = nn.Linear(2 * dim, dim // 4)
        self.W_g = nn.Linear(dim // 4, dim)
        self.W_c = nn.Linear(dim, dim)
        self.W_f = nn.Linear(dim, dim)

    def forward(self, f_c: Embeddings, f_f: Embeddings) -> tuple[Embeddings, Embeddings]:
        """Return the gate and the fused feature.

        Args:
            f_c: coarse feature, float (batch, D).
            f_f: fine feature, float (batch, D).

        Returns:
            g: float (batch, D) in (0, 1), the share of the coarse stream; z: float (batch, D).

        Example:
            >>> g, z = GFF(8)(torch.zeros(2, 8), torch.zeros(2, 8))
            >>> g.shape, z.shape
            (torch.Size([2, 8]), torch.Size([2, 8]))
        """
        h = torch.relu(self.W_h(torch.cat([f_c, f_f], dim=-1)))
        g = torch.sigmoid(self.W_g(h))
        return g, g * self.W_c(f_c) + (1 - g) * self.W_f(f_f)

    @torch.no_grad()
    def identity_(self) -> GFF:
        """Set the gate to one half and both maps to the identity: the fusion that needs no training."""
        for linear in (self.W_h, self.W_g, self.W_c, self.W_f):
            linear.weight.zero_()
            linear.bias.zero_()
        for linear in (self.W_c, self.W_f):
            linear.weight.fill_diagonal_(1.0)
        return self
