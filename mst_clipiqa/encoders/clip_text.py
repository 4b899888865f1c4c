"""CLIP's text encoder and tokenizer: prompts to T, templates to t_k; always in float32.

Source: section 3.3; CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

from threading import Lock

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast

from mst_clipiqa.encoders.pair import PromptTokens
from mst_clipiqa.encoders.text import cleaned, padded
from mst_clipiqa.model.shapes import Embeddings, TokenMask


class CLIPText:
    """The text side of a pair of CLIP models."""

    def __init__(self, model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizerFast) -> None:
        """Take the two parts ready built; freeze the model."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.dim = self.text_dim = int(model.config.projection_dim)
        self.start_tokens = 1
        self.prompts_at_once = 1  # kernels round differently for other lengths and numbers of rows
        self._lock = Lock()  # the tokenizer is for one thread at a time
        self.max_tokens = int(model.config.max_position_embeddings)

    def to(self, device: torch.device | str) -> CLIPText:
        """Move the model to a device; returns itself."""
        self.model.to(device=device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; a prompt that is too long loses words at its end, never its end-of-text token."""
        ids, mask, truncated = self.tokenize(prompts)
        tokens = self.model.text_model(input_ids=ids).last_hidden_state.float()
        if tokens.shape[-1] != self.dim:  # in the paper it is D, and T is not projected
            tokens = self.model.text_projection(tokens)
        return PromptTokens(tokens, mask, truncated, in_vocabulary=[True] * len(prompts))

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Embeddings:
        """Return text embeddings of unit length, float32 (texts, D), read at the end-of-text token."""
        ids, mask, _ = self.tokenize(texts)
        states = self.model.text_model(input_ids=ids).last_hidden_state
        # The end is where the mask says, so that a config's legacy eos_token_id (2) changes nothing.
        end = states[torch.arange(len(texts), device=states.device), mask.sum(dim=1) - 1]
        return F.normalize(self.model.text_projection(end).float(), dim=-1)

    def tokenize(self, prompts: list[str]) -> tuple[Int64[Tensor, "batch length"], TokenMask, list[bool]]:
        """Return ids int64 (batch, L), mask bool (batch, L), and which prompts were cut to fit."""
        with self._lock:
            rows = self.tokenizer([cleaned(p) for p in prompts], add_special_tokens=True, verbose=False)["input_ids"]
        ids, mask, truncated = padded(rows, prompts, self.max_tokens, pad=rows[0][-1], keep_last=True)
        return ids.to(self.device), mask.to(self.device), truncated
