"""A block of CLIP's encoders as oneDNN computes it fastest on a CPU: weights reordered once, gelu fused.

In bf16 products then run at the machine's own rate or above it; in float32 they gain with AVX-512.
quick_gelu(h) = swish(1.702 h) / 1.702: the layer norm before the MLP and the biases take the first factor, the sum that
the MLP is added to takes the second, all in float32.
Logits, softmax and sum are those of the plain block.

The operators are those that torch's compiler emits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

QUICK = 1.702
ACTIVATIONS = "quick_gelu", "gelu"
"""Of the MLPs that can be fused."""


def can_fuse(layer: Any, dtype: torch.dtype) -> bool:
    """Return whether a block gains from it on this CPU, in bf16 or float32, and this torch has the operators."""
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    return (
        layer.mlp.config.hidden_act in ACTIVATIONS
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
        and _gains(dtype)
    )


def _gains(dtype: torch.dtype) -> bool:
    """Return whether reordering pays for images: tried in float32 with AVX2, products of so many rows became slower."""
    if dtype == torch.float32:
        return torch.backends.cpu.get_cpu_capability() == "AVX512"
    return dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FusedBlock:
    """What a block adds to the sum that runs through the encoder.

    The weights of its products stay in the block's own layers, but reordered: no second copy is kept.
    """

    def __init__(self, layer: Any) -> None:
        """Reorder the weights of a block; ``release`` undoes it."""
        attention, mlp = layer.self_attn, layer.mlp
        self.heads = attention.num_heads
        self.query, self.key, self.value = attention.q_proj, attention.k_proj, attention.v_proj
        self.out, self.up, self.down = attention.out_proj, mlp.fc1, mlp.fc2
        self.dtype = self.up.weight.dtype
        self.norm, norm = layer.layer_norm1, layer.layer_norm2
        self.is_quick = mlp.config.hidden_act == "quick_gelu"
        factor = QUICK if self.is_quick else 1.0
        affine = norm.weight.detach().float() * factor, norm.bias.detach().float() * factor
        self.norm_mlp = (norm.normalized_shape, *affine, norm.eps)
        self.biases = [one.bias.detach().float() * factor for one in (self.up, self.down)]
        self.factor = 1 / factor
        for linear in self._products:
            packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
            linear.weight = nn.Parameter(packed, requires_grad=False)

    @property
    def _products(self) -> tuple[nn.Linear, ...]:
        return self.query, self.key, self.value, self.out, self.up, self.down

    def release(self) -> None:
        """Give the block's layers their plain weights back, bit for bit."""
        for linear in self._products:
            linear.weight = nn.Parameter(linear.weight.detach().to_dense(), requires_grad=False)

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (batch, heads, tokens, d), of x, float32 (batch, tokens, width)."""
        normed = self.norm(x).to(self.dtype)
        query, key, value = (
            _product(one, normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        )
        return query, key, value

    def add_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the output of attention (batch, heads, tokens, d), projected, to x in place; return x."""
        return x.add_(_product(self.out, attended.transpose(1, 2).flatten(2)).float())

    def add_mlp(self, x: Tensor) -> Tensor:
        """Add the MLP of x, float32 (batch, tokens, width), to it in place; return x."""
        normed = F.layer_norm(x, *self.norm_mlp).to(self.dtype)
        after = ("swish", "") if self.is_quick else ("gelu", "none")
        hidden = _product(self.up, normed, self.biases[0], *after)
        return x.add_(_product(self.down, hidden, self.biases[1]).float(), alpha=self.factor)


def _product(linear: nn.Linear, x: Tensor, bias: Tensor | None = None, after: str = "none", how: str = "") -> Tensor:
    bias = linear.bias if bias is None else bias
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, linear.weight, bias, after, [], how)
    return y
