"""Agreement of ``mini`` at each granularity with fine granularity and with people, on prompts that calibrated nothing.

    python -m speed.granularity_agreement --root AGIQA-3K [--model FOLDER]

A model is calibrated on the prompts that it was trained on, and tested on the others. As ``mini`` was trained on all of
them, --model takes one that left some out, such as the development model of ``python -m mini_training``: each training
of it agrees with people a little more or less. Without it, the test part of a split is used, and
``trained_on_test_prompts`` says so. ``within`` is the share of test images below fine with scores that are all within
the tolerance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_clipiqa.data import RatedSet, Record, load_rated_set, make_split
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.model_folder import prompt_hash
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.fine_estimator import deviations, scaled_scores
from mst_clipiqa.scoring.granularity import COARSE, FINE, Granularity
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.granularity import (
    GranularFeatures,
    calibrated_on,
    encode_every_granularity,
    fit_calibration,
)
from speed.granularity import DEFAULT, TOLERANCES
from speed.machine import machine, report

BARS = {"auto_within": 0.95, "auto_srcc_loss": 0.005}


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
    parser.add_argument("--root", type=Path, required=True, help="folder of AGIQA-3K")
    parser.add_argument("--model", metavar="FOLDER", default="mini", help="model that measures agreement")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    found = measure(Scorer.load(args.model), load_rated_set("agiqa-3k", args.root, allow_missing=True))
    report({"claim": (__doc__ or "").splitlines()[0], **found, "machine": machine()}, args.output)


def measure(scorer: Scorer, rated: RatedSet) -> dict[str, Any]:
    """Return how a model's scores at each granularity agree with those at fine, and with people."""
    parts = parts_of(scorer, rated)
    features = encode_every_granularity(scorer, [*parts.fit, *parts.test])
    fit, test = (some(features, rows) for rows in (slice(len(parts.fit)), slice(len(parts.fit), None)))
    on = calibrated_on(scorer, parts.fit, rated.name, features.costs)
    rows = agreement(scorer, fit_calibration(scorer.predictor, fit, parts.fit, on), test, parts.test)
    default = next(row for row in rows if row["granularity"] == DEFAULT)
    found = {
        "data": rated.name,
        "precision": scorer.encoder.encoders.precision,
        "calibration_images": len(parts.fit),
        "test_images": len(parts.test),
        "trained_on_test_prompts": parts.seen,
        "auto_within": default["within"],
        "auto_srcc_loss": max(target["srcc_loss"] for target in default["targets"].values()),
        "rows": rows,
        "bars": BARS,
    }
    return {name: value for name, value in found.items() if value is not None}


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
    scores = {FINE: scaled_scores(predictor, f_c, features.f_f[FINE], prompts)}
    for name, estimator in calibration.estimators.items():
        x = torch.cat([f_c, features.f_f[name]], dim=1) if name in features.f_f else f_c
        scores[name] = scaled_scores(predictor, f_c, estimator.fine(x), prompts)
    spreads = {name: estimator.spread for name, estimator in calibration.estimators.items()}
    e = deviations(spreads, predictor, f_c, calibration.estimators[COARSE].fine(f_c), prompts)
    familiar = calibration.familiar(f_c, scorer.model.reference)
    chosen = {name: [name] * len(test) for name in (FINE, *calibration.estimators)}
    for tolerance in TOLERANCES:
        chosen[f"auto:{tolerance:g}"] = calibration.choose(e, familiar, tolerance, calibration.price(tolerance))
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


if __name__ == "__main__":
    main()
