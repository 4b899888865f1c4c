"""Image towers that ``transformers`` computes: SigLIP's pools by attention, DINO's [CLS] is not projected.

Sources: SigLIP (arXiv 2303.15343), SigLIP 2 (arXiv 2502.14786), DINOv2 (arXiv 2304.07193), DINOv3 (arXiv 2508.10104).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mst_clipiqa.model.shapes import Embeddings, Pixels


class PooledTower(nn.Module):
    """Normalised pixels (batch, 3, S, S) to pooled features, float32 (batch, D)."""

    def __init__(self, model: Any, patch: int | None = None) -> None:
        """Wrap a loaded image model; ``patch`` is the side of its patches if it takes them instead of pixels."""
        super().__init__()
        self.model = model
        self.patch = patch
        self.dtype = torch.float32

    def compute_in(self, dtype: torch.dtype) -> PooledTower:
        """Compute matrix products in ``dtype``; weights, norms and the sum through the blocks stay float32."""
        self.dtype = dtype
        return self

    def forward(self, pixels: Pixels) -> Embeddings:
        """Return ``pooler_output``, float32, of pixels of any floating dtype."""
        with torch.autocast(pixels.device.type, self.dtype, enabled=self.dtype != torch.float32):
            pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
            given: tuple[Tensor, ...] = (pixels.contiguous(),)
            if self.patch is not None:
                patches, grid = _patches(pixels, self.patch), pixels.shape[2] // self.patch
                mask = torch.ones(patches.shape[:2], dtype=torch.int64, device=pixels.device)
                given = patches, mask, torch.full((len(pixels), 2), grid, device=pixels.device)
            pooled: Tensor = self.model(*given).pooler_output
        return pooled.to(pixels.dtype)


def _patches(pixels: Float[Tensor, "batch 3 S S"], side: int) -> Float[Tensor, "batch patches numbers"]:
    """Return the patches of square images row by row, each as its pixels row by row, channels last."""
    rows = pixels.unfold(2, side, side).unfold(3, side, side)  # (batch, 3, grid, grid, side, side)
    return rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
