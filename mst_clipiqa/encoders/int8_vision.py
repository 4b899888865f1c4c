"""A block of CLIP's image encoder whose matrix products are of 8-bit integers, for inference on a CPU.

    x W' + b  =  s_t u_n (Q V' - z 1' V') + b        Q = round(x / s_t) + z,  V = round(W / u_n)

Each token t has a scale s_t, from its own largest value, and each output n a scale u_n, so neither other tokens nor
other images change its numbers. z is the level of 0: 128 for values of both signs. After the activation, which is
hardly ever below 0, it is chosen such that the token's lowest value is level 0.

If a norm's gain makes a few inputs large for every token, few levels are left for the others. The gain is known without
images, so inputs are evened out first: input i is divided by a_i and column i of W multiplied by it,

    a_i = sqrt(g_i / w_i),   g_i = sqrt(gain_i^2 + shift_i^2),   w_i = the largest weight of column i

which changes nothing but the rounding; a has a geometric mean of 1. Attention, softmax, norms and the sum through the
blocks stay float32.

Sources: Dettmers et al., "LLM.int8()" (arXiv 2208.07339) for a scale per token; Xiao et al., "SmoothQuant"
(arXiv 2211.10438) for dividing inputs. The operators are those that torch's compiler emits for quantised models.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mst_clipiqa.encoders.int8_weights import LEVELS, TOP, SumBits, rounded

_CENTRE = TOP - LEVELS
"""The level of 0 where values have both signs: 128."""
_SMALLEST = 1e-6  # a size that is taken for 0


class Int8Block:
    """What a block adds to the sum that runs through the encoder; the block's own weights stay as they are."""

    def __init__(self, layer: Any, bits: SumBits) -> None:
        """Round the weights of a block; ``bits`` is what ``sum_bits`` returns."""
        attention, mlp = layer.self_attn, layer.mlp
        self.heads = attention.num_heads
        self.activation = mlp.activation_fn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight, bias = (torch.cat([getattr(one, name) for one in projections]) for name in ("weight", "bias"))
        self.norm, weight = evened(layer.layer_norm1, weight)
        self.projection = Product(weight, bias, bits)
        self.norm_mlp, weight = evened(layer.layer_norm2, mlp.fc1.weight)
        self.up = Product(weight, mlp.fc1.bias, bits)
        self.out = Product(attention.out_proj.weight, attention.out_proj.bias, bits)
        self.down = Product(mlp.fc2.weight, mlp.fc2.bias, bits)

    def release(self) -> None:
        """Give back nothing: the block's layers have kept their weights."""

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, float32 (batch, heads, tokens, d), of x, float32 (batch, tokens, width)."""
        three = self.projection(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = three.permute(2, 0, 3, 1, 4)
        return query, key, value

    def add_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the output of attention, float32 (batch, heads, tokens, d), projected, to x in place; return x."""
        return x.add_(self.out(attended.transpose(1, 2).flatten(2)))

    def add_mlp(self, x: Tensor) -> Tensor:
        """Add the MLP of x, float32 (batch, tokens, width), to it in place; return x."""
        hidden = self.activation(self.up(self.norm_mlp(x)))
        return x.add_(self.down(hidden, is_low_bounded=True))


class Product:
    """x W' + b with x and W in 8 bits."""

    def __init__(self, weight: Tensor, bias: Tensor, bits: SumBits) -> None:
        """Round and pack a weight (outputs, inputs); ``bits`` is what ``sum_bits`` returns."""
        levels, self.scale = rounded(weight.detach()[:, :, None, None], bits)
        levels = levels.flatten(1)
        self.packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self.sums = levels.sum(1).float() * self.scale
        self.bias = bias.detach().float()
        self.zeros = torch.zeros(len(levels), dtype=torch.int32)

    def __call__(
        self, x: Float[Tensor, "batch tokens inputs"], is_low_bounded: bool = False
    ) -> Float[Tensor, "batch tokens outputs"]:
        """Return x W' + b, float32.

        Args:
            x: float32.
            is_low_bounded: whether the lowest values of a token are nearer to 0 than the highest.
        """
        rows = x.flatten(0, 1)
        high, low = rows.amax(1, keepdim=True).clamp_(min=_SMALLEST), rows.amin(1, keepdim=True).clamp_(max=0)
        if is_low_bounded:
            step = (high - low) / TOP
            zero = (-low / step).round_()
            y = self._of_levels(rows.div(step).round_().add_(zero).clamp_(0, TOP), 0)
            y.addr_(zero[:, 0], self.sums, alpha=-1)
        else:
            step = torch.maximum(high, -low) / LEVELS
            y = self._of_levels(rows.div(step).round_().add_(_CENTRE), _CENTRE)
        product: Tensor = torch.addcmul(self.bias, y, step, out=y).unflatten(0, x.shape[:2])
        return product

    def _of_levels(self, levels: Tensor, zero: int) -> Tensor:
        whole = levels.to(torch.int16).to(torch.uint8)  # faster than at once
        how: tuple[Any, ...] = (None, 1.0, 0, torch.float32, "none", [], "")
        y: Tensor = torch.ops.onednn.qlinear_pointwise(whole, 1.0, zero, self.packed, self.scale, self.zeros, *how)
        return y


def evened(norm: nn.LayerNorm, weight: Tensor) -> tuple[nn.LayerNorm, Tensor]:
    """Return a norm and the weights (outputs, inputs) that read it, with the same product and inputs of like size."""
    gain, shift, weight = (one.detach().float() for one in (norm.weight, norm.bias, weight))
    size, largest = (gain.square() + shift.square()).sqrt(), weight.abs().amax(0)
    factor = (size.clamp(min=_SMALLEST) / largest.clamp(min=_SMALLEST)).sqrt()
    factor /= factor.log().mean().exp()
    even = nn.LayerNorm(norm.normalized_shape, norm.eps)
    even.weight, even.bias = (nn.Parameter(one / factor, requires_grad=False) for one in (gain, shift))
    return even, weight * factor
