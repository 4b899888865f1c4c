"""Throughput of `score-cluster` with four actors on one node beside `score`, on the same cores and the same files.

    python -m benchmarks.actors --pictures 1920

`score` runs before and after the actors, in a process of its own; its faster run counts. Both rates are of the steady
state: the start of Ray and the loading of models are left out and stated apart. For the actors that is from the end of
the eighth part to the end of the fourth last one, by the times of the files that commit them. JSON on stdout; the exit
code is 1 under 0.85 of `score`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.pictures import jpegs

LEAST = 0.85
_FIRST, _LAST = 8, 4  # parts that the steady state leaves out
_WARM_UP = 128  # rows of `score` that are left out


def score(folder: Path, limit: float) -> float:
    """Return pictures/s of `score` over a folder in this process, after the first rows."""
    from mst_clipiqa.inputs import expand
    from mst_clipiqa.scorer import Scorer
    from mst_clipiqa.scoring import score_rows

    scorer = Scorer.load("mini")
    began = done = 0.0
    for done, _ in enumerate(score_rows(scorer, expand([str(folder)])), start=1):
        if done == _WARM_UP:
            began = time.perf_counter()
        elif began and time.perf_counter() - began > limit:
            break
    return (done - _WARM_UP) / (time.perf_counter() - began)


def actors(args: argparse.Namespace, folder: Path, output: Path) -> dict[str, Any]:
    """Return what the actors did with a folder."""
    from mst_clipiqa.distribute import Job, run
    from mst_clipiqa.distribute.worker import Work

    work = Work(str(output), "mini", None, "auto", "auto", args.batch_size, args.workers, args.threads)
    began = time.time()
    summary = run(Job(str(folder), output, work, actors=args.actors, part=args.part))
    ends = sorted(path.stat().st_mtime for path in output.glob("part-*.parquet"))
    steady = ends[_FIRST - 1 : len(ends) - _LAST]
    rate = args.part * (len(steady) - 1) / (steady[-1] - steady[0])
    return {"rows": summary.rows, "rate": rate, "first_part_after_s": round(ends[0] - began, 1)}


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return the two rates and their ratio."""
    folder = root / "pictures"
    jpegs(folder, args.pictures)
    command = [sys.executable, "-m", "benchmarks.actors", "--score", str(folder), "--limit", str(args.limit)]

    def alone() -> float:
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    rates = [alone()]
    done = actors(args, folder, root / "out.parquet")
    rates.append(alone())
    return {
        "actors": args.actors,
        "threads_an_actor": args.threads,
        "workers_an_actor": args.workers,
        "batch_size": args.batch_size,
        "part": args.part,
        "rows": done["rows"],
        "first_part_after_s": done["first_part_after_s"],
        "actors_pictures_a_second": round(done["rate"], 2),
        "score_pictures_a_second": [round(rate, 2) for rate in rates],
        "ratio": round(done["rate"] / max(rates), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1920)
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of torch, an actor")
    parser.add_argument("--workers", type=int, default=1, help="threads that open pictures, an actor")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--part", type=int, default=32, help="pictures a part")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of a run of score")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.score:
        print(score(args.score, args.limit))
        return 0
    with tempfile.TemporaryDirectory(prefix="actors-") as root:
        found = measure(args, Path(root))
    print(json.dumps({**found, "machine": machine()}))
    return 0 if found["ratio"] >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
