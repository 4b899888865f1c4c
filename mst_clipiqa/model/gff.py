r"""Gated feature fusion: f_c and f_f to one feature z.

    h = ReLU(W_h [f_c ; f_f] + b_h)                        (batch, D / 4)
    g = sigmoid(W_g h + b_g)                               (batch, D)
    z = g * (W_c f_c + b_c) + (1 - g) * (W_f f_f + b_f)    (batch, D)

In the paper f_c and f_f have the size D too. Here the fine feature may have a size D_f of its own (DINOv2 beside CLIP):
then W_f maps D_f to D, and W_h reads D_c + D_f numbers. Source: section 3.2.
"""

from __future__ import annotations

import torch
from torch import nn

from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.shapes import CoarseEmbeddings, Embeddings, FineEmbeddings


class GFF(nn.Module):
    """A gate per dimension between the coarse and the fine stream."""

    def __init__(self, dim: int, dim_coarse: int | None = None, dim_fine: int | None = None) -> None:
        """Build the four maps to a fused feature of size D = ``dim``, which is also D_c and D_f if these are None."""
        super().__init__()
        d_c, d_f = dim_coarse or dim, dim_fine or dim
        self.W_h = nn.Linear(d_c + d_f, dim // 4)
        self.W_g = nn.Linear(dim // 4, dim)
        self.W_c = nn.Linear(d_c, dim)
        self.W_f = nn.Linear(d_f, dim)

    def forward(self, f_c: CoarseEmbeddings, f_f: FineEmbeddings) -> tuple[Embeddings, Embeddings]:
        """Return the gate and the fused feature.

        Args:
            f_c: coarse feature, float (batch, D_c).
            f_f: fine feature, float (batch, D_f).

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
        """Set the gate to one half and both maps to the identity: the fusion that needs no training.

        Raises:
            ModelError: a feature has another size than D, so that there is no identity.
        """
        if self.W_c.weight.shape != self.W_f.weight.shape or self.W_c.in_features != self.W_c.out_features:
            raise ModelError(
                f"Expected features of size {self.W_c.out_features} for a fusion without training, got "
                f"{self.W_c.in_features} and {self.W_f.in_features}: train a model on these encoders."
            )
        for linear in (self.W_h, self.W_g, self.W_c, self.W_f):
            linear.weight.zero_()
            linear.bias.zero_()
        for linear in (self.W_c, self.W_f):
            linear.weight.fill_diagonal_(1.0)
        return self
