"""Measure a model folder as its users meet it: every figure of the card, as JSON on stdout.

    python -m mini_training.measure --data DIR --kodak DIR [--model mini] [--part development]

DIR is AGIQA-3K and the folder of the 24 Kodak photographs. What ships was trained on every part, so its agreement with
the ratings means little: the card's figures are those of ``--model work-out/twin``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mini_training.data import Rated, read_rated
from mini_training.distort import KINDS, LADDER, distort
from mst_clipiqa.evaluate import bootstrap, generator_mean, pair_accuracy, paired_difference, plcc, rmse, srcc
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

TARGETS = ("quality", "correspondence")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--part", default="development", choices=["train", "validation", "development", "all"])
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.data, args.kodak, args.part), indent=1))


def measure(model: str, data: Path, kodak: Path | None, part: str) -> dict[str, object]:
    """Return agreement with raters, behaviour and speed of a model folder."""
    scorer = Scorer.load(model)
    rated = read_rated(data)
    rows = np.arange(len(rated.names)) if part == "all" else np.flatnonzero(rated.part == part)
    files = [data / "images" / rated.names[i] for i in rows]
    start = time.perf_counter()
    encoded = scorer.encode(files)
    speed = len(files) / (time.perf_counter() - start)
    out: dict[str, object] = {"model": model, "part": part, "images": len(rows), "images_a_second": speed}
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
    if kodak is not None:
        out["kodak"] = ladder(scorer, kodak)
    return out


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


def _drop(drop: np.ndarray, ids: np.ndarray, draws: int = 1000) -> dict[str, float]:
    """Return the mean fall of correspondence with a wrong prompt, and its 95 % interval over prompts."""
    kept = ~np.isnan(drop)
    _, index = np.unique(ids[kept], return_inverse=True)
    total, count = np.bincount(index, drop[kept]), np.bincount(index)
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(total), (draws, len(total)))
    low, high = np.quantile(total[picked].sum(1) / count[picked].sum(1), [0.025, 0.975])
    return {"fall": float(drop[kept].mean()), "low": float(low), "high": float(high), "n": int(kept.sum())}


def ladder(scorer: Scorer, folder: Path) -> dict[str, list[float]]:
    """Return the mean quality of photographs, clean and at four strengths of each distortion."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    images = [Image.open(path).convert("RGB") for path in files]
    clean = _mean(scorer, images)
    return {
        kind: [clean, *(_mean(scorer, [distort(im, kind, s, i) for i, im in enumerate(images)]) for s in LADDER)]
        for kind in KINDS
    }


def _mean(scorer: Scorer, images: list[Image.Image]) -> float:
    return float(np.mean([score.quality for score in scorer.many(ScoreRequest(image) for image in images)]))


if __name__ == "__main__":
    main()
