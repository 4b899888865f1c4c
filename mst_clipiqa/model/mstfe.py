"""Multi-scale token feature extraction: pixels to f_c and f_f.

    f_c = E_coarse(x_c)        f_f = mean over views of E_fine(x_f)        both (batch, D), both frozen

E is an image encoder's projected [CLS] embedding, not normalised. In the paper both see the same 224-pixel view and
the mean runs over one. Source: section 3.1. (``mini`` has its own: ``encoders/mini/``.)
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from mst_clipiqa.model.preprocess import ViewSpec, normalised
from mst_clipiqa.model.shapes import CropBatch, Embeddings, Pixels, ViewBatch


class MSTFE(nn.Module):
    """Two frozen image encoders; each maps normalised pixels (batch, 3, S, S) to (batch, D)."""

    def __init__(self, encoder_coarse: nn.Module, encoder_fine: nn.Module, view: ViewSpec) -> None:
        """Take two built encoders and freeze them."""
        super().__init__()
        self.encoder_coarse = encoder_coarse
        self.encoder_fine = encoder_fine
        self.view = view
        self.dtype = torch.float32
        self.eval().requires_grad_(False)

    def compute_in(self, dtype: torch.dtype) -> MSTFE:
        """Let both encoders, which must have ``compute_in``, multiply matrices in another precision; returns itself."""
        for encoder in (self.encoder_coarse, self.encoder_fine):
            cast(Any, encoder).compute_in(dtype)
        self.dtype = dtype
        return self

    def forward(self, coarse: ViewBatch, fine: CropBatch | None = None) -> tuple[Embeddings, Embeddings]:
        """Return f_c and f_f.

        Args:
            coarse: uint8 [0, 255], (batch, 3, S, S).
            fine: uint8 [0, 255], (batch, K, 3, C, C), averaged over K; None to use ``coarse`` again.

        Returns:
            f_c, f_f: float32 (batch, D).
        """
        return self.coarse(coarse), self.fine(coarse if fine is None else fine)

    def coarse(self, coarse: ViewBatch) -> Embeddings:
        """Return f_c, float32 (batch, D), of uint8 (batch, 3, S, S)."""
        return self.encoder_coarse(self._pixels(coarse)).float()  # type: ignore[no-any-return]

    def fine(self, fine: CropBatch | ViewBatch) -> Embeddings:
        """Return f_f, float32 (batch, D), of uint8 crops (batch, K, 3, C, C) or of coarse views (batch, 3, S, S)."""
        crops = fine if fine.ndim == 5 else fine.unsqueeze(1)
        f_f = self.encoder_fine(self._pixels(crops.flatten(0, 1)))
        return f_f.float().unflatten(0, crops.shape[:2]).mean(dim=1)  # type: ignore[no-any-return]

    def _pixels(self, pixels: ViewBatch) -> Pixels:
        return normalised(pixels, self.view, self.dtype)
