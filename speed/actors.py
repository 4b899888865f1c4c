"""Throughput of ``score-cluster`` with four actors on one node beside ``score``, on the same cores and the same files.

    python -m speed.actors --images 1920

``score`` runs before and after the actors, in a process of its own; its faster run counts. Both rates are of the steady
state: the start of Ray and the loading of models are left out and stated apart. For the actors that is from the end of
the eighth part to the end of the fourth last one, by the times of the files that commit them.

Beside the rates stand the CPU time of an image (for the actors with all of Ray's own processes) and the share
of the cores that each side got: where another program takes a part of the machine, the rates say little, and the
CPU times still compare. JSON on stdout; the exit code is 1 under 0.85 of ``score``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from speed.images import jpegs
from speed.machine import machine

LEAST = 0.85
_FIRST, _LAST = 8, 4  # parts that the steady state leaves out
_WARM_UP = 128  # rows of `score` that are left out


def score(folder: Path, limit: float) -> dict[str, float]:
    """Return images/s of ``score`` over a folder in this process, after the first rows, and its CPU time."""
    from mst_clipiqa.inputs.expand import expand
    from mst_clipiqa.scoring.score_rows import score_rows
    from mst_clipiqa.scoring.scorer import Scorer

    scorer = Scorer.load("mini")
    began = cpu = 0.0
    done = 0
    for done, _ in enumerate(score_rows(scorer, expand([str(folder)])), start=1):
        if done == _WARM_UP:
            began, cpu = time.perf_counter(), time.process_time()
        elif began and time.perf_counter() - began > limit:
            break
    return rates(done - _WARM_UP, time.perf_counter() - began, time.process_time() - cpu)


def rates(images: int, seconds: float, cpu: float) -> dict[str, float]:
    """Return what is compared."""
    return {
        "images_per_second": round(images / seconds, 2),
        "cpu_ms_per_image": round(1000 * cpu / images, 2),
        "share_of_cores": round(cpu / seconds / (os.cpu_count() or 1), 3),
    }


class Watch(threading.Thread):
    """Samples the CPU time of this process and of all of Ray's processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self.is_over = False

    def run(self) -> None:
        """Sample until the run is over."""
        while not self.is_over:
            self.samples.append((time.time(), sum(map(_cpu, self._pids()))))
            time.sleep(0.2)

    def at(self, when: float) -> float:
        """Return the CPU seconds used up to a time."""
        times, seconds = zip(*self.samples, strict=True)
        return float(np.interp(when, times, seconds))

    @staticmethod
    def _pids() -> list[int]:
        found = [os.getpid()]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes()
                if line.startswith(b"ray::") or b"/ray/" in line:
                    found.append(int(path.parent.name))
        return found


def _cpu(pid: int) -> float:
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:  # it has just ended
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def actors(args: argparse.Namespace, folder: Path, output: Path) -> dict[str, Any]:
    """Return what the actors scored in a folder, and how fast."""
    from mst_clipiqa.distribute import ClusterJob, run
    from mst_clipiqa.distribute.worker import Work
    from mst_clipiqa.scoring.loading import ScoreOptions

    options = ScoreOptions(batch_size=args.batch_size, workers=args.workers)
    work = Work(str(output), "mini", options, threads=args.threads)
    watch = Watch()
    watch.start()
    began = time.time()
    summary = run(ClusterJob(str(folder), output, work, actors=args.actors, part_size=args.part))
    watch.is_over = True
    ends = sorted(path.stat().st_mtime for path in output.glob("part-*.parquet"))
    first, last = ends[_FIRST - 1], ends[-_LAST - 1]
    images = args.part * (len(ends) - _FIRST - _LAST)
    found = rates(images, last - first, watch.at(last) - watch.at(first))
    return {"rows": summary.rows, "first_part_after_s": round(ends[0] - began, 1), **found}


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return both sides and the ratios of their rates."""
    folder = root / "images"
    jpegs(folder, args.images)
    command = [sys.executable, "-m", "speed.actors", "--score", str(folder), "--limit", str(args.limit)]

    def alone() -> dict[str, float]:
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found: dict[str, float] = json.loads(said)
        return found

    before = alone()
    cluster = actors(args, folder, root / "out.parquet")
    after = alone()
    best = max(before, after, key=lambda one: one["images_per_second"])
    cheapest = min(before, after, key=lambda one: one["cpu_ms_per_image"])
    names = ("actors", "threads", "workers", "batch_size", "part")
    return {
        **{name: getattr(args, name) for name in names},
        "cluster": cluster,
        "score": [before, after],
        "ratio": round(cluster["images_per_second"] / best["images_per_second"], 3),
        "ratio_by_cpu_time": round(cheapest["cpu_ms_per_image"] / cluster["cpu_ms_per_image"], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1920)
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="torch threads per actor")
    parser.add_argument("--workers", type=int, default=1, help="threads per actor that open images")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--part", type=int, default=32, help="images per part")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that score runs")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.score:
        print(json.dumps(score(args.score, args.limit)))
        return 0
    with tempfile.TemporaryDirectory(prefix="actors-") as root:
        found = measure(args, Path(root))
    print(json.dumps({**found, "machine": machine()}))
    return 0 if found["ratio"] >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
