"""What every benchmark shares: flags, timing, and facts about the machine."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return the CPU, its cores, the versions and the date."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(found: dict[str, Any], output: Path | None) -> None:
    """Print a result as JSON, and write it to a file if given."""
    text = json.dumps(found, indent=1)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")


def run(doc: str, measure: Callable[[int, Path], dict[str, Any]], images: int) -> None:
    """Run one benchmark as a script: read the flags, measure in a temporary folder, print and keep the result."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=images, help=f"number of images (default {images})")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"claim": doc.splitlines()[0], **measure(args.images, Path(folder)), "machine": machine()}
    report(found, args.output)


def median_seconds(work: Callable[[], object], times: int = 5) -> float:
    """Return the median seconds of some work, after one run to warm up."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def matmul_flops(dtype: torch.dtype, device: str = "cpu", side: int = 2048) -> float:
    """Return the machine's own rate of a square matrix product, FLOP/s, best of five medians of three."""
    a = torch.randn(side, side, device=device).to(dtype)

    def work() -> None:
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * side**3 / min(median_seconds(work, 3) for _ in range(5))
