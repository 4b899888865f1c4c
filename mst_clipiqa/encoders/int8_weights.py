"""Kernels in 8 bits, rounded so that the CPU at hand adds their products without overflow.

A CPU with VNNI adds products of levels 0..255 and weights -127..127 in 32 bits. Others with AVX2 first add the products
of two neighbouring inputs in 16 bits, where a sum beyond 32,767 is cut off. For them, weights of one sign of two
neighbours add up to 128 at most: 255 x 128 fits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

TOP = 255
"""The highest level of a map."""
LEVELS = 127
"""Of a weight, the highest level and minus the lowest."""
PAIR_LEVELS = 128
"""Of two neighbouring weights of one sign together, where sums have 16 bits."""
_PEAKS = range(LEVELS, 103, -4)  # levels that the largest weight of a depthwise kernel may have
CAPABILITIES = ("AVX2", "AVX512")  # elsewhere the operators are slow
_INPUTS = 32  # of the convolution that is tried

SumBits = Literal[16, 32]


@cache
def sum_bits() -> SumBits | None:
    """Return in how many bits this CPU adds two products, by trying; None if it cannot, or not fast."""
    names = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")
    can = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.onednn, name) for name in names)
    if not can or torch.backends.cpu.get_cpu_capability() not in CAPABILITIES:
        return None
    try:
        return 32 if _is_exact(LEVELS) else 16 if _is_exact(PAIR_LEVELS // 2) else None
    except RuntimeError:  # this build of torch names operators that it does not have
        return None


def _is_exact(weight: int) -> bool:
    """Return whether a convolution and a product of matrices, of the largest levels and this weight, are exact."""
    x = torch.full((1, _INPUTS, 8, 8), TOP, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    kernels = torch.full((_INPUTS, _INPUTS, 1, 1), weight, dtype=torch.int8)
    ones, zeros = torch.ones(_INPUTS, dtype=torch.float32), torch.zeros(_INPUTS, dtype=torch.int32)
    geometry = ([1, 1], [0, 0], [1, 1], 1)
    how: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
    packed = torch.ops.onednn.qconv_prepack(kernels, ones, 1.0, 0, *geometry, None)
    maps = torch.ops.onednn.qconv2d_pointwise(x, 1.0, 0, packed, ones, zeros, None, *geometry, *how)
    packed = torch.ops.onednn.qlinear_prepack(kernels.flatten(1), None)
    rows = torch.ops.onednn.qlinear_pointwise(x[0].flatten(1).T, 1.0, 0, packed, ones, zeros, None, *how)
    return all(bool((sums == TOP * weight * _INPUTS).all()) for sums in (maps, rows))


def rounded(kernels: Tensor, bits: SumBits) -> tuple[Tensor, Tensor]:
    """Return the levels of kernels, int8, and their scales, float32 (outputs,), for sums of ``bits`` bits.

    What a kernel reads is never negative and changes slowly, so the sum of its weights matters most: of each kernel as
    many weights are rounded the other way as keep its sum, and of several scales of a depthwise kernel, which has few
    weights, the one with the smallest error is taken. Rounding each weight to the nearest level makes the error of an
    embedding three to six times as large.

    Args:
        kernels: float (outputs, inputs, height, width); inputs is 1 for a depthwise convolution, which pairs nothing.
        bits: as ``sum_bits`` finds them.
    """
    rows = kernels.float().flatten(1)
    highest = rows.abs().amax(1).clamp(min=1e-20)
    if kernels.shape[1] > 1:
        scale = highest / LEVELS
        if bits == 16:
            scale = torch.maximum(scale, pair_sums(kernels.float()) / (PAIR_LEVELS - 2))  # each is rounded by at most 1
        return _with_sum(rows / scale.unsqueeze(1)).to(torch.int8).view(kernels.shape), scale
    steps = highest / torch.tensor(list(_PEAKS), dtype=rows.dtype).unsqueeze(1)  # (peaks, outputs), all tried at once
    exact = rows / steps.unsqueeze(2)
    tried = _with_sum(exact)
    off = (tried - exact) * steps.unsqueeze(2)
    best = (4 * off.sum(2).square() + off.square().sum(2)).argmin(0)
    outputs = torch.arange(len(rows))
    return tried[best, outputs].to(torch.int8).view(kernels.shape), steps[best, outputs]


def pair_sums(kernels: Tensor) -> Tensor:
    """Return the largest sum of weights of one sign of two neighbouring inputs, 2i and 2i + 1: float (outputs,)."""
    even = F.pad(kernels, (0, 0, 0, 0, 0, kernels.shape[1] % 2))
    pairs = even.unflatten(1, (-1, 2))
    return torch.maximum(pairs.clamp(min=0).sum(2), -pairs.clamp(max=0).sum(2)).flatten(1).amax(1)


def _with_sum(exact: Tensor) -> Tensor:
    """Return whole numbers near those of each row, whose sum is the nearest to the row's, ties apart."""
    nearest = exact.round()
    wanted = exact.sum(-1, keepdim=True).round()
    if torch.equal(nearest.sum(-1, keepdim=True), wanted):  # as stored in int8 already
        return nearest
    low, high = torch.full_like(wanted, -0.5), torch.full_like(wanted, 0.5)
    for _ in range(12):  # bisection: where the numbers of a row are rounded up
        middle = (low + high) / 2
        is_short = (exact + (0.5 + middle)).floor().sum(-1, keepdim=True) < wanted
        low, high = torch.where(is_short, middle, low), torch.where(is_short, high, middle)
    return (exact + (0.5 + high)).floor().clamp(-LEVELS, LEVELS)
