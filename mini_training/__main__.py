"""From the rated images to the shipped folder.

    python -m mini_training --data DIR --kodak DIR [--work DIR] [--stage prepare calibrate twin final leave-out card]

Without ``--stage``: all of them. Everything but the shipped folder goes to the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mini_training.card import card
from mini_training.data import Rated, read_rated, save_json
from mini_training.describe import prepare, read
from mini_training.fit import fit
from mini_training.measure import ladder, measure
from mini_training.plan import Recipe
from mini_training.ship import Place, finish, halfwidths, seen_by, ship
from mini_training.words import build_words
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import MINI_MODEL, Scorer

STAGES = ("prepare", "calibrate", "twin", "final", "leave-out", "card")


@dataclass(frozen=True)
class Paths:
    """Inputs and outputs."""

    data: Path
    kodak: Path
    work: Path


def main() -> None:
    """Run stages in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K: data.csv and images/")
    parser.add_argument("--kodak", type=Path, required=True, help="the Kodak photographs, for measuring only")
    parser.add_argument("--work", type=Path, default=Path("work-out"))
    parser.add_argument("--stage", nargs="*", choices=STAGES, default=STAGES)
    args = parser.parse_args()
    paths = Paths(args.data, args.kodak, args.work)
    paths.work.mkdir(parents=True, exist_ok=True)
    run = dict(zip(STAGES, (_prepare, _calibrate, _twin, _final, _leave_out, _card), strict=True))
    for stage in STAGES:
        if stage in args.stage:
            start = time.perf_counter()
            run[stage](paths)
            print(f"{stage}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def _prepare(paths: Paths) -> None:
    """Describe every image once, and some on their way down a ladder of distortion."""
    prepare(read_rated(paths.data), paths.data, paths.work)


def _calibrate(paths: Paths) -> None:
    """Train on 154 prompts; the 38 of validation chose the settings and give the intervals."""
    rated = read_rated(paths.data)
    folder = paths.work / "calibrated"
    _train(paths, rated, rated.part == "train", Place(folder, str(folder / "encoders")))
    save_json(paths.work / "intervals.json", halfwidths(folder, rated, paths.data))
    save_json(paths.work / "validation.json", measure(str(folder), paths.data, None, "validation"))


def _twin(paths: Paths) -> None:
    """Train on 192 prompts; the 48 of development give the card's figures."""
    rated = read_rated(paths.data)
    folder = paths.work / "twin"
    _train(paths, rated, rated.part != "development", Place(folder, str(folder / "encoders")))
    finish(folder, json.loads((paths.work / "intervals.json").read_text()), "# The twin of mini\n")
    save_json(paths.work / "development.json", measure(str(folder), paths.data, None, "development"))


def _final(paths: Paths) -> None:
    """Train on all prompts, into the package; the photographs under distortion are measured on the result."""
    rated = read_rated(paths.data)
    _train(paths, rated, np.ones(len(rated.names), bool), Place(MINI_MODEL, "mini"))
    finish(MINI_MODEL, json.loads((paths.work / "intervals.json").read_text()), "# mini\n")
    save_json(paths.work / "kodak.json", ladder(Scorer.load("mini"), paths.kodak))


def _leave_out(paths: Paths) -> None:
    """Leave one generator out of training, six times; measure on its images, of prompts met and of new ones."""
    rated = read_rated(paths.data)
    generator = rated.generators
    new = rated.part == "development"
    table = {}
    for left in sorted(set(generator)):
        folder = paths.work / "left-out" / left
        _train(paths, rated, ~new & (generator != left), Place(folder, str(folder / "encoders")))
        test = np.flatnonzero(generator == left)
        asked = (ScoreRequest[None](paths.data / "images" / rated.names[i], rated.prompts[i]) for i in test)
        quality = np.array([score.quality for score in Scorer.load(folder).many(asked)])
        mos, fresh = rated.ratings[test, 0], new[test]
        table[left] = {"n": len(test), "srcc": srcc(quality, mos), "new_prompts": srcc(quality[fresh], mos[fresh])}
        save_json(paths.work / "leave-out.json", table)


def _card(paths: Paths) -> None:
    """Write the card from what was measured."""
    names = ("intervals", "validation", "development", "kodak", "leave-out")
    found = {n: json.loads(p.read_text()) for n in names if (p := paths.work / f"{n}.json").is_file()}
    finish(MINI_MODEL, found["intervals"], card(found))


def _train(paths: Paths, rated: Rated, rows: np.ndarray, place: Place) -> None:
    index = np.flatnonzero(rows)
    words = build_words(sorted({rated.prompts[i] for i in index}))
    model = fit(rated, read(paths.work), index, words, Recipe())
    seen: TrainedOn = seen_by(rated, index, paths.data)
    ship(model, words, place, seen)


if __name__ == "__main__":
    main()
