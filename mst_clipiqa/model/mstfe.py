"""Multi-scale token feature extraction: pixels to f_c and f_f.

    f_c = E_coarse(x_c)        f_f = mean over views of E_fine(x_f)        both (batch, D), both frozen

E is an image encoder's projected [CLS] embedding, not normalised. In the paper both see the same 224-pixel view and
the mean runs over one. Source: section 3.1. (``mini`` has towers of its own: ``encoders/mini/towers.py``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mst_clipiqa.model.preprocess import ViewSpec, normalised


@dataclass(frozen=True)
class PromptTokens:
    """What the prompt head sees of a batch of prompts.

    Attributes:
        tokens: T, float32 (batch, L, text_dim): last hidden states of the text encoder.
        mask: m, bool (batch, L): True for real tokens, False for padding.
        truncated: whether each prompt was longer than the encoder reads.
        known: whether each prompt's words are ones that the text encoder was trained on.
    """

    tokens: Tensor
    mask: Tensor
    truncated: list[bool]
    known: list[bool]


class EncoderPair(Protocol):
    """Two frozen image encoders and a text encoder that share one embedding space."""

    @property
    def view(self) -> ViewSpec:
        """How images become pixels for this pair."""

    @property
    def dim(self) -> int:
        """D, the size of f_c and f_f."""

    @property
    def text_dim(self) -> int:
        """The width of T; the prompt head needs it to equal D."""

    @property
    def source(self) -> str:
        """The name or folders that load this pair again."""

    @property
    def sha256(self) -> str:
        """The hash of all weights and tokenizer files of the pair, hexadecimal."""

    @property
    def device(self) -> torch.device:
        """Where views must be to be encoded."""

    @property
    def precision(self) -> str:
        """What the towers compute in: fp32, bf16 or fp16."""

    def encode_views(self, coarse: Tensor, fine: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return f_c, f_f, float32 (batch, D), of uint8 views (batch, 3, S, S) and (batch, K, 3, C, C) or None."""

    def encode_coarse(self, coarse: Tensor) -> Tensor:
        """Return f_c alone, float32 (batch, D), the same numbers as ``encode_views`` gives."""

    def encode_fine(self, fine: Tensor) -> Tensor:
        """Return f_f alone, of native crops (batch, K, 3, C, C) or of the coarse view (batch, 3, S, S)."""

    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return the token states of prompts."""

    def encode_templates(self, texts: list[str]) -> Tensor:
        """Return projected text embeddings of unit length, float32 (texts, D)."""


class MSTFE(nn.Module):
    """Two frozen image encoders; each maps normalised pixels (batch, 3, S, S) to (batch, D)."""

    def __init__(self, encoder_coarse: nn.Module, encoder_fine: nn.Module, view: ViewSpec) -> None:
        """Take the two towers ready built; freeze them."""
        super().__init__()
        self.encoder_coarse = encoder_coarse
        self.encoder_fine = encoder_fine
        self.view = view
        self.dtype = torch.float32
        self.eval().requires_grad_(False)

    def compute_in(self, dtype: torch.dtype) -> MSTFE:
        """Let both towers, which must know how, multiply matrices in another precision; returns itself."""
        for tower in (self.encoder_coarse, self.encoder_fine):
            cast(Any, tower).compute_in(dtype)
        self.dtype = dtype
        return self

    def forward(self, coarse: Tensor, fine: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return f_c and f_f.

        Args:
            coarse: uint8 [0, 255], (batch, 3, S, S).
            fine: uint8 [0, 255], (batch, K, 3, C, C), averaged over K; None to look at ``coarse`` again.

        Returns:
            f_c, f_f: float32 (batch, D).
        """
        return self.coarse(coarse), self.fine(coarse if fine is None else fine)

    def coarse(self, coarse: Tensor) -> Tensor:
        """Return f_c, float32 (batch, D), of uint8 (batch, 3, S, S)."""
        return self.encoder_coarse(self._pixels(coarse)).float()  # type: ignore[no-any-return]

    def fine(self, fine: Tensor) -> Tensor:
        """Return f_f, float32 (batch, D), of uint8 crops (batch, K, 3, C, C) or of coarse views (batch, 3, S, S)."""
        crops = fine if fine.ndim == 5 else fine.unsqueeze(1)
        f_f = self.encoder_fine(self._pixels(crops.flatten(0, 1)))
        return f_f.float().unflatten(0, crops.shape[:2]).mean(dim=1)  # type: ignore[no-any-return]

    def _pixels(self, pixels: Tensor) -> Tensor:
        return normalised(pixels, self.view, self.dtype)
