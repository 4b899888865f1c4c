"""A tower in integers of 8 bits, where the CPU multiplies several of them at once (VNNI, or AVX2).

Every map is stored as levels 0..255 of a fixed grid, value = step (level - zero):

    views          level = the byte of the pixel         exact: EfficientNet-Lite normalises by (x - 127) / 128
    after relu6    step = 6 / 255, zero = 0              every value of relu6 lies on it
    blocks         from the lowest to the highest value that ``int8.json`` names, measured on images

Kernels have a scale per output channel (``int8_weights.py``). Sums of products are integers, so a view's numbers are
the same to the last bit in any batch. The operators are those that torch's compiler emits for models quantised by PT2E.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(arXiv 1712.05877).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.encoders.int8_weights import TOP, SumBits, rounded
from mst_clipiqa.encoders.mini.towers import LEAST_VARIANCE, Block, Tower, TowerConfig
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.preprocess import ViewSpec

RANGES_FILE = "int8.json"

BlockRange: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class BlockRanges:
    """The lowest and the highest value of each block's output, 0 between them.

    Attributes:
        coarse, fine: of each block of a tower, from the first.
        digest: eight hexadecimal digits of what was read.
    """

    coarse: tuple[BlockRange, ...]
    fine: tuple[BlockRange, ...]
    digest: str


def read_ranges(
    folder: Path, encoders: str, towers: tuple[TowerConfig, TowerConfig], view: ViewSpec
) -> BlockRanges | None:
    """Return the ``BlockRanges`` of encoders with this sha256; None without a file, or with one of other encoders.

    Raises:
        ModelError: the file is broken.
    """
    path = folder / RANGES_FILE
    if not path.is_file() or _pixel_grid(view) is None:
        return None
    raw = path.read_bytes()
    with expecting(f"ranges of blocks in {path}", "delete or measure it"):
        data: Any = json.loads(raw)
        if data["encoders"] != encoders:
            return None
        ranges = [tuple((float(low), float(high)) for low, high in data[name]) for name in ("coarse", "fine")]
    fits = all(len(some) == tower.blocks for some, tower in zip(ranges, towers, strict=True))
    if not fits or not all(
        -1e6 < low <= 0 <= high < 1e6 and high - low > 1e-6 for some in ranges for low, high in some
    ):
        raise ModelError(f"Expected a range around 0 of each block in {path}, got others: delete or measure it.")
    return BlockRanges(ranges[0], ranges[1], hashlib.sha256(raw).hexdigest()[:8])


def write_ranges(folder: Path, encoders: str, coarse: tuple[BlockRange, ...], fine: tuple[BlockRange, ...]) -> None:
    """Write ``int8.json`` beside the encoders with this sha256."""
    text = json.dumps({"encoders": encoders, "coarse": coarse, "fine": fine}, indent=1) + "\n"
    (folder / RANGES_FILE).write_text(text, encoding="utf-8", newline="\n")


@torch.inference_mode()
def measured_ranges(tower: Tower, images: Iterable[Tensor]) -> tuple[BlockRange, ...]:
    """Return the range of each block's output over normalised views of images, each float32 (K, 3, side, side)."""
    low, high = [0.0] * len(tower.blocks), [0.0] * len(tower.blocks)
    for views in images:
        x = F.relu6(tower.stem(views))
        for i, block in enumerate(tower.blocks):
            x = block(x)
            low[i], high[i] = min(low[i], float(x.min())), max(high[i], float(x.max()))
    return tuple(zip(low, high, strict=True))


@dataclass(frozen=True)
class _Grid:
    step: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> _Grid:
        step = (high - low) / TOP
        return cls(step, round(-low / step))


_RELU6 = _Grid(6 / TOP, 0)


def _pixel_grid(view: ViewSpec) -> _Grid | None:
    """Return the grid on which normalised pixels are their own bytes, if there is one."""
    zero = round(255 * view.mean[0])
    is_even = len(set(view.mean)) == len(set(view.std)) == 1 and math.isclose(zero, 255 * view.mean[0], abs_tol=1e-6)
    return _Grid(1 / (255 * view.std[0]), zero) if is_even and 0 <= zero <= TOP else None


class _Int8Convolution:
    """One convolution from a grid to a grid; from 0 to 6 on ``_RELU6``, relu6 follows it at no cost."""

    def __init__(self, layer: nn.Conv2d, source: _Grid, target: _Grid, bits: SumBits) -> None:
        geometry = list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups
        levels, scale = rounded(layer.weight.detach(), bits)
        packed = torch.ops.onednn.qconv_prepack(levels, scale, source.step, source.zero, *geometry, None)
        bias = None if layer.bias is None else layer.bias.detach().float()
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        self.source, self.target = source, target
        self.fixed = (source.step, source.zero, packed, scale, zeros)
        self.rest = (bias, *geometry, target.step, target.zero, torch.uint8)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of levels x, uint8, channels last."""
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(x, *self.fixed, *self.rest, "none", [], "")
        return y

    def onto(self, total: Tensor, grid: _Grid, x: Tensor) -> Tensor:
        """Add the convolution of x to ``total``, levels of ``grid``, in its memory, and return that."""
        add = torch.ops.onednn.qconv2d_pointwise.binary
        after: tuple[Any, ...] = (grid.step, grid.zero, "sum", 1.0, "none", [], "")
        y: Tensor = add(x, *self.fixed, total, *self.rest, *after)
        return y


class _Int8Block:
    def __init__(self, block: Block, source: _Grid, target: _Grid, bits: SumBits) -> None:
        self.expand = None if block.expand is None else _Int8Convolution(block.expand, source, _RELU6, bits)
        self.depthwise = _Int8Convolution(block.depthwise, source if self.expand is None else _RELU6, _RELU6, bits)
        self.project = _Int8Convolution(block.project, _RELU6, target, bits)
        self.source = source
        self.skip = block.skip

    def __call__(self, x: Tensor) -> Tensor:
        h = self.depthwise(x if self.expand is None else self.expand(x))
        return self.project.onto(x, self.source, h) if self.skip else self.project(h)


class Int8Tower:
    """What a ``Tower`` computes, nearly, for inference on a CPU."""

    def __init__(self, tower: Tower, ranges: tuple[BlockRange, ...], view: ViewSpec, bits: SumBits) -> None:
        """Copy the tower's weights; ``ranges`` are those of its blocks, ``bits`` what ``sum_bits`` returns."""
        pixels = _pixel_grid(view)
        if pixels is None:
            raise ValueError("Expected views whose normalised pixels are their own bytes.")
        self.tower = tower
        self.stem = _Int8Convolution(tower.stem, pixels, _RELU6, bits)
        self.grids = [_RELU6, *(_Grid.over(*ends) for ends in ranges)]
        self.blocks = [
            _Int8Block(block, self.grids[i], self.grids[i + 1], bits)
            for i, block in enumerate(tower.blocks)
            if isinstance(block, Block)
        ]
        self.head = None if tower.head is None else _Int8Convolution(tower.head, self.grids[-1], _RELU6, bits)

    def __call__(self, views: Tensor) -> Tensor:
        """Return embeddings, float32 (batch, D), of views, uint8 (batch, K, 3, side, side)."""
        described = self.describe(views)
        # One image at a time: the last product rounds differently for another number of rows.
        return torch.cat([self.tower.embed(image.mean(0, keepdim=True)) for image in described])

    def describe(self, views: Tensor) -> Tensor:
        """Return standardised numbers, float32 (batch, K, inputs), of views, uint8 (batch, K, 3, side, side)."""
        x = self.stem(views.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        numbers: list[Tensor] = []
        for done, (block, grid) in enumerate(zip(self.blocks, self.grids[1:], strict=True), 1):
            x = block(x)
            if done in self.tower.config.taps:
                numbers += _moments(x, grid)
        if self.head is not None:
            numbers.append(self.head(x).float().mean((2, 3)) * _RELU6.step)
        described: Tensor = self.tower.standardise(torch.cat(numbers, 1)).unflatten(0, views.shape[:2])
        return described


def _moments(x: Tensor, grid: _Grid) -> list[Tensor]:
    """Return mean and deviation over positions of a map's values, float32 (n, channels): exact sums, in any order."""
    levels = x.permute(0, 2, 3, 1).flatten(1, 2).double()
    mean, square = levels.mean(1), levels.square().mean(1)
    spread = (square - mean.square()) * grid.step**2
    return [((mean - grid.zero) * grid.step).float(), (spread + LEAST_VARIANCE).sqrt().float()]
