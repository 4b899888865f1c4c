"""Time of the whole command ``mst-clipiqa benchmark`` with ``mini`` on a rated set.

    python -m speed.benchmark_command --data agiqa-3k --root DIR

Ten splits, both heads, every target: once with an empty feature cache, and once more with what the first run left in
it. Resuming is not timed: each run writes to a folder of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mst_clipiqa.data import load_rated_set
from speed.machine import machine, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="agiqa-3k")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    command = [sys.executable, "-m", "mst_clipiqa", "benchmark", "--data", args.data, "--root", str(args.root)]
    command += ["--encoders", "mini", "--splits", str(args.splits)]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for run in ("first", "second"):
            start = time.perf_counter()
            subprocess.run([*command, "--cache", f"{folder}/cache", "-o", f"{folder}/{run}"], check=True)
            seconds.append(time.perf_counter() - start)
    found = {
        "claim": (__doc__ or "").splitlines()[0],
        "images": len(load_rated_set(args.data, args.root, images=False)),
        "splits": args.splits,
        "empty_cache_seconds": seconds[0],
        "full_cache_seconds": seconds[1],
        "machine": machine(),
    }
    report(found, args.output)


if __name__ == "__main__":
    main()
