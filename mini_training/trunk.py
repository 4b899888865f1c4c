"""The trained blocks of a tower, computed for training on a CPU.

The 1 x 1 convolutions are matrix products over maps (n, height, width, channels): they and their gradients are fast in
bf16. The gradient through a depthwise convolution is one with the kernel turned round, computed by the forward
operator; the gradient of its kernel is computed in fp32, where torch takes half of the time that it takes in bf16.

The weights that are trained are those before batch norm was folded in, as ImageNet's training left them: folded ones
are up to ten times smaller in some layers and five times larger in others, and AdamW moves all of them equally far.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mini_training.pretrained import Gains
from mst_clipiqa.encoders.mini.towers import Block, Tower, pooled


class DepthwiseFunction(torch.autograd.Function):
    """relu6 of a depthwise convolution."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """Return float (n, height / stride, width / stride, channels) of x (n, height, width, channels)."""
        weight = weight.to(x.dtype)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias.to(x.dtype), stride, weight.shape[-1] // 2, groups=len(weight))
        y = F.hardtanh_(y.permute(0, 2, 3, 1), 0.0, 6.0)
        ctx.save_for_backward(x, weight, y)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, of the kernels and of the biases; those of weights in fp32."""
        x, weight, y = ctx.saved_tensors
        gradient = torch.ops.aten.hardtanh_backward(gradients[0], y, 0, 6)
        spread = gradient
        if ctx.stride == 2:
            spread = gradient.new_zeros(x.shape)
            spread[:, ::2, ::2] = gradient
        turned = weight.flip(2, 3).contiguous(memory_format=torch.channels_last)
        back = F.conv2d(spread.permute(0, 3, 1, 2), turned, None, 1, weight.shape[-1] // 2, groups=len(weight))
        of_kernels = _on_card if x.is_cuda else _on_cpu
        kernels = of_kernels(x, gradient, weight, ctx.stride)
        return back.permute(0, 2, 3, 1), kernels, gradient.sum((0, 1, 2), dtype=torch.float32), None


def _on_cpu(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of a depthwise convolution's kernels, in fp32, of that of its output before relu6."""
    side = weight.shape[-1]
    maps = (each.permute(0, 3, 1, 2).float() for each in (gradient, x))
    geometry = [stride] * 2, [side // 2] * 2, [1, 1], False, [0, 0], len(weight)
    found = torch.ops.aten.convolution_backward(*maps, weight.float(), None, *geometry, [False, True, False])
    kernels: Tensor = found[1]
    return kernels


def _on_card(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the same, as one sum of products for each place in a kernel."""
    side = weight.shape[-1]
    padded = F.pad(x, (0, 0, side // 2, side // 2, side // 2, side // 2))
    high, wide = (stride * (size - 1) + 1 for size in gradient.shape[1:3])
    sums = [
        (gradient * padded[:, i : i + high : stride, j : j + wide : stride]).sum((0, 1, 2), dtype=torch.float32)
        for i in range(side)
        for j in range(side)
    ]
    return torch.stack(sums, 1).view(weight.shape)


class _Weights(nn.Module):
    """A convolution's weights, without the gain of its batch norm, and its bias."""

    gain: Tensor

    def __init__(self, layer: nn.Conv2d, gain: Tensor) -> None:
        """``gain``: float, (outputs,): what batch norm multiplied each output by."""
        super().__init__()
        self.register_buffer("gain", gain.view(-1, 1, 1, 1), persistent=False)
        self.weight = nn.Parameter(layer.weight.detach() / self.gain)
        self.bias = nn.Parameter(_bias(layer).clone())

    def write(self, layer: nn.Conv2d) -> None:
        """Copy the weights into the convolution."""
        layer.load_state_dict({"weight": self.weight * self.gain, "bias": self.bias})


class Product(_Weights):
    """A 1 x 1 convolution as a matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return F.linear(x, (self.weight * self.gain)[:, :, 0, 0].to(x.dtype), self.bias.to(x.dtype))


class Depthwise(_Weights):
    """A depthwise convolution and its relu6."""

    def __init__(self, layer: nn.Conv2d, gain: Tensor) -> None:
        super().__init__(layer, gain)
        self.stride = layer.stride[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, channels) to (n, height / stride, width / stride, channels)."""
        y: Tensor = DepthwiseFunction.apply(x, self.weight * self.gain, self.bias, self.stride)  # type: ignore[no-untyped-call]
        return y


class TrunkBlock(nn.Module):
    """An inverted bottleneck in training."""

    def __init__(self, block: Block, gains: tuple[Tensor, Tensor, Tensor]) -> None:
        """``gains``: of the expanding, the depthwise and the projecting convolution."""
        super().__init__()
        if block.expand is None:
            raise TypeError("Expected a block that expands.")
        self.expand, self.project = Product(block.expand, gains[0]), Product(block.project, gains[2])
        self.depthwise, self.skip = Depthwise(block.depthwise, gains[1]), block.skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, height, width, inputs) to (n, height / stride, width / stride, outputs)."""
        h: Tensor = self.project(self.depthwise(F.hardtanh_(self.expand(x), 0.0, 6.0)))
        return x + h if self.skip else h

    def write(self, block: Block) -> None:
        """Copy the weights into the tower's block."""
        if block.expand is not None:
            self.expand.write(block.expand)
        self.depthwise.write(block.depthwise)
        self.project.write(block.project)


class Trunk(nn.Module):
    """Blocks ``start`` and later of a tower, and its head."""

    def __init__(self, tower: Tower, start: int, gains: Gains) -> None:
        super().__init__()
        self.start, self.taps = start, tower.config.taps
        of = zip(_blocks(tower, start), gains.blocks[start:], strict=True)
        self.blocks = nn.ModuleList(TrunkBlock(block, gain) for block, gain in of)
        self.head = None if tower.head is None else Product(tower.head, gains.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers that describe each view, not standardised, of maps (n, height, width, channels)."""
        maps = [x] if self.start in self.taps else []
        for done, block in enumerate(self.blocks, self.start + 1):
            x = block(x)
            if done in self.taps:
                maps.append(x)
        last = None if self.head is None else F.hardtanh_(self.head(x), 0.0, 6.0)
        turned = [each.permute(0, 3, 1, 2) for each in maps]
        return pooled(turned, None if last is None else last.permute(0, 3, 1, 2))

    @torch.no_grad()
    def write(self, tower: Tower) -> None:
        """Copy the trained weights into a tower."""
        for ours, block in zip(self.blocks, _blocks(tower, self.start), strict=True):
            if isinstance(ours, TrunkBlock):
                ours.write(block)
        if self.head is not None and tower.head is not None:
            self.head.write(tower.head)


def _blocks(tower: Tower, start: int) -> list[Block]:
    return [block for block in tower.blocks if isinstance(block, Block)][start:]


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("Expected a convolution with a bias.")
    return layer.bias.detach()
