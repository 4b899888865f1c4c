"""Memory of a further process that scores with ``mini`` on the same machine: what each actor of ``score-cluster`` adds.

    python -m speed.shared

Each process loads the model as an actor does, scores an image and waits. What processes share (libraries, files that
are mapped) is counted once, by halves or thirds (proportional set size); the growth of the sum per process is stated.
Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from speed.images import jpegs
from speed.machine import run

COUNT = 3
_CHILD = """
import sys
from mst_clipiqa.scoring.scorer import Scorer
scorer = Scorer.load(sys.argv[1])
scorer(sys.argv[2], "a red ball on a table")
print("ready", flush=True)
sys.stdin.read()
"""


def measure(images: int, folder: Path) -> dict[str, Any]:
    """Return the memory of one process, and what each of the next ones adds; ``images`` is not used."""
    file = str(jpegs(folder, 1)[0])
    children: list[subprocess.Popen[str]] = []
    sums = []
    try:
        for _ in range(COUNT):
            command = [sys.executable, "-c", _CHILD, "mini", file]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            children.append(child)
            if child.stdout is None or child.stdout.readline() != "ready\n":
                raise RuntimeError("Expected a process that scores, but it ended.")
            sums.append(sum(proportional_mb(one.pid) for one in children))
    finally:
        for child in children:
            child.communicate()
    return {
        "processes": COUNT,
        "mb_of_the_first_process": sums[0],
        "mb_per_further_process": (sums[-1] - sums[0]) / (COUNT - 1),
    }


def proportional_mb(pid: int) -> float:
    """Return the memory of a process, MB, of which shared pages count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("Expected a line Pss in smaps_rollup, got none: this needs Linux.")


if __name__ == "__main__":
    run(__doc__ or "", measure, images=1)
