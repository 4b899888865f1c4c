"""CLIP's text encoder and tokenizer: prompts to T, templates to t_k; always in float32.

On a CPU that can (``packing.py``), the tokens of several prompts are the rows of one product.

Source: section 3.3; CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

from threading import Lock

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast

from mst_clipiqa.encoders.fused_block import ACTIVATIONS, FusedBlock
from mst_clipiqa.encoders.packing import PROMPTS_AT_ONCE, can_pack
from mst_clipiqa.encoders.pair import PromptTokens
from mst_clipiqa.encoders.text import padded_ids, tokenizable
from mst_clipiqa.encoders.threads import return_freed_memory
from mst_clipiqa.model.shapes import Embeddings, TokenMask, TokenStates


class CLIPText:
    """The text side of a pair of CLIP models."""

    def __init__(self, model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizerFast) -> None:
        """Take the two parts ready built; freeze the model."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.dim = self.text_dim = int(model.config.projection_dim)
        self.start_tokens = 1
        self._lock = Lock()  # the tokenizer is for one thread at a time
        self._fused: list[FusedBlock] = []  # the blocks, from the first prompt on
        self._fusing = Lock()  # of several threads whose first prompts come together
        self.max_tokens = int(model.config.max_position_embeddings)

    def to(self, device: torch.device | str) -> CLIPText:
        """Move the model to a device; returns itself."""
        self._release()
        self.model.to(device=device)
        return self

    @property
    def prompts_at_once(self) -> int:
        """How many prompts can be encoded at once without changing each other's states; only on x86 more than one.

        Elsewhere, and where T is projected, kernels round differently for other lengths and numbers of rows.
        """
        config = self.model.config
        fits = config.hidden_act in ACTIVATIONS and config.hidden_size == self.dim
        return PROMPTS_AT_ONCE if fits and self.device.type == "cpu" and can_pack() else 1

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; a prompt that is too long loses words at its end, never its end-of-text token."""
        ids, mask, truncated = self.tokenize(prompts)
        tokens = self._states(ids, mask).float()
        if tokens.shape[-1] != self.dim:  # in the paper it is D, and T is not projected
            tokens = self.model.text_projection(tokens)
        return PromptTokens(tokens, mask, truncated, in_vocabulary=[True] * len(prompts))

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Embeddings:
        """Return text embeddings of unit length, float32 (texts, D), read at the end-of-text token."""
        ids, mask, _ = self.tokenize(texts)
        states = self._states(ids, mask)
        # The end is where the mask says, so that a config's legacy eos_token_id (2) changes nothing.
        end = states[torch.arange(len(texts), device=states.device), mask.sum(dim=1) - 1]
        return F.normalize(self.model.text_projection(end).float(), dim=-1)

    def tokenize(self, prompts: list[str]) -> tuple[Int64[Tensor, "batch length"], TokenMask, list[bool]]:
        """Return ids int64 (batch, L), mask bool (batch, L), and which prompts were cut to fit."""
        with self._lock:
            texts = [tokenizable(prompt) for prompt in prompts]
            rows = self.tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]
        ids, mask, truncated = padded_ids(rows, prompts, self.max_tokens, pad=rows[0][-1], keep_last=True)
        return ids.to(self.device), mask.to(self.device), truncated

    def _states(self, ids: Int64[Tensor, "batch length"], mask: TokenMask) -> TokenStates:
        """Return the last hidden states; those of padding have no meaning."""
        text = self.model.text_model
        if self.prompts_at_once == 1:
            states: Tensor = text(input_ids=ids).last_hidden_state
            return states
        with self._fusing:
            if not self._fused:
                self._fused = [FusedBlock(layer) for layer in text.encoder.layers]
                return_freed_memory()  # of the weights in their old order
        prompts = [row[real] for row, real in zip(ids, mask, strict=True)]
        lengths = [len(prompt) for prompt in prompts]
        x = torch.cat([text.embeddings(input_ids=prompt.unsqueeze(0)) for prompt in prompts], dim=1)
        for block in self._fused:
            parts = zip(*(part.split(lengths, dim=2) for part in block.projected(x)), strict=True)
            attended = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in parts]
            x = block.add_mlp(block.add_attention(x, torch.cat(attended, dim=2)))
        rows = text.final_layer_norm(x)[0].split(lengths)
        return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def _release(self) -> None:
        """Give the model its plain weights back."""
        for block in self._fused:
            block.release()
        self._fused = []
