"""Kill a worker process, then a whole node, while ``score-cluster`` runs on two nodes, and compare with ``score``.

The nodes are Ray's own test cluster on this machine. A line of JSON goes to stdout; the exit code is 1 where a row is
missing, doubled or different.

    python -m speed.cluster_kill --images 5000 --bad 50
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ray.cluster_utils import Cluster

from mst_clipiqa.distribute import ClusterJob, run
from mst_clipiqa.distribute.on_ray import need_ray
from mst_clipiqa.distribute.worker import Work
from mst_clipiqa.errors import MstClipiqaError
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.score_rows import score_rows
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.reading import read_table


def draw(folder: Path, count: int, bad: int) -> None:
    """Write small images, ``bad`` of them damaged, evenly spread."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    wrong = {round(i * count / bad) for i in range(bad)} if bad else set()
    for i in range(count):
        path = folder / f"{i}.png"
        if i in wrong:
            path.write_bytes(b"\x89PNG\r\n\x1a\ndamaged")
        else:
            Image.fromarray(rng.integers(0, 256, (48, 40 + i % 30, 3), dtype=np.uint8)).save(path)


def workers(cluster_pids: set[int]) -> list[int]:
    """Return the processes of the actors, by their titles."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"MapWorker" in title:
            found.append(int(path.parent.name))
    return [pid for pid in found if pid not in cluster_pids]


class Killer(threading.Thread):
    """Kills an actor once some parts exist, and a node once more do."""

    def __init__(self, cluster: Any, node: Any, output: Path, parts: int, before: set[int]) -> None:
        super().__init__(daemon=True)
        self.cluster, self.node, self.output, self.parts, self.before = cluster, node, output, parts, before
        self.log: list[str] = []

    def run(self) -> None:
        """Wait and kill."""
        self._wait(max(1, self.parts // 8))
        for pid in workers(self.before)[:1]:
            os.kill(pid, signal.SIGKILL)
            self.log.append(f"worker killed after {self._there()} parts")
        self._wait(max(2, self.parts // 3))
        there = self._there()
        self.cluster.remove_node(self.node, allow_graceful=False)
        self.log.append(f"node killed after {there} parts")

    def _there(self) -> int:
        return len(list(self.output.glob("part-*.parquet")))

    def _wait(self, parts: int) -> None:
        while self._there() < parts:
            time.sleep(0.05)


def trial(root: Path, images: int, bad: int, part: int) -> dict[str, Any]:
    """Run the cluster with two deaths, again if it gives up, and compare."""
    ray, folder, output = need_ray(), root / "images", root / "out.parquet"
    draw(folder, images, bad)
    before = set(workers(set()))
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    work = Work(str(output), "mini", ScoreOptions("cpu", "fp32", 32, workers=1), threads=1)
    job = ClusterJob(str(folder), output, work, actors=2, part_size=part)
    killer = Killer(cluster, node, output, -(-images // part), before)
    killer.start()
    began, starts, refusals = time.monotonic(), 0, []
    while True:
        starts += 1
        try:
            summary = run(job)
            break
        except (MstClipiqaError, ray.exceptions.RayError) as error:
            refusals.append(f"{type(error).__name__}: {str(error)[:200]}")
            if starts == 5:
                raise
    seconds = time.monotonic() - began
    ray.shutdown()
    cluster.shutdown()
    rows = [row for path in sorted(output.glob("part-*.parquet")) for row in read_table(path)]
    return {
        "images": images,
        "rows": len(rows),
        "failed": summary.failed,
        "each_once": set(Counter(row["file"] for row in rows).values()) == {1},
        "largest_difference": difference(folder, rows),
        "starts": starts,
        "refusals": refusals,
        "deaths": killer.log,
        "seconds": round(seconds, 1),
    }


def difference(folder: Path, rows: list[dict[str, Any]]) -> float:
    """Return the largest difference between these scores and ``score``'s; infinity where a reason differs."""
    scorer = Scorer.load("mini", device="cpu", precision="fp32")
    there = {row["file"]: row for row in rows}
    largest = 0.0
    for row in score_rows(scorer, expand([str(folder)])):
        other = there.get(row["file"], {})
        if row["reason"] != other.get("reason") or row["status"] != other.get("status"):
            return float("inf")
        for name in ("quality", "correspondence", "gate"):
            mine, its = row[name], other.get(name)
            if (mine is None) != (its is None):
                return float("inf")
            if isinstance(mine, float) and isinstance(its, float):
                largest = max(largest, abs(mine - its))
    return largest


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--bad", type=int, default=50)
    parser.add_argument("--part", type=int, default=100, help="images per part")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="cluster-kill-") as root:
        result = trial(Path(root), args.images, args.bad, args.part)
    print(json.dumps(result))
    good = result["rows"] == args.images and result["each_once"] and result["largest_difference"] <= 1e-4
    return 0 if good and result["failed"] == args.bad and len(result["deaths"]) == 2 else 1


if __name__ == "__main__":
    sys.exit(main())
