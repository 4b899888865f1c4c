"""The device and the precision in which encoders compute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

from mst_clipiqa.encoders.torch_threads import set_torch_threads
from mst_clipiqa.errors import UsageError, nearest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT8 = "int8"
"""The precision of image encoders that multiply 8-bit integers on a CPU."""
ARITHMETIC_VERSION = "8"
"""Part of every cache key: raise it when any precision, or what is said of a prompt, comes out differently."""

_MERGE = "merge"
_LEAST_GAIN = 1.2  # by which bf16 must be faster, as it changes features a little
_PRODUCT = 128, 768  # rows and width
_TIMINGS = 8
_clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # Windows counts it in steps of 16 ms


@dataclass(frozen=True)
class Precision:
    """What image encoders compute in; its text, such as "int8-pairs-merge8", is part of every cache key.

    Attributes:
        format: of the numbers: fp32, bf16, fp16 or int8; auto where one is still to be chosen.
        fused: fp32 with weights in the order of oneDNN's products.
        ranges: int8 with ranges read from a file: the digest of the file, hexadecimal.
        in_pairs: int8 with weights rounded for CPUs that add two neighbouring products in 16 bits.
        merged: tokens merged per block; 0 for none.

    Example:
        >>> Precision.parse("bf16-merge8")
        Precision(format='bf16', fused=False, ranges='', in_pairs=False, merged=8)
        >>> str(Precision("int8", ranges="d089f389", in_pairs=True))
        'int8-d089f389-pairs'
    """

    format: str
    fused: bool = False
    ranges: str = ""
    in_pairs: bool = False
    merged: int = 0

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Return the precision of a text, whatever its format."""
        number_format, *details = text.split("-")
        fused, in_pairs, merged, ranges = False, False, 0, ""
        for detail in details:
            if detail == "fused":
                fused = True
            elif detail == "pairs":
                in_pairs = True
            elif detail.startswith(_MERGE) and detail.removeprefix(_MERGE).isdecimal():
                merged = int(detail.removeprefix(_MERGE))
            else:
                ranges = detail
        return cls(number_format, fused, ranges, in_pairs, merged)

    def __str__(self) -> str:
        """Return the text from which ``parse`` makes it again."""
        details = ("fused" if self.fused else "", self.ranges, "pairs" if self.in_pairs else "")
        merged = f"{_MERGE}{self.merged}" if self.merged else ""
        return "-".join(filter(None, (self.format, *details, merged)))


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
    """Return fp32, bf16, fp16 or int8; "auto" is the fastest floating one of the device; a CPU is tried."""
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
    return "bf16" if device.type == "cpu" and _gains_from_bf16() else "fp32"


@cache
def _gains_from_bf16() -> bool:
    """Return whether this CPU multiplies matrices in bf16 clearly faster than in float32, by trying on one core.

    Having the instructions is not enough: on a Xeon whose matrix unit (AMX) a virtual machine hid, they were slower.
    A thread's own time is counted, and the two take turns: what else the machine does must not change the answer.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.cpu._is_avx512_bf16_supported():
        return False
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=set_torch_threads, initargs=(1,)) as one_core:
            times = one_core.submit(lambda: [_product_seconds() for _ in range(_TIMINGS)]).result()
    finally:
        torch.set_num_threads(threads)  # what a thread sets for itself is also the start value of later threads
    bf16, fp32 = (min(times) for times in zip(*times, strict=True))
    return bool(bf16 * _LEAST_GAIN <= fp32)


@torch.inference_mode()
def _product_seconds() -> tuple[float, float]:
    """Return the seconds of a product of matrices as wide as those of ViT-B, in bf16 and in float32."""
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        x, weight = torch.ones(_PRODUCT, dtype=dtype), torch.ones(_PRODUCT[1], _PRODUCT[1], dtype=dtype)
        start = _clock()
        F.linear(x, weight)
        found.append(_clock() - start)
    return found[0], found[1]
