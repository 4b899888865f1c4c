"""SIGKILL ``mst-clipiqa score -o FILE --resume`` at random moments until done, and compare with an undisturbed run.

Each run is a fork of this process, which has torch loaded and has computed nothing, so that a kill costs no start. A
line of JSON a format goes to stdout; the exit code is 1 where a table differs.

    python -m speed.kill_score --kills 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch  # here, once, and not in each run
import transformers
from PIL import Image

from mst_clipiqa import cli
from mst_clipiqa.encoders.mini import folder as mini
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.journal import journal_of
from mst_clipiqa.tables.reading import read_table

_A_ROUND = 4  # kills before a run is let to its end
LOADED = (torch, transformers, mini, Scorer)


def draw(folder: Path, count: int) -> None:
    """Write small images, a few of them damaged, and their prompts."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (64, 48 + i % 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        if i % 13 == 5:
            (folder / f"{i}.png").write_bytes(b"damaged")
    lines = [f'{i}.png,"a red ball, number {i}"\n' for i in range(count)]
    (folder / "metadata.csv").write_text("file_name,prompt\n" + "".join(lines))


def start(folder: Path, output: Path, model: str) -> int:
    """Score a folder in a fork of this process; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        args = ["score", str(folder), "-o", str(output), "--resume", "--batch-size", "4", "--quiet", "--device", "cpu"]
        args += ["--model", model]
        cli.group(args, prog_name="mst-clipiqa")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    finally:
        os._exit(code)


def watch(child: int, output: Path, size: float, dice: random.Random) -> tuple[bool, int]:
    """Kill a run once its journal has reached a size, or a little later; returns whether it was killed, and the size.

    A run that ends before must end well.
    """
    journal, seen = journal_of(output), 0
    part = journal.with_name(f"{journal.name}-wal")  # where SQLite appends
    old = part.stat().st_size if part.exists() else None  # of the run before: the new one begins with a shorter file
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            check(status)
            return False, seen
        with contextlib.suppress(FileNotFoundError):
            now = part.stat().st_size
            old = None if old is not None and now < old else old
            seen = max(seen, now) if old is None else seen
        if seen >= size:
            time.sleep(dice.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1]), seen
        time.sleep(0.0005)


def check(status: int) -> None:
    """Stop where a run ended with anything but 1, "some rows failed"."""
    if os.waitstatus_to_exitcode(status) != 1:
        raise SystemExit(f"Expected a run to end with 1, got {os.waitstatus_to_exitcode(status)}.")


def trial(root: Path, kind: str, kills: int, model: str, dice: random.Random) -> dict[str, object]:
    """Kill runs in rounds, each of them until its table is done and compared; returns what happened."""
    whole, output = root / f"whole.{kind}", root / f"killed.{kind}"
    _, most = watch(start(root / "images", whole, model), whole, float("inf"), dice)
    shares: list[float] = []
    rounds, equal = 0, True
    while len(shares) < kills:
        output.unlink(missing_ok=True)
        for share in moments(min(_A_ROUND, kills - len(shares)), dice, is_sorted=rounds % 2 == 0):
            if watch(start(root / "images", output, model), output, share * most, dice)[0]:
                shares.append(round(share, 3))
        while watch(start(root / "images", output, model), output, float("inf"), dice)[0]:
            pass
        rounds += 1
        equal &= output.read_bytes() == whole.read_bytes() and not list(root.glob("killed.*.part*"))
    rows = len(read_table(output))
    return {"format": kind, "kills": kills, "tables": rounds, "rows": rows, "equal": equal, "killed_at_share": shares}


def moments(count: int, dice: random.Random, *, is_sorted: bool) -> list[float]:
    """Return shares of the whole; in order, each falls where rows are scored, else some where rows are taken over."""
    shares = [dice.uniform(0, 0.98) for _ in range(count)]
    return sorted(shares) if is_sorted else shares


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills per format")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--formats", nargs="+", default=["csv", "jsonl", "parquet"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="working folder; a temporary one by default")
    args = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(dir=args.folder, prefix="kill-score-"))
    try:
        draw(root / "images", args.images)
        equal = True
        for kind in args.formats:
            result = trial(root, kind, args.kills, args.model, random.Random(args.seed))
            print(json.dumps(result), flush=True)
            equal &= bool(result["equal"])
    finally:
        shutil.rmtree(root)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
