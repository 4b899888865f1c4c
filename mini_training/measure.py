"""Measure a model folder as its users meet it: every figure of the card, as JSON on stdout.

    python -m mini_training.measure --data DIR --live DIR --kodak DIR [--model mini] [--part development]

The three are AGIQA-3K, LIVE in the Wild and the folder of the 24 Kodak photographs. What ships was trained on every
part, so its agreement with the ratings means little: the card's figures are those of ``--model work-out/development``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from mini_training.data import Rated, read_rated, unseen
from mini_training.robust import ladders, noises
from mst_clipiqa.evaluate import (
    bootstrap,
    generator_mean,
    mean_interval,
    pair_accuracy,
    paired_difference,
    plcc,
    rmse,
    srcc,
)
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

TARGETS = ("quality", "correspondence")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--live", type=Path)
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--part", default="development", choices=["train", "validation", "development", "all"])
    args = parser.parse_args()
    found = measure(args.model, args.data, args.part)
    scorer = Scorer.load(args.model)
    if args.live:
        found["photographs"] = photographs(scorer, read_rated(args.data, args.live), args.live)
    if args.kodak:
        found["kodak"], found["noise"] = ladders(scorer, args.kodak), noises(scorer)
    print(json.dumps(found, indent=1))


def measure(model: str, data: Path, part: str) -> dict[str, object]:
    """Return agreement with raters and what the prompt changes, of a model folder."""
    scorer = Scorer.load(model)
    rated = read_rated(data)
    rows = np.arange(len(rated.names)) if part == "all" else np.flatnonzero(rated.part == part)
    files = [data / "images" / rated.names[i] for i in rows]
    encoded = scorer.encode(files)
    out: dict[str, object] = {"model": Path(model).name, "part": part, "images": len(rows)}
    prompts = [rated.prompts[i] for i in rows]
    scores = _table(scorer.score_encoded(encoded, prompts))
    for column, target in enumerate(TARGETS):
        out[target] = _agreement(scores[:, column], rated, rows, column)
    shuffled = _table(scorer.score_encoded(encoded, _shuffled(prompts, rated.groups[rows])))[:, 1]
    out["prompt_matters"] = _drop(scores[:, 1] - shuffled, rated.prompt_ids[rows])
    everyone = sorted(set(rated.prompts))
    known = scorer.encoder.encoders.encode_prompts(everyone).in_vocabulary
    here = set(prompts)
    out["unknown_prompts"] = {
        "all": [p for p, k in zip(everyone, known, strict=True) if not k],
        part: [p for p, k in zip(everyone, known, strict=True) if not k and p in here],
        "of": [len(everyone), len(here)],
    }
    return out


def photographs(scorer: Scorer, rated: Rated, live: Path) -> dict[str, dict[str, object]]:
    """Return agreement with the raters of LIVE in the Wild: all, the half that development trains on, the other."""
    requests = [ScoreRequest[None](live / "images" / name) for name in rated.photos]
    quality = np.array([score.quality for score in scorer.many(requests)], float)
    every = np.ones(len(rated.photos), bool)
    parts = {"all": every, "trained_half": rated.half, "other_half": ~rated.half}
    return {name: _photos(quality[kept], rated.photo_ratings[kept]) for name, kept in parts.items()}


def agreement(quality: dict[str, float], rated: Rated) -> dict[str, float]:
    """Return SRCC of a measure of quality, name -> value, higher is better, on what the card's model never saw."""
    images, photos = unseen(rated)
    x = np.array([quality[name] for name in images])
    new = rated.part == "development"
    mos, generators = rated.ratings[new, 0].astype(float), rated.generators[new]
    within = [srcc(x[generators == each], mos[generators == each]) for each in sorted(set(generators))]
    others = rated.photo_ratings[~rated.half].astype(float)
    return {
        "development": srcc(x, mos),
        "within": float(np.mean(within)),
        "photographs": srcc(np.array([quality[name] for name in photos]), others),
    }


def precision_difference(model: str | Path, precision: str, rated: Rated, data: Path) -> dict[str, float]:
    """Return how far qualities of the development images in a precision are from those in fp32: mean and highest."""
    files = [data / "images" / rated.names[i] for i in np.flatnonzero(rated.part == "development")]
    exact, other = (
        np.array([s.quality for s in Scorer.load(model, precision=name).many(files)], float)
        for name in ("fp32", precision)
    )
    difference = np.abs(exact - other)
    return {"mean": float(difference.mean()), "max": float(difference.max())}


def _photos(quality: np.ndarray, y: np.ndarray) -> dict[str, object]:
    found = bootstrap(quality, y.astype(float), list(range(len(y))))
    return {"n": len(y), "srcc": dataclasses.asdict(found)}


def _table(scores: list[Score]) -> np.ndarray:
    """Return quality and correspondence, float (n, 2), NaN where empty."""
    return np.array([[np.nan if v is None else v for v in (s.quality, s.correspondence)] for s in scores])


def _agreement(scores: np.ndarray, rated: Rated, rows: np.ndarray, column: int) -> dict[str, object]:
    """Compare with the raters and with the mean rating of the image's generator and setting."""
    kept = ~np.isnan(scores)
    x, at = scores[kept], rows[kept]
    y, groups, ids = rated.ratings[at, column].astype(float), rated.groups[at], rated.prompt_ids[at].tolist()
    other = _could_be_trained_on(rated, rows)
    base = generator_mean(rated.ratings[other, column], rated.groups[other].tolist(), groups.tolist())
    pairs, base_pairs = (pair_accuracy(p, y, ids, threshold=0.5) for p in (x, base))
    generator = rated.generators[at]
    return {
        "n": int(kept.sum()),
        "srcc": dataclasses.asdict(bootstrap(x, y, ids)),
        "plcc": plcc(x, y),
        "rmse": rmse(x, y),
        "above_generator_mean": dataclasses.asdict(paired_difference(base, x, y, ids)),
        "pairs_of_one_prompt": dataclasses.asdict(pairs),
        "pairs_by_generator_mean": dataclasses.asdict(base_pairs),
        "within_generator": {g: srcc(x[generator == g], y[generator == g]) for g in sorted(set(generator))},
    }


def _could_be_trained_on(rated: Rated, measured: np.ndarray) -> np.ndarray:
    """Return which images are neither measured nor held for development, bool (n,); all where none is."""
    known: np.ndarray = rated.part != "development"
    known[measured] = False
    return known if known.any() else ~known


def _shuffled(prompts: list[str], groups: np.ndarray) -> list[str]:
    """Give each image the prompt of another one of its generator and setting."""
    out = list(prompts)
    rng = np.random.default_rng(0)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        for i, j in zip(members, np.roll(members, 1), strict=True):
            out[i] = prompts[j]
    return out


def _drop(drop: np.ndarray, ids: np.ndarray) -> dict[str, float]:
    """Return the mean fall of correspondence with a wrong prompt, and its 95 % interval over prompts."""
    kept = ~np.isnan(drop)
    found = mean_interval(drop[kept], ids[kept].tolist())
    return {"fall": found.value, "low": found.low, "high": found.high, "n": int(kept.sum())}


if __name__ == "__main__":
    main()
