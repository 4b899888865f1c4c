"""Peak memory against the number of images in a folder.

    python -m speed.memory

The folder holds hard links of a few JPEGs of 256 x 256; each size is scored by ``mst-clipiqa score`` in a process of
its own, and that process's peak is what counts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from speed.images import jpegs
from speed.machine import run

_CHILD = """
import sys
from speed.machine import peak_mb
from mst_clipiqa.cli import group
code = group.main(sys.argv[1:], prog_name="mst-clipiqa", standalone_mode=False)
print(peak_mb())
"""


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return peaks for a small and for a large folder, and their ratio."""
    small = max(1, images // 40)
    peaks = {count: peak(folder / str(count), count) for count in (small, images)}
    return {
        "peak_mb": {str(count): mb for count, mb in peaks.items()},
        "ratio": peaks[images] / peaks[small],
        "bars": {"ratio": 1.1},
    }


def peak(folder: Path, count: int) -> float:
    """Return the peak of scoring ``count`` images, MB."""
    jpegs(folder, count, side=256)
    command = ["score", str(folder), "-o", str(folder.with_suffix(".csv")), "--quiet"]
    done = subprocess.run([sys.executable, "-c", _CHILD, *command], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    run(__doc__ or "", measure, images=20_000)
