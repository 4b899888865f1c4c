"""A folder of many files (hard links to a few images): how long it takes to list, and the peak of memory.

python -m speed.many_files --count 200000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mst_clipiqa.inputs.expand import expand

_MOST_LINKS = 30_000  # of one file; file systems allow some 65,000


def fill(folder: Path, count: int) -> None:
    """Link images of 8 x 8 pixels into a folder under ``count`` names."""
    for i in range(count):
        original = folder / f"{i - i % _MOST_LINKS}.png"
        if i % _MOST_LINKS == 0:
            Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(original)
        else:
            os.link(original, folder / f"{i}.png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="working folder; a temporary one by default")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="many-files-") as name:
        fill(Path(name), args.count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        began, cpu = time.monotonic(), time.process_time()
        listed = sum(1 for _ in expand([name]))
        result = {
            "files": args.count,
            "listed": listed,
            "wall_s": round(time.monotonic() - began, 2),
            "cpu_s": round(time.process_time() - cpu, 2),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before,
        }
    print(json.dumps(result))
    return 0 if listed == args.count else 1


if __name__ == "__main__":
    sys.exit(main())
