"""The server under load, or ``score`` over a folder repeatedly for minutes: does memory grow, is anything lost?

    python -m speed.soak serve --minutes 10
    python -m speed.soak score --minutes 10

Memory is the resident set of the process that serves or scores, once a second; its slope is the least squares line
after the warm-up. Every answer and every row is compared with the first round's row of its file; a row that is
missing, doubled or different, an error and an answer that never comes are losses. The result is JSON on stdout; the
exit code is 1 where anything was lost or the slope is 1 MB a minute or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speed import serve
from speed.machine import machine
from speed.resident import resident_mb, watched

MOST = 1.0
"""MB per minute."""


def summary(samples: list[tuple[float, float]], warm_up: float) -> dict[str, Any]:
    """Return how memory grew: (seconds, MB) samples -> the slope after the warm-up, each minute's minimum and mean.

    Every batch takes memory and returns it; the minimum of a minute is what stays allocated between batches.
    """
    times, memory = np.array(samples).T
    times = times - times[0]
    late = times >= warm_up
    slope, at = np.polyfit(times[late], memory[late], 1)
    spread = float(np.std(memory[late] - slope * times[late] - at))
    minutes = [memory[times // 60 == m] for m in range(int(times[-1] // 60) + 1)]
    return {
        "samples": int(late.sum()),
        "mb_per_minute": round(float(slope) * 60, 3),
        "spread_mb": round(spread, 2),
        "mb_least_each_minute": [round(float(one.min()), 1) for one in minutes],
        "mb_mean_each_minute": [round(float(one.mean()), 1) for one in minutes],
        "mb_end": round(float(memory[-1]), 1),
    }


def soak_serve(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let clients send requests to a server that runs as the command."""
    paths = serve.draw(folder, args.images, args.side)
    rows, _ = serve.score(folder)
    work = [(serve.request_of(path), row) for path, row in zip(paths, rows, strict=True)]
    samples: list[tuple[float, float]] = []

    async def loaded(port: int, pid: int) -> serve.Tally:
        watch = asyncio.create_task(watched(pid, samples))
        tally = await serve.load(port, work, args.clients, 60 * args.minutes)
        watch.cancel()
        return tally

    with serve.server(folder.parent / "log") as (port, pid):
        tally = asyncio.run(loaded(port, pid))
    tally.seconds.clear()
    lost = sum(tally.errors.values()) + tally.wrong
    counts = {"clients": args.clients, "answered": tally.answered, "busy_with_retry_after": tally.busy}
    return {**counts, "lost": lost, "errors": dict(tally.errors), **summary(samples, 60 * args.warm_up)}


def soak_score(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score the folder repeatedly in a separate process, which reports at the end."""
    for path in serve.draw(folder, args.images, args.side)[::10]:
        path.write_bytes(path.read_bytes()[:100])  # some images are damaged
    command = [sys.executable, "-m", "speed.soak", "score", "--loop", str(folder), "--minutes", str(args.minutes)]
    samples: list[tuple[float, float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemExit("Expected the process that scores to start, but it ended.")
        while process.poll() is None:
            samples.append((time.perf_counter(), resident_mb(process.pid)))
            time.sleep(1)
        said = json.loads(process.stdout.read())
    samples = [one for one in samples if one[1]]  # a process that has ended has no memory
    return {**said, **summary(samples, 60 * args.warm_up)}


def loop(folder: Path, seconds: float) -> dict[str, Any]:
    """Score a folder round after round as one stream of rows, and compare each round with the first."""
    from mst_clipiqa.inputs.expand import expand
    from mst_clipiqa.inputs.item import Item
    from mst_clipiqa.scoring.score_rows import score_rows
    from mst_clipiqa.scoring.scorer import Scorer

    scorer = Scorer.load("mini")
    first = list(score_rows(scorer, expand([str(folder)])))
    print("ready", flush=True)
    end = time.monotonic() + seconds
    asked = 0

    def items() -> Iterator[Item]:
        nonlocal asked
        while time.monotonic() < end:
            for item in expand([str(folder)]):
                asked += 1
                yield item

    got = wrong = 0
    for row in score_rows(scorer, items()):
        wrong += row != first[got % len(first)]
        got += 1
    return {"images": len(first), "asked": asked, "rows": got, "lost": asked - got + wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve", "score"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--warm-up", type=float, default=2, help="minutes at the start to leave out of the slope")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        print(json.dumps(loop(args.loop, 60 * args.minutes)))
        return 0
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name) / "images"
        folder.mkdir()
        found = (soak_serve if args.what == "serve" else soak_score)(args, folder)
    good = not found["lost"] and found["mb_per_minute"] < MOST
    print(json.dumps({"soak": args.what, **found, "minutes": args.minutes, "good": good, "machine": machine()}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
