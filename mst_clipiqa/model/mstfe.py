"""Multi-scale token feature extraction: pixels to f_c and f_f.

    f_c = E_coarse(x_c)        f_f = mean over views of E_fine(x_f)        both (batch, D), both frozen

E is an image encoder's projected [CLS] embedding, not normalised. In the paper both see the same 224-pixel view and
the mean runs over one. Source: section 3.1. (``mini`` has its own: ``encoders/mini/``.)
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mst_clipiqa.model.preprocess import ViewSpec, normalised
from mst_clipiqa.model.shapes import CropBatch, Embeddings, ViewBatch

Stream: TypeAlias = Literal["coarse", "fine"]


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

    def forward(self, stream: Stream, views: ViewBatch | CropBatch) -> Embeddings:
        """Return f_c or f_f, float32 (batch, D).

        Args:
            stream: "coarse" or "fine".
            views: uint8 (batch, 3, S, S), or (batch, K, 3, C, C): native crops, over which the mean is taken, or the
                fine stream's own view (K = 1).
        """
        crops = views if views.ndim == 5 else views.unsqueeze(1)
        pixels = normalised(crops.flatten(0, 1), self.view.of(stream), self.dtype)
        return self.embed(stream, pixels.unflatten(0, crops.shape[:2])).float()

    def embed(self, stream: Stream, pixels: Float[Tensor, "batch crops 3 S S"]) -> Embeddings:
        """Return f_c or f_f of normalised pixels, the mean over crops; in fp32 with gradients to the pixels."""
        encoder = self.encoder_coarse if stream == "coarse" else self.encoder_fine
        features: Embeddings = encoder(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).mean(dim=1)
        return features
