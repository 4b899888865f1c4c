"""Granularities of ``mini``: images per second and agreement, on prompts that calibrated nothing.

    python -m speed.granularity [--root AGIQA-3K] [--model mini]

With --root: the model is calibrated on the prompts that it was trained on and tested on the others; if it was trained
on all of them, on the test part of a split, and ``trained_on_test_prompts`` says so. ``within`` is the share of test
images below fine whose scores are all within the tolerance. Rates are of the test images as JPEG files of 512 x 512,
files to scores; fine and each other granularity take turns, and the median ratio is kept. Without --root there are only
rates, of other images, by the calibration that the model has.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mst_clipiqa.data import RatedSet, Record, load, make_split
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.model_folder import prompt_hash
from mst_clipiqa.scoring.calibration import CalibratedOn, Calibration, owner_of
from mst_clipiqa.scoring.fine_estimator import deviations, values
from mst_clipiqa.scoring.folders import trained_folder
from mst_clipiqa.scoring.granular_encoding import GranularEncoding, calibration_path
from mst_clipiqa.scoring.granularity import FINE, Granularity
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.granularity import GranularFeatures, encode_every_granularity, fit_calibration
from speed.images import jpegs
from speed.machine import machine, report

TOLERANCES = (0.03, 0.04, 0.05, 0.06, 0.08)
DEFAULT = str(Granularity.parse("auto"))
TURNS = 3
SIDE = 512
BARS = {
    "auto_images_per_second": 170.0,
    "auto_times_fine": 1.7,
    "auto_within": 0.95,
    "auto_srcc_loss": 0.005,
}


@dataclass(frozen=True)
class Parts:
    """Records of a rated set.

    Attributes:
        fit: calibrate.
        test: tell what holds.
        seen: whether the model was trained on the prompts of ``test``.
    """

    fit: Sequence[Record]
    test: Sequence[Record]
    seen: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--images", type=int, default=200, help="images to time")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    scorer = Scorer.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        if args.root:
            found = with_ratings(scorer, load("agiqa-3k", args.root, allow_missing=True), args.images, Path(folder))
        else:
            calibration = Calibration.load(calibration_path(trained_folder(args.model)), scorer.model)
            requests = [ScoreRequest[None](file) for file in jpegs(Path(folder), args.images)]
            found = rates_only(scorer, calibration, requests)
    report({"claim": (__doc__ or "").splitlines()[0], **found, "machine": machine()}, args.output)


def with_ratings(scorer: Scorer, rated: RatedSet, images: int, folder: Path) -> dict[str, Any]:
    """Return agreement and rates of each granularity."""
    parts = parts_of(scorer, rated)
    features = encode_every_granularity(scorer, [*parts.fit, *parts.test])
    fit, test = (some(features, rows) for rows in (slice(len(parts.fit)), slice(len(parts.fit), None)))
    pair = scorer.encoder.encoders
    on = CalibratedOn(owner_of(scorer.model), tuple(scorer.ranges), rated.name, costs=features.costs)
    calibration = fit_calibration(scorer.predictor, fit, parts.fit, on)
    rows = agreement(scorer, calibration, test, parts.test)
    requests = as_jpegs(parts.test[:: max(1, len(parts.test) // images)][:images], folder)
    measured = rates(scorer, calibration, requests, [row["granularity"] for row in rows])
    for row in rows:
        row |= measured[row["granularity"]]
    default = next(row for row in rows if row["granularity"] == DEFAULT)
    return {
        "data": rated.name,
        "precision": pair.precision,
        "calibration_images": len(parts.fit),
        "test_images": len(parts.test),
        "trained_on_test_prompts": parts.seen,
        "auto_images_per_second": default["images_per_second"],
        "auto_times_fine": default["times_fine"],
        "auto_within": default["within"],
        "auto_srcc_loss": max(target["srcc_loss"] for target in default["targets"].values()),
        "rows": rows,
        "bars": BARS,
    }


def rates_only(scorer: Scorer, calibration: Calibration, requests: Sequence[ScoreRequest[None]]) -> dict[str, Any]:
    """Return the rates of each granularity on images without ratings."""
    names = [FINE, *calibration.estimators, DEFAULT]
    measured = rates(scorer, calibration, requests, names)
    return {"rows": [{"granularity": name, **measured[name]} for name in names]}


def parts_of(scorer: Scorer, rated: RatedSet) -> Parts:
    """Return the records that calibrate, and those with prompts that the model has not seen, if there are any."""
    seen = scorer.model.trained_on.prompts
    new = [record for record in rated.records if record.prompt and prompt_hash(record.prompt) not in seen]
    if 0 < len(new) < len(rated.records):
        names = {record.name for record in new}
        return Parts([record for record in rated.records if record.name not in names], new, False)
    split = make_split(rated.records, "prompt")
    return Parts([*split.train, *split.validation], split.test, not new)


def some(features: GranularFeatures, rows: slice) -> GranularFeatures:
    """Return the features of some of the images."""
    return GranularFeatures(features.f_c[rows], {name: f[rows] for name, f in features.f_f.items()}, features.costs)


def agreement(
    scorer: Scorer, calibration: Calibration, features: GranularFeatures, test: Sequence[Record]
) -> list[dict[str, Any]]:
    """Return a row for each granularity: shares, how far scores are from fine ones, and SRCC with the ratings."""
    predictor, f_c, prompts = scorer.predictor, features.f_c, [record.prompt for record in test]
    scores = {FINE: values(predictor, f_c, features.f_f[FINE], prompts)}
    for name, estimator in calibration.estimators.items():
        x = torch.cat([f_c, features.f_f[name]], dim=1) if name in features.f_f else f_c
        scores[name] = values(predictor, f_c, estimator.fine(x), prompts)
    e, familiar = (
        deviations(calibration.estimators, predictor, f_c, prompts),
        calibration.familiar(f_c, scorer.model.reference),
    )
    chosen = {name: [name] * len(test) for name in (FINE, *calibration.estimators)}
    for tolerance in TOLERANCES:
        chosen[f"auto:{tolerance:g}"] = calibration.chosen(e, familiar, calibration.limits(tolerance))
    rows = []
    for asked, names in chosen.items():
        found = torch.stack([scores[name][i] for i, name in enumerate(names)])
        row: dict[str, Any] = {"granularity": asked}
        row |= {f"share_{name}": names.count(name) / len(names) for name in (*calibration.estimators, FINE)}
        row["within"] = within(found, scores[FINE], names, Granularity.parse(asked).tolerance)
        row["targets"] = {
            target: compared(found[:, i], scores[FINE][:, i], [record.targets.get(target) for record in test])
            for i, target in enumerate(scorer.ranges)
        }
        rows.append(row)
    return rows


def within(found: torch.Tensor, fine: torch.Tensor, names: Sequence[str], tolerance: float) -> float | None:
    """Return the share of images below fine whose scores are all within a tolerance; None without either."""
    below = torch.tensor([name != FINE for name in names])
    if not tolerance or not below.any():
        return None
    return ((found - fine).abs().nan_to_num(0.0)[below] <= tolerance).all(dim=1).float().mean().item()


def compared(found: torch.Tensor, fine: torch.Tensor, ratings: Sequence[float | None]) -> dict[str, float]:
    """Return how scores of one target agree with people, and by how much they differ from fine ones."""
    mos = np.array([np.nan if rating is None else rating for rating in ratings])
    known = ~np.isnan(mos) & ~fine.isnan().numpy()
    now, before = (srcc(scores.numpy()[known], mos[known]) for scores in (found, fine))
    difference = (found - fine).abs()[torch.from_numpy(known)].quantile(0.95).item()
    return {"srcc": now, "srcc_loss": before - now, "difference_95": difference}


def as_jpegs(records: Sequence[Record], folder: Path) -> list[ScoreRequest[None]]:
    """Return requests for the images of some records, written as JPEG files of one size."""
    requests = []
    for i, record in enumerate(records):
        image = open_image(record.file).image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(path := folder / f"{i:04}.jpg", quality=92)
        requests.append(ScoreRequest[None](path, record.prompt))
    return requests


def rates(
    scorer: Scorer, calibration: Calibration, requests: Sequence[ScoreRequest[None]], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return images per second of each granularity, and the median of its rate over that of fine."""
    scorers = {name: scorer if name == FINE else at(scorer, calibration, name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(TURNS + 1):  # the first one only warms up
        for name, one in scorers.items():
            start = time.perf_counter()
            for _ in one.many(requests):
                pass
            seconds[name] += [time.perf_counter() - start] if turn else []
    return {
        name: {
            "images_per_second": len(requests) / statistics.median(took),
            "times_fine": statistics.median(b / a for a, b in zip(took, seconds[FINE], strict=True)),
        }
        for name, took in seconds.items()
    }


def at(scorer: Scorer, calibration: Calibration, granularity: str) -> Scorer:
    """Return a scorer at another granularity, with the same encoders."""
    other = Scorer(scorer.model, type(scorer.encoder)(scorer.encoder.encoders), scorer.predictor)
    other.encoder.policy = GranularEncoding(scorer.predictor, calibration, Granularity.parse(granularity))
    return other


if __name__ == "__main__":
    main()
