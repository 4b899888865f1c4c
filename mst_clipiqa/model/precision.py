"""What the towers compute in, and how a reduced precision stays independent of the batch.

Low-precision kernels round differently for different batch shapes. So in bf16 and fp16 the towers always see chunks
of one fixed shape: a picture's features are then the same alone, in any batch, in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError, nearest

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHUNK = 16


def resolve_device(device: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:1", "mps"; UsageError if this machine lacks it."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        hint = nearest(device, ["auto", "cpu", "cuda", "mps"])
        raise UsageError(f"Expected a device such as auto, cpu, cuda or mps, got {device!r}{hint}.") from error
    absent = (resolved.type == "cuda" and not torch.cuda.is_available()) or (
        resolved.type == "mps" and not torch.backends.mps.is_available()
    )
    if absent or resolved.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"Expected a device that this machine has, got {device!r}: use --device auto.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16; "auto" is the fastest that the device computes natively."""
    if precision != "auto":
        if precision not in DTYPES:
            raise UsageError(
                f"Expected precision auto, fp32, bf16 or fp16, got {precision!r}{nearest(precision, DTYPES)}."
            )
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu._is_avx512_bf16_supported()
    ):
        return "bf16"
    return "fp32"


def in_fixed_chunks(
    encode: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], coarse: Tensor, fine: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run ``encode`` on chunks of exactly ``CHUNK`` rows, the last one filled up with its own first row."""
    parts = []
    for start in range(0, len(coarse), CHUNK):
        rows = slice(start, start + CHUNK)
        count = len(coarse[rows])
        f_c, f_f = encode(_filled(coarse[rows]), None if fine is None else _filled(fine[rows]))
        parts.append((f_c[:count], f_f[:count]))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _filled(rows: Tensor) -> Tensor:
    missing = CHUNK - len(rows)
    return rows if missing == 0 else torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
