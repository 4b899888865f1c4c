"""The small encoders of the embedded model: two residual conv nets and a text transformer of two layers.

Dense 3x3 convolutions on a coarse grid (the stem takes 4x4 patches): they fill a processor's vector units, which
depthwise ones do not. Features are the mean and the deviation over positions, since quality lies in the unevenness
of a picture as much as in its average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.embedded.spectrum import Spectrum


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of one conv net: channels and residual blocks of each stage, the first at stride 4."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    dim: int  # D, size of the embedding
    drop: float = 0.0  # probability of skipping a block, in training only
    pool: str = "last"  # which stages the embedding sees: "last", or "all"
    spectrum: str = ""  # which statistics of spectrum.py join the embedding: none, of a "crop", of a "whole" picture
    spectrum_drop: float = 0.0  # dropout of them, in training only


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder."""

    words: int  # tokens in the vocabulary
    word_dim: int  # size of a stored word vector
    dim: int  # D, width of the token states
    layers: int = 2
    heads: int = 4
    length: int = 64  # tokens read of a prompt
    drop: float = 0.0  # dropout, in training only


class Block(nn.Module):
    """x + BN(conv(ReLU(BN(conv(x))))), then ReLU."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.conv_1: nn.Module = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_1: nn.Module = nn.BatchNorm2d(width)
        self.conv_2: nn.Module = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_2: nn.Module = nn.BatchNorm2d(width)
        self.drop = drop
        nn.init.zeros_(self.norm_2.weight)  # a block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, h, w) to the same shape."""
        y = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)), inplace=True)))
        if self.training and self.drop:
            keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            y = y * keep.to(y.dtype) / (1 - self.drop)
        return F.relu(x + y, inplace=True)


class Tower(nn.Module):
    """Normalised pixels (batch, 3, side, side) to an embedding (batch, D); any side from 32 up."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        self.ends: list[int] = []  # the layers after which a stage is pooled
        pooled = 0
        before = 3
        for index, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            layers += _down(before, width, *((4, 4) if index == 0 else (3, 2)))
            layers += [Block(width, config.drop) for _ in range(blocks)]
            self.ends.append(len(layers) - 1)
            pooled, before = pooled + 2 * width, width
        if config.pool == "last":
            self.ends, pooled = self.ends[-1:], 2 * before
        self.trunk = nn.Sequential(*layers)
        self.norm: nn.Module = nn.BatchNorm1d(pooled)
        self.project = nn.Linear(pooled, config.dim)
        self.spectrum = (
            Spectrum(config.dim, config.spectrum_drop, config.spectrum == "whole") if config.spectrum else None
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embedding, float32 (batch, D)."""
        embedding = self.convolved(pixels)
        return embedding if self.spectrum is None else embedding + self.spectrum(pixels)

    def convolved(self, pixels: Tensor) -> Tensor:
        """Return the part of the embedding that comes from the convolutions, float32 (batch, D)."""
        x, pooled = pixels, []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.ends:
                pooled += _pooled(x)
        feature = self.norm(torch.cat(pooled, dim=-1))
        # In float32 even where the convolutions are not: rounding the embedding would cost more than it saves.
        return F.linear(feature, self.project.weight.float(), self.project.bias.float())

    def fold(self) -> Tower:
        """Move each batch norm into the convolution before it, for inference only; returns itself."""
        for module in self.modules():
            if isinstance(module, Block):
                module.conv_1, module.norm_1 = _folded(module.conv_1, module.norm_1), nn.Identity()
                module.conv_2, module.norm_2 = _folded(module.conv_2, module.norm_2), nn.Identity()
        for index, layer in enumerate(self.trunk):
            if isinstance(layer, nn.BatchNorm2d):
                self.trunk[index - 1] = _folded(self.trunk[index - 1], layer)
                self.trunk[index] = nn.Identity()
        if isinstance(self.norm, nn.BatchNorm1d):
            # The norm is a scale and a shift of each pooled number: read them off at 0 and at 1.
            zero, one = torch.zeros(1, self.norm.num_features), torch.ones(1, self.norm.num_features)
            shift = self.norm.eval()(zero)
            scale = self.norm(one) - shift
            self.project.bias.data += (shift @ self.project.weight.T)[0].data
            self.project.weight.data *= scale.data
            self.norm = nn.Identity()
        return self


def _down(before: int, width: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, width, kernel, stride, padding=0 if kernel == stride else 1, bias=False)
    return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _pooled(maps: Tensor) -> list[Tensor]:
    """Return mean and deviation over positions, float32 (batch, width) each, of (batch, width, h, w)."""
    rows = maps.movedim(1, -1).flatten(1, 2).float()  # no copy but the conversion where channels lie last
    mean = rows.mean(1)
    return [mean, ((rows - mean.unsqueeze(1)).square().mean(1) + 1e-12).sqrt()]


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        raise TypeError(f"Expected a convolution and its batch norm, got {conv} and {norm}.")
    return nn.utils.fuse_conv_bn_eval(conv, norm)


class TextBlock(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.drop = config.heads, config.drop
        self.norm_1 = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.norm_2 = nn.LayerNorm(config.dim)
        self.up = nn.Linear(config.dim, 2 * config.dim)
        self.down = nn.Linear(2 * config.dim, config.dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map token states (batch, L, D); mask: bool (batch, L), True for real tokens."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + F.dropout(self.out(seen.transpose(1, 2).flatten(2)), self.drop, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm_2(x)))), self.drop, self.training)


class TextEncoder(nn.Module):
    """Token ids to token states T and a sentence embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.words, config.word_dim)
        self.enter = nn.Linear(config.word_dim, config.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(config.length, config.dim))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.project = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return T, float (batch, L, D); ids: int (batch, L); mask: bool (batch, L), True for real tokens."""
        x = self.enter(self.words(ids)) + self.positions[: ids.shape[1]]
        x = F.dropout(x, self.config.drop, self.training)
        for block in self.blocks:
            x = block(x, mask)
        states: Tensor = self.norm(x)
        return states

    def sentence(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the projected mean of the real tokens, unit length, float (batch, D)."""
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        unit: Tensor = F.normalize(self.project((tokens * weight).sum(1) / weight.sum(1)), dim=-1)
        return unit
