"""Ten splits with cached features against ten splits as published, on the same images and encoders.

    python -m speed.protocol --data agiqa-3k --root DIR

Published: both ViT-B encoders run in float32 at batch 8 for every image in each of 20 epochs of 10 splits. A few of
its steps are timed, its decoding left out, and the rest is arithmetic: the result says so. Ours is run whole: every
image is decoded and encoded once into an empty cache, then 10 splits are trained and tested. The encoders have the
real sizes and random weights, which cost what trained ones cost. Each side has a process of its own, one after the
other, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, run_all
from mst_clipiqa.data import load_rated_set
from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.clip import load_clip_pair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.families import PAIRS
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.recipe import FAST
from speed.machine import machine, peak_mb, report
from speed.random_pair import write

EPOCHS, SPLITS, BATCH = 20, 10, 8


def published(images: int, steps: int) -> dict[str, Any]:
    """Time steps of the published training loop and scale them to its whole protocol."""
    pair = load_clip_pair(PAIRS["openai"].coarse, PAIRS["openai"].fine, "openai")
    model = MSTCLIPIQA(pair.dim, "template")
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-6, weight_decay=1e-3)
    templates = torch.nn.functional.normalize(torch.randn(5, pair.dim), dim=-1)
    pixels = torch.randn(BATCH, 3, 224, 224)
    towers = (pair.mstfe.encoder_coarse, pair.mstfe.encoder_fine)
    encoders = [tower.clip for tower in towers if isinstance(tower, VisionTower)]
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with torch.no_grad():
            f_c, f_f = (encoder(pixel_values=pixels).image_embeds for encoder in encoders)
        loss = mst_clipiqa_loss(model(f_c, f_f, Text(templates=templates)).q, torch.rand(BATCH) * 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - start)
    step = sorted(times[1:])[steps // 2]
    train_steps, test_steps = -(-int(0.8 * images) // BATCH), -(-int(0.2 * images) // BATCH)
    total = step * (train_steps + test_steps) * EPOCHS * SPLITS
    return {"seconds_per_batch": step, "images_per_second": BATCH / step, "seconds": total, "peak_mb": peak_mb()}


def ours(data: str, root: Path) -> dict[str, Any]:
    """Encode every image once into an empty cache, then train and test ten splits."""
    start = time.perf_counter()
    rated = load_rated_set(data, root)
    pair = load_encoders("openai", "cpu")
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder)) as cache:
        encoder = ImageEncoder(pair, cache=cache)
        table = encode_records(encoder, rated.records, prompts=False)
        encoded = time.perf_counter()
        plan = BenchmarkPlan(rated, ("template",), ("quality",), SPLITS, "prompt", FAST)
        runs = run_all(Bench(plan, table, TrainedOn()))
    end = time.perf_counter()
    return {
        "precision": pair.precision,
        "encoding_seconds": encoded - start,
        "training_seconds": end - encoded,
        "seconds": end - start,
        "runs": len(runs),
        "peak_mb": peak_mb(),
    }


def side(part: str, args: argparse.Namespace, hub: Path) -> dict[str, Any]:
    """Run one side in its own process, which finds the pair in the hub's cache as a user's would be."""
    command = [sys.executable, "-m", "speed.protocol", "--data", args.data, "--root", str(args.root)]
    done = subprocess.run(
        [*command, "--part", part, "--steps", str(args.steps)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="agiqa-3k")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8, help="steps of the published loop to time")
    parser.add_argument("--part", choices=["published", "ours"])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    images = len(load_rated_set(args.data, args.root, images=False))
    if args.part:
        print(json.dumps(published(images, args.steps) if args.part == "published" else ours(args.data, args.root)))
        return
    with tempfile.TemporaryDirectory() as hub:
        for patch in (32, 16):
            write(Path(hub), patch)
        sides = {part: side(part, args, Path(hub)) for part in ("published", "ours")}
    found = {
        "claim": (__doc__ or "").splitlines()[0],
        "images": images,
        "scaled": f"published: {args.steps} steps timed, scaled to {EPOCHS} epochs x {SPLITS} splits, without decoding",
        **sides,
        "times_faster": sides["published"]["seconds"] / sides["ours"]["seconds"],
        "memory_ratio": sides["ours"]["peak_mb"] / sides["published"]["peak_mb"],
        "machine": machine(),
    }
    report(found, args.output)


if __name__ == "__main__":
    main()
