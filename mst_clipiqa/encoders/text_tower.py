"""Text towers other than CLIP's: prompts to T, templates to t_k; always in float32.

    states = body(ids, mask)                                          (batch, L, width)
    embedding = project(pooled states), at unit length                (batch, D)
    T = states, or project(states) where their width is not D         (batch, L, D)

The prompt head needs token states of size D. The paper's T is not projected, and its text encoder's width is D.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.families import Pooling
from mst_clipiqa.encoders.pair import PromptTokens
from mst_clipiqa.encoders.tokens import TextTokenizer, TextTokens
from mst_clipiqa.model.shapes import Embeddings, TokenMask, TokenStates


class TextTower(nn.Module):
    """A tokenizer, a text model of ``transformers`` and what comes after it, frozen."""

    def __init__(self, body: Any, project: nn.Module, pooling: Pooling, tokenizer: TextTokenizer, dim: int) -> None:
        """Take built parts.

        Args:
            body: ``body(input_ids=, attention_mask=)`` has a ``last_hidden_state``.
            project: pooled states (n, width) to embeddings (n, D).
            pooling: which states become the embedding: "end", "first" and "last" pick one, "mean" takes all real ones.
            tokenizer: prompts to ids.
            dim: D.
        """
        super().__init__()
        self.body, self.project = body, project
        self.pooling: Pooling = pooling
        self.tokenizer = tokenizer
        self.dim = self.text_dim = dim
        self.start_tokens = tokenizer.start
        self.prompts_at_once = 1  # kernels round differently for other lengths and numbers of rows
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; a prompt that is too long loses words at its end, never its last special token."""
        read, states = self._states(prompts)
        tokens: TokenStates = self.project(states) if states.shape[-1] != self.dim else states
        mask = read.mask.to(self.device)
        return PromptTokens(tokens.float(), mask, read.truncated, read.in_vocabulary, read.unread)

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Embeddings:
        """Return text embeddings of unit length, float32 (texts, D)."""
        read, states = self._states(texts)
        pooled = _pooled(states, read.mask.to(self.device), self.pooling)
        return F.normalize(self.project(pooled).float(), dim=-1)

    def described(self) -> list[Any]:
        """Return all that decides the embeddings beside the weights and the body's config, for a hash."""
        layers = [type(layer).__name__ for layer in self.project.modules()]
        return [self.pooling, self.dim, layers, *self.tokenizer.described()]

    def _states(self, texts: list[str]) -> tuple[TextTokens, TokenStates]:
        read = self.tokenizer(texts)
        # SigLIP was trained without a mask: its states depend on the padding, which is therefore always the same.
        mask = None if self.pooling == "last" else read.mask.to(self.device, torch.int64)
        return read, self.body(input_ids=read.ids.to(self.device), attention_mask=mask).last_hidden_state


def _pooled(states: Float[Tensor, "batch L width"], mask: TokenMask, pooling: Pooling) -> Float[Tensor, "batch width"]:
    match pooling:
        case "end":  # the last real token; a config's own id of it may be a legacy one
            return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
        case "first":
            return states[:, 0]
        case "last":
            return states[:, -1]
        case "mean":
            weight = mask.unsqueeze(-1).to(states.dtype)
            return (states * weight).sum(dim=1) / weight.sum(dim=1)
