"""The trained blocks of a tower, computed for training on a CPU.

Only 1 x 1 convolutions are trained: as matrix products over maps (n, height, width, channels) they and their gradients
are fast in bf16. The depthwise kernels keep ImageNet's values; the gradient through them is a convolution with the
kernel turned round, computed by the forward operator. Both passes of a batch take a thirtieth of the time that torch's
own take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.towers import Block, Tower, pooled


class Depthwise(torch.autograd.Function):
    """relu6 of a depthwise convolution with a fixed kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """Return float (n, height / stride, width / stride, channels) of x (n, height, width, channels)."""
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, weight.shape[-1] // 2, groups=len(weight))
        y = F.hardtanh_(y.permute(0, 2, 3, 1), 0.0, 6.0)
        ctx.save_for_backward(weight, y)
        ctx.stride, ctx.size = stride, x.shape[1:3]
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of x."""
        weight, y = ctx.saved_tensors
        gradient = torch.ops.aten.hardtanh_backward(gradients[0], y, 0, 6)
        if ctx.stride == 2:
            spread = gradient.new_zeros(len(gradient), *ctx.size, gradient.shape[3])
            spread[:, ::2, ::2] = gradient
            gradient = spread
        turned = weight.flip(2, 3).contiguous(memory_format=torch.channels_last)
        back = F.conv2d(gradient.permute(0, 3, 1, 2), turned, None, 1, weight.shape[-1] // 2, groups=len(weight))
        return back.permute(0, 2, 3, 1), None, None, None


class Trunk(nn.Module):
    """Blocks ``start`` and later of a tower, and its head."""

    def __init__(self, tower: Tower, start: int) -> None:
        super().__init__()
        self.start = start
        blocks = [block for block in tower.blocks if isinstance(block, Block)][start:]
        self.expand = nn.ModuleList(_product(b.expand) for b in blocks if b.expand is not None)
        self.project = nn.ModuleList(_product(b.project) for b in blocks)
        self.head = None if tower.head is None else _product(tower.head)
        self.kernels = [b.depthwise.weight.detach().to(torch.bfloat16) for b in blocks]
        self.shifts = [_bias(b.depthwise).to(torch.bfloat16) for b in blocks]
        self.shapes = [(b.depthwise.stride[0], b.skip) for b in blocks]
        self.taps = tower.config.taps

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers that describe each view, not standardised, of maps (n, height, width, channels)."""
        maps = [x] if self.start in self.taps else []
        for i, (expand, project) in enumerate(zip(self.expand, self.project, strict=True)):
            stride, skip = self.shapes[i]
            h = F.hardtanh_(_multiplied(expand, x), 0.0, 6.0)
            h = Depthwise.apply(h, self.kernels[i], self.shifts[i], stride)  # type: ignore[no-untyped-call]
            h = _multiplied(project, h)
            x = x + h if skip else h
            if self.start + i + 1 in self.taps:
                maps.append(x)
        last = None if self.head is None else F.hardtanh_(_multiplied(self.head, x), 0.0, 6.0)
        turned = [m.permute(0, 3, 1, 2) for m in maps]
        return pooled(turned, None if last is None else last.permute(0, 3, 1, 2))

    @torch.no_grad()
    def write(self, tower: Tower) -> None:
        """Copy the trained weights into a tower."""
        blocks = [block for block in tower.blocks if isinstance(block, Block)][self.start :]
        for block, expand, project in zip(blocks, self.expand, self.project, strict=True):
            _copy(expand, block.expand)
            _copy(project, block.project)
        if self.head is not None:
            _copy(self.head, tower.head)


def _product(layer: nn.Conv2d) -> nn.Linear:
    product = nn.Linear(layer.in_channels, layer.out_channels)
    product.load_state_dict({"weight": layer.weight.detach()[:, :, 0, 0], "bias": _bias(layer)})
    return product


def _multiplied(layer: nn.Module, x: Tensor) -> Tensor:
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"Expected a linear layer, got {type(layer).__name__}.")
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def _copy(product: nn.Module | None, layer: nn.Conv2d | None) -> None:
    if not isinstance(product, nn.Linear) or layer is None:
        raise TypeError("Expected layers of one kind.")
    layer.load_state_dict({"weight": product.weight[:, :, None, None], "bias": product.bias})


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("Expected a convolution with a bias.")
    return layer.bias.detach()
