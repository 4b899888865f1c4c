"""The device and the precision in which encoders compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch

from mst_clipiqa.errors import UsageError, nearest

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT8 = "int8"
"""The precision of image encoders that multiply 8-bit integers on a CPU."""
ARITHMETIC_VERSION = "6"
"""Part of every cache key: raise it when any precision, or what is said of a prompt, comes out differently."""


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let float32 on a GPU be float32, not TF32 with its 10 bits, which is torch's default for convolutions."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def own_settings(device: torch.device) -> Iterator[None]:
    """Compute on a device without the autocast and the default device that the caller's thread may have.

    Training loops call metrics and rewards inside an autocast, and generators often set a default device.
    """
    new_on_cpu = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with new_on_cpu, torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
        yield


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
    absent = (resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count()) or (
        resolved.type == "mps" and not torch.backends.mps.is_available()
    )
    if absent or resolved.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"Expected a device that this machine has, got {device!r}: use --device auto.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return fp32, bf16, fp16 or int8; "auto" is the fastest floating one that the device has hardware for."""
    if precision != "auto":
        known = (*DTYPES, INT8)
        if precision not in known:
            raise UsageError(
                f"Expected precision auto, fp32, bf16, fp16 or int8, got {precision!r}{nearest(precision, known)}."
            )
        return precision
    if device.type == "cuda":
        # Not ``is_bf16_supported``, which also counts cards that emulate bf16 slowly. ROCm cards compute it natively.
        native = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        return "bf16" if native else "fp16"
    if (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu._is_avx512_bf16_supported()
    ):
        return "bf16"
    return "fp32"
