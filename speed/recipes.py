"""Our training recipe against the published one: validation SRCC and time, on the same splits.

    python -m speed.recipes --data agiqa-3k --root DIR --encoders mini --cache features

Both train on the same features with the same published loss; ``paper`` has its published steps, ``fast`` has ours.
Validation prompts choose only the epoch and the learning rate; the test part is not used.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_clipiqa.cli.commands._rated import recipe_of
from mst_clipiqa.data import identical, load_rated_set, make_split
from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import Head
from mst_clipiqa.train.features import encode_records, rated_features
from mst_clipiqa.train.fit import fit
from speed.machine import machine

HEADS: dict[str, Head] = {"quality": "template", "correspondence": "prompt"}


def measure(args: argparse.Namespace, recipe: str, target: str) -> dict[str, Any]:
    """Return mean and spread of the best validation SRCC over splits, and the seconds a training takes."""
    rated = load_rated_set(args.data, args.root)
    together = identical(rated.records)
    with Cache(args.cache) as cache:
        encoder = ImageEncoder(load_encoders(args.encoders), cache=cache)
        table = encode_records(encoder, rated.records, prompts=True)
    name, *changes = recipe.split(":")
    ranks, seconds = [], []
    for seed in range(args.splits):
        parts = make_split(rated.records, seed=seed, validation_share=0.2, together=together).for_training()
        head = HEADS[target]
        training, validation = (
            rated_features(table, p, target, head, rated.ranges[target]) for p in (parts.train, parts.validation)
        )
        start = time.perf_counter()
        fitted = fit(training, validation, head, recipe_of(name, tuple(changes), seed))
        seconds.append(time.perf_counter() - start)
        ranks.append(fitted.best.validation_srcc)
    return {
        "recipe": recipe,
        "target": target,
        "head": HEADS[target],
        "validation_srcc": float(np.mean(ranks)),
        "sd": float(np.std(ranks)),
        "per_split": ranks,
        "seconds": float(np.median(seconds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="agiqa-3k")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--encoders", default="mini")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--recipes", default="paper fast", help="names; changes follow after colons: fast:epochs=10")
    parser.add_argument("--targets", default="quality correspondence")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for target in args.targets.split():
        for recipe in args.recipes.split():
            rows.append(measure(args, recipe, target))
            print(json.dumps(rows[-1]))
    found = {"claim": (__doc__ or "").splitlines()[0], "rows": rows, "machine": machine()}
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
