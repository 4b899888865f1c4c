"""The text encoder for inference on a CPU: the tokens of several prompts are the rows of one product.

So weights are read from memory once for all prompts together, which is most of what a short prompt costs. oneDNN's
product rounds a row alike whatever other rows there are, if it has at least two; attention is of each prompt by
itself. So no prompt changes another's states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.text import TextBlock, TextEncoder


class PackedText:
    """What ``TextEncoder`` computes, with weights in oneDNN's order."""

    def __init__(self, text: TextEncoder) -> None:
        """Copy the weights of the linear layers; the rest is shared."""
        self.text = text
        self.blocks = [_PackedBlock(block) for block in text.blocks if isinstance(block, TextBlock)]
        self.project = _PackedLinear(text.project)

    def __call__(self, prompts: Sequence[Int64[Tensor, " _"]]) -> list[Float[Tensor, "_ dim"]]:
        """Return T of each prompt, float32 (tokens, D), from its ids, int64 (tokens,), at least two."""
        lengths = [len(ids) for ids in prompts]
        positions = torch.cat([self.text.positions[:length] for length in lengths])
        x: Tensor = self.text.norm(self.text.words(torch.cat(list(prompts))) + positions)
        for block in self.blocks:
            x = block(x, lengths)
        return list(self.project(x).split(lengths))


class _PackedBlock:
    def __init__(self, block: TextBlock) -> None:
        self.block = block
        self.qkv, self.out = _PackedLinear(block.qkv), _PackedLinear(block.out)
        self.up, self.down = _PackedLinear(block.up), _PackedLinear(block.down)

    def __call__(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Map the token states of all prompts, (all tokens, width)."""
        qkv = self.qkv(x).unflatten(1, (3, self.block.heads, -1)).permute(1, 2, 0, 3)  # (3, heads, tokens, width)
        seen = [F.scaled_dot_product_attention(*part.unsqueeze(1)) for part in qkv.split(lengths, dim=2)]
        x = self.block.norm_1(x + self.out(torch.cat(seen, dim=2)[0].transpose(0, 1).flatten(1)))
        states: Tensor = self.block.norm_2(x + self.down(F.gelu(self.up(x))))
        return states


class _PackedLinear:
    def __init__(self, layer: nn.Linear) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self.bias = layer.bias

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y
