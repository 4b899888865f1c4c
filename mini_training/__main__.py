"""From the rated images to the shipped folder.

    python -m mini_training --data DIR --live DIR --kodak DIR [--changed TEXT] [--work DIR] [--stage NAME ...]

Without ``--stage``: all of them, so that one command makes all that ships; without ``--changed``, all but ``pin``. A
stage resumes where it was stopped. What does not ship goes to the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mini_training import pin, reliability
from mini_training.card import card
from mini_training.data import Rated, read_rated, save_json
from mini_training.familiarity import add_familiarity
from mini_training.fit import Known, Sets, fit, untrained
from mini_training.int8 import IMAGES, chosen, measure_int8
from mini_training.leave_out import left_out
from mini_training.measure import agreement, measure, photographs, precision_difference
from mini_training.outcome import outcome
from mini_training.plan import REST, TOWERS, Refining
from mini_training.prepare import prepare, read
from mini_training.prompts import read_captions, read_prompts
from mini_training.refine import refine
from mini_training.robust import ladders, noises
from mini_training.settle import settle
from mini_training.ship import Place, finish, seen_by, ship
from mini_training.teacher import describe
from mst_clipiqa.cli import group
from mst_clipiqa.encoders.int8_weights import sum_bits
from mst_clipiqa.encoders.mini.folder import load_mini_pair
from mst_clipiqa.scoring.folders import MINI_MODEL
from mst_clipiqa.scoring.scorer import Scorer

STAGES = (
    *("prepare", "development", "final", "leave-out", "no-photographs"),  # hours
    *("card", "calibrate", "reliability", "pin"),
)
LOOKS = 20
"""How often figures of these encoders on the development prompts were looked at."""


@dataclass(frozen=True)
class Paths:
    """Inputs and outputs, and the sentence for the changelog."""

    data: Path
    live: Path
    kodak: Path
    work: Path
    changed: str = ""


def main() -> None:
    """Run stages in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K: data.csv and images/")
    parser.add_argument("--live", type=Path, required=True, help="LIVE in the Wild: data.csv and images/")
    parser.add_argument("--kodak", type=Path, required=True, help="the Kodak photographs, for measuring only")
    parser.add_argument("--work", type=Path, default=Path("work-out"))
    parser.add_argument("--changed", default="", help="one sentence on what changed, for the changelog; pin needs it")
    parser.add_argument("--stage", nargs="*", choices=STAGES)
    args = parser.parse_args()
    stages = args.stage or (STAGES if args.changed.strip() else STAGES[:-1])
    if "pin" in stages and not args.changed.strip():
        parser.error("Expected --changed with one sentence on what changed: give it, or leave out the stage pin.")
    paths = Paths(args.data, args.live, args.kodak, args.work, args.changed.strip())
    paths.work.mkdir(parents=True, exist_ok=True)
    trainings = _prepare, _development, _final, _leave_out, _no_photographs
    run = dict(zip(STAGES, (*trainings, _card, _calibrate, _reliability, _pin), strict=True))
    for stage in STAGES:
        if stage in stages:
            start = time.perf_counter()
            run[stage](paths)
            print(f"{stage}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def _prepare(paths: Paths) -> None:
    """Compute the maps of the frozen blocks, of every image and of distorted ones, and what the teacher sees."""
    prepare(_rated(paths), paths.data, paths.live, paths.work)
    describe(_rated(paths), paths.data, paths.live, paths.work / "described.npy")


def _development(paths: Paths) -> None:
    """Train on 192 prompts and half of the photographs; the 48 prompts and the other half give the card's figures."""
    rated = _rated(paths)
    folder = paths.work / "development"
    known = Known(np.flatnonzero(rated.part != "development"), np.flatnonzero(rated.half))
    _train(paths, rated, known, Place(folder, str(folder / "encoders")))
    found = measure(str(folder), paths.data, "development")
    found["photographs"] = photographs(Scorer.load(folder), rated, paths.live)
    found["bf16"] = precision_difference(folder, "bf16", rated, paths.data)
    save_json(paths.work / "development.json", found)


def _final(paths: Paths) -> None:
    """Train on everything, into the package; measure photographs under distortion, then the ranges of int8."""
    rated = _rated(paths)
    known = Known(np.arange(len(rated.names)), np.arange(len(rated.photos)))
    _train(paths, rated, known, Place(MINI_MODEL, "mini"))
    scorer = Scorer.load("mini")
    save_json(paths.work / "robust.json", {"kodak": ladders(scorer, paths.kodak), "noise": noises(scorer)})
    measure_int8(MINI_MODEL / "encoders", chosen((paths.data / "images", paths.live / "images"), IMAGES))


def _leave_out(paths: Paths) -> None:
    """Leave one generator out of training, six times; measure on its images, of prompts seen and of new ones."""
    rated = _rated(paths)
    table = {}
    for generator in sorted(set(rated.generators)):
        rows = np.flatnonzero((rated.part != "development") & (rated.generators != generator))
        folder = paths.work / "left-out" / generator
        known = Known(rows, np.flatnonzero(rated.half))
        _train(paths, rated, known, Place(folder, str(folder / "encoders")))
        table[generator] = left_out(folder, rated, paths.data, generator)
        save_json(paths.work / "leave-out.json", table)


def _no_photographs(paths: Paths) -> None:
    """Train on 192 prompts and no photograph; measure on all photographs."""
    rated = _rated(paths)
    folder = paths.work / "no-photographs"
    known = Known(np.flatnonzero(rated.part != "development"), np.arange(0))
    _train(paths, rated, known, Place(folder, str(folder / "encoders")))
    save_json(paths.work / "no-photographs.json", photographs(Scorer.load(folder), rated, paths.live))


def _card(paths: Paths) -> None:
    """Write familiarity, intervals, figures and the card from the models that left something out."""
    rated = _rated(paths)
    final, *others = (
        dict(np.load(paths.work / f"{name}.npz")) for name in ("final", "development", *sorted(set(rated.generators)))
    )
    familiarity = add_familiarity(MINI_MODEL, rated, final, others)
    save_json(MINI_MODEL / "familiarity.json", familiarity)
    names = ("development", "robust", "leave-out", "no-photographs")
    found = {name: json.loads((paths.work / f"{name}.json").read_text()) for name in names}
    if (brisque := paths.work / "brisque.json").is_file():
        found["brisque"] = agreement({name: -value for name, value in json.loads(brisque.read_text()).items()}, rated)
    if (ranges := load_mini_pair().ranges) and sum_bits() is not None:
        found["int8"] = _int8(ranges.digest, rated, paths)
    found["looks"] = LOOKS
    found["megabytes"] = sum(path.stat().st_size for path in MINI_MODEL.rglob("*") if path.is_file()) / 1e6
    save_json(MINI_MODEL / "figures.json", found)
    finish(MINI_MODEL, card(found, familiarity))


def _calibrate(paths: Paths) -> None:
    """Measure what each granularity of what ships costs and changes; until then it refuses ``--granularity``."""
    where = ["--model", str(MINI_MODEL), "--data", "agiqa-3k", "--root", str(paths.data)]
    group.main(["calibrate", *where, "--allow-missing", "--quiet"], standalone_mode=False)


def _reliability(paths: Paths) -> None:
    """Measure how often comparisons are right, by the models that left something out."""
    reliability.renew(paths.data, paths.work)


def _pin(paths: Paths) -> None:
    """Pin the scores of ``examples/`` and name the change in the changelog."""
    pin.renew(paths.changed)


def _int8(ranges: str, rated: Rated, paths: Paths) -> dict[str, Any]:
    """Measure int8 on this CPU; keep the figure of the other kind of CPU if it is of the same encoders."""
    before = json.loads(file.read_text()).get("int8", {}) if (file := MINI_MODEL / "figures.json").is_file() else {}
    kept = before if before.get("ranges") == ranges else {"ranges": ranges}
    return kept | {f"sums of {sum_bits()} bits": precision_difference("mini", "int8", rated, paths.data)}


def _rated(paths: Paths) -> Rated:
    return read_rated(paths.data, paths.live)


def _train(paths: Paths, rated: Rated, known: Known, place: Place) -> None:
    """Train and write a model folder, and what it makes of every image; a complete training is read again."""
    torch.set_num_threads(1)  # two trainings side by side are faster than one on two cores
    prompts, texts = read_prompts(rated, TOWERS.dim)
    prompt_of = np.array([texts.index(prompt) for prompt in rated.prompts])
    sets = Sets(rated, read(paths.work), prompts, prompt_of, np.load(paths.work / "described.npy"))
    name = "final" if place.source == "mini" else place.folder.name
    learner = fit(sets, known, lambda: untrained(sets, known, TOWERS), paths.work / f"{name}.pt")
    learner, sets = settle(learner, sets, known, REST, paths.work / f"{name}.rest.pt")
    refine(learner, sets, known, read_captions(TOWERS.dim), Refining())
    np.savez(paths.work / f"{name}.npz", allow_pickle=False, **outcome(learner, sets, known))
    ship(learner, place, seen_by(rated, known.rows, known.photos, paths.data, paths.live))


if __name__ == "__main__":
    main()
