"""Adaptive scoring: images per second and agreement with raters, on prompts that calibration has not seen.

    python -m speed.adaptive --data agiqa-3k --root DIR [--model mini] [--write]

Calibrates on the training prompts, then measures on the test prompts at several tolerances: the share of fine streams
that is skipped, SRCC with people beside the full model's, how often the stated bound holds, and images per second of
both from files. With --write, the calibration is saved with the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_clipiqa.data import Record, load, make_split
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.adaptive import AdaptiveEncoding
from mst_clipiqa.scoring.fine_estimator import FineEstimator, calibrate, estimator_path, values
from mst_clipiqa.scoring.folders import trained_folder
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.features import FeatureTable, encode_records
from speed.machine import machine, report

TOLERANCES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="agiqa-3k")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--cache", type=Path, help="feature cache of earlier runs")
    parser.add_argument("--images", type=int, default=200, help="test images to time from files")
    parser.add_argument("--write", action="store_true", help="keep the calibration beside the model")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Cache(args.cache or Path(folder)) as cache:
        found = measure(args, cache)
    report(found, args.output)


def measure(args: argparse.Namespace, cache: Cache) -> dict[str, Any]:
    """Return all results of this benchmark."""
    rated = load(args.data, args.root, allow_missing=True)
    split = make_split(rated.records, "prompt")
    cached = Scorer.load(args.model, cache=cache)
    table = encode_records(cached.encoder, rated.records, prompts=False)
    fit = [*split.train, *split.validation]
    estimator = calibrated(cached.predictor, table, fit)
    if args.write:
        estimator.save(estimator_path(trained_folder(args.model)))
    rows = agreement(cached.predictor, table, split.test, estimator)
    plain = Scorer.load(args.model)
    for row in rows:
        row |= rate(plain, split.test[: args.images], estimator, row["tolerance"])
    best = max((r["times_full"] for r in rows if r["within_0.005"]), default=None)
    return {
        "claim": (__doc__ or "").splitlines()[0],
        "data": rated.name,
        "protocol": split.protocol,
        "calibration_images": len(fit),
        "test_images": len(split.test),
        "rows": rows,
        "best_times_full_within_0.005_srcc": best,
        "ceiling_times_full": ceiling(plain, split.test[: args.images]),
        "machine": machine(),
    }


def calibrated(predictor: Predictor, table: FeatureTable, records: Sequence[Record]) -> FineEstimator:
    """Return an estimator fitted and calibrated on some records."""
    rows = table.rows(records)
    groups = [record.group for record in records]
    return calibrate(predictor, table.f_c[rows], table.f_f[rows], [r.prompt for r in records], groups)


def agreement(
    predictor: Predictor, table: FeatureTable, test: Sequence[Record], estimator: FineEstimator
) -> list[dict[str, Any]]:
    """Return, for each tolerance, what skipping does to the scores of the test images."""
    rows, prompts = table.rows(test), [record.prompt for record in test]
    f_c, f_f = table.f_c[rows], table.f_f[rows]
    full, guess = values(predictor, f_c, f_f, prompts), values(predictor, f_c, estimator.fine(f_c), prompts)
    bounds = estimator.bounds(predictor, f_c, prompts)
    found = []
    for tolerance in TOLERANCES:
        spared = torch.stack([bound <= tolerance for bound in bounds.values()]).all(dim=0)
        row: dict[str, Any] = {"tolerance": tolerance, "skipped": spared.float().mean().item(), "targets": {}}
        for name in full:
            known = ~full[name].isnan()
            mixed, mos = torch.where(spared, guess[name], full[name]), np.array([r.targets[name] for r in test])
            error = (full[name] - guess[name]).abs()
            before, after = (srcc(scores[known].numpy(), mos[known.numpy()]) for scores in (full[name], mixed))
            skipped = known & spared
            row["targets"][name] = {
                "srcc_full": before,
                "srcc_adaptive": after,
                "loss": before - after,
                "bound_holds": (error <= bounds[name])[known].float().mean().item(),
                "within_tolerance_of_skipped": (error <= tolerance)[skipped].float().mean().item()
                if skipped.any()
                else None,
            }
        row["within_0.005"] = all(t["loss"] <= 0.005 for t in row["targets"].values())
        found.append(row)
    return found


def rate(plain: Scorer, test: Sequence[Record], estimator: FineEstimator, tolerance: float) -> dict[str, float]:
    """Return images per second from files, for the full model and with a tolerance, one after the other."""
    requests = [ScoreRequest[None](str(record.file), record.prompt) for record in test]
    full = seconds(plain, requests)
    policy = AdaptiveEncoding(plain.predictor, estimator, tolerance)
    some = ImageEncoder(plain.encoder.encoders, policy=policy)
    adaptive = seconds(Scorer(plain.model, some, plain.predictor), requests)
    return {
        "full_per_second": len(requests) / full,
        "adaptive_per_second": len(requests) / adaptive,
        "times_full": full / adaptive,
    }


def ceiling(plain: Scorer, test: Sequence[Record]) -> float:
    """Return the speed-up if every fine stream were skipped: no tolerance can be faster."""
    dim = plain.encoder.encoders.dim
    zero = dict.fromkeys(plain.model.config.targets, 0.0)
    always = FineEstimator(torch.zeros(dim + 1, dim), torch.zeros(1, dim).repeat(2, 1), zero, plain.model.sha256)
    return rate(plain, test, dataclasses.replace(always), 1.0)["times_full"]


def seconds(scorer: Scorer, requests: Sequence[ScoreRequest[None]]) -> float:
    """Return the seconds to score all requests, without the start."""
    for _ in scorer.many(requests[:40]):
        pass
    start = time.perf_counter()
    for _ in scorer.many(requests):
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
