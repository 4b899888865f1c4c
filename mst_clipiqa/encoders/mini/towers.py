"""The image encoders of the embedded model: EfficientNet-Lite0 up to some block, pooled, and mapped to an embedding.

    block(x) = [x +] project(relu6(depthwise(relu6(expand(x)))))        relu6(x) = min(max(x, 0), 6)

Batch norm is folded into the convolutions. The mean and the deviation over positions of the maps at strides 8, 16 and
32 and the mean of the last map describe a view. These numbers, standardised, are averaged over an image's views and
mapped to the embedding.

Source: Tan and Le, "EfficientNet" (arXiv 1905.11946), and its Lite variants (no squeeze-and-excitation, relu6, stem and
head not scaled).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.mini.layers import Convolution, Linear

STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Of each stage: expansion, channels, blocks, stride of the first block, kernel size."""

BLOCKS = sum(stage[2] for stage in STAGES)
STEM, LAST = 32, 1280
"""Channels of the first and of the last convolution."""

TAPS = (5, 11, 16)
"""The maps after this many blocks are pooled: strides 8, 16 and 32."""

FARTHEST = 6.0
"""Deviations from the mean at which a standardised number is cut off."""

LEAST_VARIANCE = 1e-4
"""Added to the variance over positions: of a flat map too, the deviation changes slowly."""


@dataclass(frozen=True)
class TowerConfig:
    """What one tower is made of."""

    dim: int  # D, size of the embedding
    blocks: int = BLOCKS  # of EfficientNet-Lite0, from the first; the last map (1,280 channels) follows all of them

    @property
    def taps(self) -> tuple[int, ...]:
        """After how many blocks maps are pooled."""
        return tuple(sorted({*(tap for tap in TAPS if tap < self.blocks), self.blocks}))

    @property
    def inputs(self) -> int:
        """How many numbers describe a view."""
        channels = [stage[1] for stage in STAGES for _ in range(stage[2])]
        return 2 * sum(channels[tap - 1] for tap in self.taps) + LAST * (self.blocks == BLOCKS)


class Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, inputs: int, outputs: int, expand: int, stride: int, kernel: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = _convolution(inputs, inner, 1) if expand > 1 else None
        self.depthwise = _convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _convolution(inner, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        y: Tensor = x + h if self.skip else h
        return y


class Tower(nn.Module):
    """Normalised views of an image to an embedding."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = _convolution(3, STEM, 3, 2)
        inputs, blocks = STEM, []
        for expand, channels, repeats, stride, kernel in STAGES:
            for i in range(repeats):
                blocks.append(Block(inputs, channels, expand, 1 if i else stride, kernel))
                inputs = channels
        self.blocks = nn.ModuleList(blocks[: config.blocks])
        self.head = _convolution(inputs, LAST, 1) if config.blocks == BLOCKS else None
        self.register_buffer("mean", torch.zeros(config.inputs))
        self.register_buffer("scale", torch.ones(config.inputs))
        self.project = Linear(config.inputs, config.dim)

    def forward(self, views: Tensor) -> Tensor:
        """Return embeddings, float32 (batch, D), of normalised views, float (batch, K, 3, side, side)."""
        return self.embed(self.describe(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1))

    def describe(self, pixels: Tensor) -> Tensor:
        """Return the standardised numbers that describe each view, float32 (n, inputs), of (n, 3, side, side)."""
        return self.standardise(self.numbers(pixels))

    def numbers(self, pixels: Tensor) -> Tensor:
        """Return the numbers that describe each view, not standardised."""
        x, maps = F.relu6(self.stem(pixels)), []
        for done, block in enumerate(self.blocks, 1):
            x = block(x)
            if done in self.config.taps:
                maps.append(x)
        return pooled(maps, None if self.head is None else F.relu6(self.head(x)))

    def standardise(self, numbers: Tensor) -> Tensor:
        """Return pooled numbers with mean 0 and deviation 1 over the rated images, cut off at ``FARTHEST``."""
        return ((numbers - self.mean) * self.scale).clamp(-FARTHEST, FARTHEST)

    def embed(self, described: Tensor) -> Tensor:
        """Return embeddings, float32 (batch, D), of what ``describe`` returns, averaged over views."""
        embedding: Tensor = self.project(described)
        return embedding


def pooled(maps: list[Tensor], last: Tensor | None) -> Tensor:
    """Return mean and deviation over positions of each map, and the mean of the last one, float32 (n, inputs)."""
    numbers = []
    for each in maps:
        positions = _at_least_float32(each)
        mean = positions.mean((2, 3))
        spread = ((positions - mean[:, :, None, None]) ** 2).mean((2, 3))
        numbers += [mean, (spread + LEAST_VARIANCE).sqrt()]
    return torch.cat(numbers if last is None else [*numbers, _at_least_float32(last).mean((2, 3))], 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Convolution:
    """Return a convolution that keeps the size, or divides it by the stride."""
    return Convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
