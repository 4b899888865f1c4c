"""The text encoder for inference on a CPU: the tokens of several prompts are the rows of one product.

``encoders/packing.py`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.layers import Linear
from mst_clipiqa.encoders.mini.text import TextBlock, TextEncoder
from mst_clipiqa.encoders.threads import return_freed_memory

_packing = Lock()


def packed_states(text: TextEncoder, prompts: Sequence[Int64[Tensor, " _"]]) -> list[Float[Tensor, "_ dim"]]:
    """Return T of each prompt as ``TextEncoder`` does, whose linear layers are packed at the first call.

    Args:
        text: the encoder, on a CPU.
        prompts: ids of each, int64 (tokens,), at least two.

    Returns:
        float32 (tokens, D) of each.
    """
    if not text.project.weight.is_mkldnn:  # the last layer that is packed
        _pack(text)
    lengths = [len(ids) for ids in prompts]
    positions = torch.cat([text.positions[:length] for length in lengths])
    x: Tensor = text.norm(text.words(torch.cat(list(prompts))) + positions)
    for block in text.blocks:
        x = _mapped(cast(TextBlock, block), x, lengths)
    return list(text.project.product(x).split(lengths))


def _pack(text: TextEncoder) -> None:
    with _packing:  # several threads may encode their first prompts at once
        for layer in linear_layers(text):
            layer.pack()
    return_freed_memory()  # that of the weights in their old order


def linear_layers(text: TextEncoder) -> Iterator[Linear]:
    """Yield all linear layers, the projection last."""
    return (layer for layer in text.modules() if isinstance(layer, Linear))


def _mapped(block: TextBlock, x: Tensor, lengths: list[int]) -> Tensor:
    """Return the output of a block for the token states of all prompts, float32 (all tokens, width)."""
    qkv = block.qkv.product(x).unflatten(1, (3, block.heads, -1)).permute(1, 2, 0, 3)  # (3, heads, tokens, width)
    attended = [F.scaled_dot_product_attention(*part.unsqueeze(1)) for part in qkv.split(lengths, dim=2)]
    x = block.norm_1(x + block.out.product(torch.cat(attended, dim=2)[0].transpose(0, 1).flatten(1)))
    states: Tensor = block.norm_2(x + block.down.product(F.gelu(block.up.product(x))))
    return states
