"""SIGKILL a run at random moments while it encodes into a feature cache, until all images are encoded.

After each kill the cache must be whole and hold all that was encoded but for the batch in flight; the next run must
encode only what is missing; at the end the features must be, bit for bit, those of a run without a cache. A line of
JSON goes to stdout; the exit code is 1 if one of these is not so.

    python -m speed.kill_cache --kills 10
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import AlreadyScored, Failed, Opened, Viewed

BATCH = 8


def draw(folder: Path, count: int) -> list[Path]:
    """Write small images of noise; return their files in order."""
    rng = np.random.default_rng(0)
    files = [folder / f"{i:04}.png" for i in range(count)]
    for i, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (96, 64 + i % 40, 3), dtype=np.uint8)).save(file)
    return files


def encode(cache: Path | None, files: Sequence[Path], counter: mmap.mmap) -> list[Encoded | Failed | AlreadyScored]:
    """Encode files with the shipped pair, counting in shared memory the images that the towers see."""

    class Counting(ImageEncoder):
        def encode_opened(self, opened: Sequence[Opened]) -> list[Encoded | Failed | AlreadyScored]:
            encoded = super().encode_opened(opened)
            counter[:4] = struct.pack("<i", seen(counter) + sum(isinstance(one, Viewed) for one in opened))
            return encoded

    counter[:4] = bytes(4)
    opened = Cache(cache) if cache else None
    encoder = Counting(load_encoders("mini", "cpu", "fp32"), batch_size=BATCH, cache=opened)
    found = [one for batch in encoder.batches(files, encoder.open) for _, one in batch]
    if opened:
        opened.close()
    return found


def seen(counter: mmap.mmap) -> int:
    """Return how many images the towers have seen in this run."""
    (count,) = struct.unpack("<i", counter[:4])
    return int(count)


def killed(cache: Path, files: Sequence[Path], counter: mmap.mmap, count: int, wait: float) -> bool:
    """Encode in a fork of this process and kill it a moment after it has encoded ``count`` images."""
    counter[:4] = bytes(4)
    child = os.fork()
    if not child:
        encode(cache, files, counter)
        os._exit(0)
    while seen(counter) < count:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kept(cache: Path) -> tuple[int, int]:
    """Return how many images the cache holds, and how many of its rows are damaged."""
    with Cache(cache) as opened:
        rows, bad = opened.verify()
        return rows - bad, bad


def trial(root: Path, kills: int, images: int, dice: random.Random) -> dict[str, object]:
    """Kill runs, check the cache after each, finish; return the results."""
    files, cache, counter = draw(root, images), root / "cache", mmap.mmap(-1, 4)
    moments = sorted(dice.uniform(0.02, 0.8) for _ in range(kills))
    there, again, damaged, done = 0, [], 0, 0
    for share in moments:
        count = max(1, round(share * images) - there)
        done += killed(cache, files, counter, count, dice.uniform(0, 0.01))
        now, bad = kept(cache)
        again.append(seen(counter) - (now - there))  # encoded and not kept: the batch in flight, at most
        there, damaged = now, damaged + bad
    final = encode(cache, files, counter)
    last = seen(counter)
    plain = encode(None, files, counter)
    equal = all(
        isinstance(a, Encoded) and isinstance(b, Encoded) and torch.equal(a.f_c, b.f_c) and torch.equal(a.f_f, b.f_f)
        for a, b in zip(final, plain, strict=True)
    )
    return {
        **{"images": images, "kills": done, "kept_at_last_kill": there, "encoded_by_the_last_run": last},
        **{"encoded_and_lost_by_kill": again, "damaged_rows": damaged, "equal": equal},
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kill-cache-") as root:
        found = trial(Path(root), args.kills, args.images, random.Random(args.seed))
    print(json.dumps(found))
    lost = found["encoded_and_lost_by_kill"]
    good = found["equal"] and not found["damaged_rows"] and found["kills"] == args.kills
    good = good and isinstance(lost, list) and min(lost) >= 0 and max(lost) <= BATCH
    return 0 if good and found["encoded_by_the_last_run"] == args.images - int(str(found["kept_at_last_kill"])) else 1


if __name__ == "__main__":
    sys.exit(main())
