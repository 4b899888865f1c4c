"""What an image's statistics say of how it was made: spectrum, block frequencies, contrast, colour.

Generators leave their marks in the spectrum whatever they draw, and so do blur, compression and noise. A few thousand
rated images are too few for a network to find this by itself; computed outright, it costs a millisecond a view.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RADIAL, AXIAL, BLOCK = 48, 32, 8
_SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)

TILES, EDGES, CELLS, COLOURS = 6, 8, 4, 4

SIZE = 3 * (RADIAL + 2 * AXIAL) + 2 * (BLOCK * BLOCK - 1) + 2 * len(_SHARES) + 6 + len(_SHARES)
"""How many numbers describe a view."""

LAYOUT = 3 * TILES**2 + EDGES * CELLS**2 + COLOURS**3
"""How many more describe how a whole image is laid out."""


def statistics(pixels: Tensor) -> Tensor:
    """Return the statistics of normalised pixels (batch, 3, side, side), float32 (batch, SIZE)."""
    x = pixels.float().contiguous()
    grey = _grey(x)
    chroma = _halved(torch.cat([x[:, :1] - x[:, 1:2], x[:, 2:] - grey], 1))  # JPEG and eyes keep no more of it
    small, square = _quartered(grey), _quartered(grey.square())
    tiny, tiny_square = _quartered(small), _quartered(square)
    spectra = [_spectrum(grey), _spectrum(chroma)]
    contrast = [_contrast(small, square), _contrast(tiny, tiny_square)]
    return torch.cat([*spectra, _blocks(grey), *contrast, _colour(x, small)], dim=-1)


def layout(pixels: Tensor) -> Tensor:
    """Return where colours and edges lie, of normalised pixels (batch, 3, side, side), float32 (batch, LAYOUT)."""
    x = pixels.float().contiguous()
    rows, columns = (_cells(side, TILES).to(x.device) for side in x.shape[-2:])
    tiles = (rows @ x @ columns.T).flatten(1)
    return torch.cat([tiles, _edges(_grey(x)), _histogram(_halved(x))], dim=-1)


def _grey(x: Tensor) -> Tensor:
    return (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3


def _edges(grey: Tensor) -> Tensor:
    """Log strength of edges of each direction, in each cell of a grid."""
    dx = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    dy = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    direction = ((torch.atan2(dy, dx) % math.pi) / math.pi * EDGES).long().clamp(max=EDGES - 1)
    strength = torch.zeros_like(dx).repeat(1, EDGES, 1, 1).scatter_(1, direction, torch.hypot(dx, dy))
    rows, columns = (_cells(side, CELLS).to(grey.device) for side in strength.shape[-2:])
    return torch.log(rows @ strength @ columns.T + 1e-2).flatten(1)


@functools.lru_cache(maxsize=16)
def _cells(side: int, count: int) -> Tensor:
    """Return the averages of ``adaptive_avg_pool2d`` along one side as a matrix (count, side): many times faster."""
    one = torch.zeros(count, side)
    for i in range(count):
        one[i, i * side // count : -(-(i + 1) * side // count)] = 1
    return one / one.sum(1, keepdim=True)


def _histogram(x: Tensor) -> Tensor:
    """Square roots of the shares of coarse colours."""
    level = ((x + 2) / 4 * COLOURS).long().clamp(0, COLOURS - 1).flatten(2)
    index = (level[:, 0] * COLOURS + level[:, 1]) * COLOURS + level[:, 2]
    counts = torch.zeros(len(x), COLOURS**3, device=x.device).scatter_add_(1, index, torch.ones_like(index).float())
    return (counts / index.shape[1]).sqrt()


def _halved(planes: Tensor) -> Tensor:
    """Return means of 2 x 2 pixels, without the last of an odd side; ten times as fast as ``avg_pool2d``."""
    height, width = (side // 2 * 2 for side in planes.shape[-2:])
    rows = planes[..., 0:height:2, :width] + planes[..., 1:height:2, :width]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _quartered(planes: Tensor) -> Tensor:
    return _halved(_halved(planes))


def _spectrum(planes: Tensor) -> Tensor:
    """Log amplitudes, averaged over rings, over rows and over columns of the spectrum."""
    parts = torch.view_as_real(torch.fft.rfft2(planes, norm="ortho")).flatten(-2).square()
    power = parts[..., ::2] + parts[..., 1::2]  # abs() would take care of overflow, at four times the cost
    power[..., 0, 0] = 0  # the mean is not the spectrum's
    log = power.add_(1e-5).log_()
    rings, rows, columns = (average.to(log.device) for average in _bins(planes.shape[-1]))
    half = log[..., : planes.shape[-1] // 2, :]
    found = [log.flatten(-2) @ rings, half.mean(-1) @ rows, log.mean(-2) @ columns]
    return torch.cat(found, -1).flatten(1)


@functools.lru_cache(maxsize=8)
def _bins(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the averages over rings, rows and columns as matrices; bins are the same frequencies for any side."""
    y, x = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    ring = (torch.hypot(x, y) / math.sqrt(0.5) * RADIAL).long().clamp(max=RADIAL - 1).flatten()
    line = (torch.arange(side // 2) * AXIAL * 2 // side).clamp(max=AXIAL - 1)
    column = (torch.arange(side // 2 + 1) * AXIAL * 2 // side).clamp(max=AXIAL - 1)
    return _average(ring, RADIAL), _average(line, AXIAL), _average(column, AXIAL)


def _average(index: Tensor, count: int) -> Tensor:
    """Return averages as a matrix; half of them, as the logarithm is of squares."""
    one = F.one_hot(index, count).float()
    return one / one.sum(0).clamp(min=1) / 2


def _blocks(grey: Tensor) -> Tensor:
    """Log deviation and log mean size of each frequency of the 8 x 8 cosine transform."""
    maps = F.conv2d(grey, _cosines().to(grey.device), stride=BLOCK).flatten(2)
    n_maps = maps.shape[-1]
    variance = ((maps * maps).mean(-1) - maps.mean(-1) ** 2).clamp(min=0) * (n_maps / max(1, n_maps - 1))
    return torch.cat([torch.log(variance.sqrt() + 1e-3), torch.log(maps.abs().mean(-1) + 1e-3)], -1)


@functools.lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """Return the 8 x 8 cosine transform as kernels (63, 1, 8, 8), without the constant one."""
    n = torch.arange(BLOCK)
    basis = torch.cos(math.pi / BLOCK * (n[None] + 0.5) * n[:, None]) * math.sqrt(2 / BLOCK)
    return (basis[:, None, :, None] * basis[None, :, None, :]).flatten(0, 1)[1:].unsqueeze(1)


def _contrast(mean: Tensor, square: Tensor) -> Tensor:
    """Quantiles over the image of the log deviation within squares, of the means of these and of their squares."""
    return _quantiles(torch.log((square - mean * mean).clamp(min=0).sqrt() + 1e-2).flatten(1))


def _colour(x: Tensor, small: Tensor) -> Tensor:
    flat = x.flatten(2)
    mean = flat.mean(-1)
    power = torch.linalg.vector_norm(flat, dim=-1).square() / flat.shape[-1]
    spread = (power - mean.square()).clamp(min=1e-6).sqrt()
    return torch.cat([mean, spread, _quantiles(small.flatten(1))], -1)


def _quantiles(values: Tensor) -> Tensor:
    # NumPy sorts with vector instructions, eight times faster; the same order either way.
    on_cpu = values.device.type == "cpu" and not values.requires_grad
    ordered = torch.from_numpy(np.sort(values.numpy(), axis=-1)) if on_cpu else values.sort(-1).values
    return ordered[:, [round(s * (values.shape[-1] - 1)) for s in _SHARES]]
