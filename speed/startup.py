"""Time of the whole process ``mst-clipiqa score one.jpg``, with warm file caches, and its largest imports.

    python -m speed.startup

Modules are compiled before the clock starts, as an installation does it. Beside the seconds stands the CPU time, which
says more on a busy machine.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from speed.images import jpegs
from speed.machine import median_seconds, run

_PACKAGES = ("torch", "numpy", "PIL", "tokenizers", "transformers", "scipy", "rich", "click")


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return seconds of the whole process, of an empty interpreter, and of each large import."""
    file = str(jpegs(folder, 1)[0])
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    score = ["-m", "mst_clipiqa", "score", file, "--json", "--quiet"]
    process(*score)
    imports = process("-X", "importtime", *score).stderr
    return {
        "seconds": median_seconds(lambda: process(*score), images),
        "cpu_seconds": cpu_seconds(images, *score),
        "cpu_seconds_of_torch_alone": cpu_seconds(images, "-c", "import torch"),
        "empty_interpreter_seconds": median_seconds(lambda: process("-c", "pass"), images),
        "help_seconds": median_seconds(lambda: process("-m", "mst_clipiqa", "--help"), images),
        "import_seconds": {name: seconds_of(name, imports) for name in _PACKAGES},
        "bars": {"seconds": 1.5, "help_seconds": 0.1},
    }


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def cpu_seconds(times: int, *arguments: str) -> float:
    """Return the median CPU time of Python with these arguments, its system calls included."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return statistics.median(found)


def seconds_of(package: str, imports: str) -> float:
    """Return the seconds to import a package and all that it imports; 0 if it was not imported."""
    lines = [line.split("|") for line in imports.splitlines() if line.startswith("import time:")]
    return sum(float(parts[1]) for parts in lines if parts[2].strip() == package) / 1e6


if __name__ == "__main__":
    run(__doc__ or "", measure, images=5)
