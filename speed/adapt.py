"""Does adaptation help? Each generator of AGIQA-3K left out of a training, and photographs for a model without any.

    python -m speed.adapt --models DIR --data DIR --live DIR --work DIR [--images 72] [-o FILE]

DIR of --models holds a model folder per generator that was left out, left-out/GENERATOR, and no-photographs. Each is
adapted to images of what it has not seen, by ladders alone; ratings only measure. What the encoders make of the images
is kept in the work folder, so that a second run with other settings takes seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.adapt.build import adapt_data
from mst_clipiqa.adapt.fit import AdaptRecipe
from mst_clipiqa.adapt.job import AdaptData, AdaptJob, RatedMaterial, moving_of, prepare_data
from mst_clipiqa.adapt.ladders import Ladders
from mst_clipiqa.adapt.moving import Material, MovingEncoders
from mst_clipiqa.data import RatedSet, load_rated_set
from mst_clipiqa.model.mst_clipiqa import to_head
from mst_clipiqa.scoring.scorer import Scorer
from speed.machine import machine, report

PHOTOGRAPHS = "photographs"
LABELS = 0.1
"""Share of the ratings of photographs that train in a run of its own."""
MOST_RATED = 160
"""Rated images per generator, drawn at random, so that all cost about the same."""


def sources(models: Path, data: Path, live: Path) -> dict[str, tuple[Path, RatedSet]]:
    """Return name -> the model that has not seen it, and its rated images."""
    rated = load_rated_set("agiqa-3k", data)
    found = {}
    for generator in rated.generators:
        own = tuple(record for record in rated.records if record.generator == generator)
        found[generator] = models / "left-out" / generator, dataclasses.replace(rated, records=drawn(own))
    photographs = load_rated_set("csv", live / "data.csv", allow_missing=True, score_range=(0.0, 100.0))
    found[PHOTOGRAPHS] = models / "no-photographs", photographs
    return found


def drawn(records: Any, most: int = MOST_RATED) -> Any:
    order = np.random.default_rng(0).permutation(len(records))[:most]
    return tuple(records[i] for i in sorted(order.tolist()))


def prepared(name: str, model: Path, rated: RatedSet, images: int, work: Path) -> tuple[AdaptJob, AdaptData, float]:
    """Return the job and its data, from the work folder if they are there, and the seconds that encoding took."""
    scorer = Scorer.load(model, device="cpu")
    files = [record.file for record in drawn(rated.records, images)]
    job = AdaptJob(scorer, files, work / "none", "lora:4", check=rated)
    path = work / f"{name}.pt"
    if not path.is_file():
        start = time.perf_counter(), time.process_time()
        data = prepare_data(job, moving_of(job))
        seconds = time.process_time() - start[1]
        print(f"{name}: {seconds:.0f} s of CPU, {time.perf_counter() - start[0]:.0f} s", file=sys.stderr)
        parts = [data.training.material, data.held.material, data.rated.material]
        kept = [[part.coarse.half(), part.fine.half()] for part in parts]
        names = [[file.name for file in some.files] for some in (data.training, data.held)]
        kinds = [[list(row) for row in some.kinds] for some in (data.training, data.held)]
        saved = {"kept": kept, "names": names, "kinds": kinds, "seconds": seconds}
        saved["quality"] = torch.from_numpy(data.rated.ratings["quality"])
        work.mkdir(parents=True, exist_ok=True)
        torch.save(saved, path)
    saved = torch.load(path, weights_only=True)
    materials = [Material(coarse.float(), fine.float()) for coarse, fine in saved["kept"]]
    ladders = [
        Ladders(tuple(map(Path, names)), material, tuple(map(tuple, kinds)), job.plan)
        for names, kinds, material in zip(saved["names"], saved["kinds"], materials[:2], strict=True)
    ]
    ratings = {"quality": saved["quality"].numpy()}
    decides = RatedMaterial(materials[2], (None,) * len(ratings["quality"]), ratings)
    return job, AdaptData(ladders[0], ladders[1], None, torch.zeros(0), decides), float(saved["seconds"])


def as_features(job: AdaptJob, data: AdaptData) -> AdaptData:
    """Return the data of the fusion: features, where the data of lora begin before the encoders' last layer."""
    encoders = moving_of(job)
    if not isinstance(encoders, MovingEncoders):
        raise TypeError("Expected a job that moves the encoders.")

    @torch.no_grad()
    def features(material: Material) -> Material:
        shape = material.coarse.shape[:-1]
        flat = Material(material.coarse.flatten(0, -2), material.fine.flatten(0, -2))
        f_c, f_f = encoders.features(flat)
        return Material(f_c.unflatten(0, shape), f_f.unflatten(0, shape))

    training, held = (
        dataclasses.replace(some, material=features(some.material)) for some in (data.training, data.held)
    )
    rated = dataclasses.replace(data.rated, material=features(data.rated.material))
    labelled = None if data.labelled is None else features(data.labelled)
    return AdaptData(training, held, labelled, data.y, rated)


def with_labels(job: AdaptJob, data: AdaptData, share: float) -> AdaptData:
    """Return the data with a share of the rated images, drawn at random, as images that train."""
    y, material = data.rated.ratings["quality"], data.rated.material
    order = np.random.default_rng(0).permutation(len(y))
    count = round(share * len(y))
    train, rest = (torch.from_numpy(np.sort(some)) for some in (order[:count], order[count:]))
    low, high = job.check.ranges["quality"] if job.check else (0.0, 5.0)
    head = to_head(torch.from_numpy(y)[train].float(), low, high)
    rated = RatedMaterial(material[rest], (None,) * len(rest), {"quality": y[rest.numpy()]})
    return dataclasses.replace(data, labelled=material[train], y=head, rated=rated)


def one(job: AdaptJob, data: AdaptData, encoding: float, train: str, recipe: AdaptRecipe) -> dict[str, Any]:
    """Adapt one model; return what the gate saw."""
    job = dataclasses.replace(job, train=train, recipe=recipe)
    moving = moving_of(job)
    found = adapt_data(job, moving, data, encoding)
    ladders, rating = found.verdict.ladders, found.verdict.ratings["quality"]
    return {
        "images": sum(found.images),
        "held-out ladders": ladders.ladders,
        "ladders before": round(ladders.before, 4),
        "ladders after": round(ladders.after, 4),
        "gain low": round(ladders.gain.low, 4),
        "gain high": round(ladders.gain.high, 4),
        "rated": rating.images,
        "srcc before": round(rating.before, 4),
        "srcc after": round(rating.after, 4),
        "kept without ratings": not dataclasses.replace(found.verdict, ratings={}).refusal(),
        "kept with ratings": not found.verdict.refusal(),
        "encoding seconds of CPU": round(encoding, 1),
        "adapting seconds": round(found.seconds["adapting"], 1),
    }


def parameters(job: AdaptJob, train: str) -> int:
    moving = moving_of(dataclasses.replace(job, train=train))
    values: list[Tensor] = list(moving.parameters().values())
    return sum(value.numel() for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K")
    parser.add_argument("--live", type=Path, required=True, help="LIVE in the Wild")
    parser.add_argument("--work", type=Path, default=Path("work-out/adapt"))
    parser.add_argument("--images", type=int, default=72, help="images to adapt to, the held-out third included")
    parser.add_argument("--only", nargs="*", help="only these generators")
    parser.add_argument("--train", nargs="*", default=["fusion"], choices=["fusion", "lora:4"])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    recipe = AdaptRecipe()
    rows = []
    for name, (model, rated) in sources(args.models, args.data, args.live).items():
        if args.only and name not in args.only:
            continue
        job, data, encoding = prepared(name, model, rated, args.images, args.work)
        for train in args.train:
            used = as_features(job, data) if train == "fusion" else data
            row = {"left out": name, "train": train, "parameters": parameters(job, train), "labels": 0.0}
            row |= one(job, used, encoding, train, recipe)
            shuffled = one(job, used, encoding, train, dataclasses.replace(recipe, shuffle=True))
            rows.append(row | {"shuffled ladders refused": not shuffled["kept without ratings"]})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if name == PHOTOGRAPHS:
            used = as_features(job, with_labels(job, data, LABELS))
            row = {"left out": name, "train": "fusion", "parameters": parameters(job, "fusion"), "labels": LABELS}
            rows.append(row | one(job, used, encoding, "fusion", recipe))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = {
        "claim": (__doc__ or "").splitlines()[0],
        "recipe": dataclasses.asdict(recipe),
        "rows": rows,
        "means": [mean(rows, train) for train in args.train],
        "machine": machine(),
    }
    report(result, args.output)


def mean(rows: list[dict[str, Any]], train: str) -> dict[str, Any]:
    """Return the mean over the generators, photographs left out."""
    own = [row for row in rows if row["train"] == train and row["left out"] != PHOTOGRAPHS]
    names = ("ladders before", "ladders after", "srcc before", "srcc after")
    return {"train": train, "generators": len(own)} | {
        name: round(float(np.mean([row[name] for row in own])), 4) for name in names if own
    }


if __name__ == "__main__":
    main()
