"""Granularities of ``mini``: images per second, files to scores.

    python -m speed.granularity [--root AGIQA-3K]

With the calibration that ships, on JPEG files of 512 x 512; fine and each other granularity take turns, and the median
ratio is kept. How many images ``auto`` leaves at fine depends on the images, so bars are only for those of the rated
set that --root names, a test part of a split; prompts are encoded before the first turn that counts. A tolerance that
this calibration refuses has no rate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mst_clipiqa.data import Record, load_rated_set, make_split
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.calibration_file import calibration_path, load_calibration
from mst_clipiqa.scoring.folders import trained_folder
from mst_clipiqa.scoring.granular_encoding import GranularEncoding
from mst_clipiqa.scoring.granularity import FINE, Granularity
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from speed.images import jpegs
from speed.machine import machine, report

TOLERANCES = (0.04, 0.05, 0.06, 0.08)
DEFAULT = str(Granularity.parse("auto"))
TURNS = 7
SIDE = 512
BARS = {"auto_images_per_second": 170.0, "auto_times_fine": 1.7}


@dataclass(frozen=True)
class Rate:
    """What was timed at a granularity; None where calibration refuses it.

    Attributes:
        images_per_second: files to scores.
        times_fine: the rate over that of fine, median of turns.
        timed_below_fine: share of these images below fine.
    """

    images_per_second: float | None = None
    times_fine: float | None = None
    timed_below_fine: float | None = None


@dataclass(frozen=True)
class Timed:
    """A model whose rates are measured.

    Attributes:
        scorer: at fine granularity.
        calibration: of its model.
    """

    scorer: Scorer
    calibration: Calibration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K")
    parser.add_argument("--images", type=int, default=400, help="images to time")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    mini = Scorer.load("mini")
    timed = Timed(mini, load_calibration(calibration_path(trained_folder("mini")), mini.model))
    with tempfile.TemporaryDirectory() as folder:
        if args.root:
            test = make_split(load_rated_set("agiqa-3k", args.root, allow_missing=True).records, "prompt").test
            requests = as_jpegs(test[:: max(1, len(test) // args.images)][: args.images], Path(folder))
            found = measure(timed, requests) | {"data": "agiqa-3k"}
        else:
            requests = [ScoreRequest[None](file) for file in jpegs(Path(folder), args.images)]
            found = {"rows": measure(timed, requests)["rows"]}
    report({"claim": (__doc__ or "").splitlines()[0], **found, "machine": machine()}, args.output)


def measure(timed: Timed, requests: Sequence[ScoreRequest[None]]) -> dict[str, Any]:
    """Return the rate of each granularity, and that of the default beside its bars."""
    names = [FINE, *timed.calibration.estimators, *(f"auto:{tolerance:g}" for tolerance in TOLERANCES)]
    measured = rates(timed, requests, names)
    return {
        "precision": timed.scorer.encoder.encoders.precision,
        "images": len(requests),
        "auto_images_per_second": measured[DEFAULT]["images_per_second"],
        "auto_times_fine": measured[DEFAULT]["times_fine"],
        "rows": [{"granularity": name, **measured[name]} for name in names],
        "bars": BARS,
    }


def as_jpegs(records: Sequence[Record], folder: Path) -> list[ScoreRequest[None]]:
    """Return requests for the images of some records, written as JPEG files of one size."""
    requests = []
    for i, record in enumerate(records):
        image = open_image(record.file).image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(path := folder / f"{i:04}.jpg", quality=92)
        requests.append(ScoreRequest[None](path, record.prompt))
    return requests


def rates(timed: Timed, requests: Sequence[ScoreRequest[None]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return images per second of each granularity, the median of its rate over that of fine, and shares of images."""
    scorers = {name: scorer for name in names if (scorer := at(timed, name)) is not None}
    below: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for turn in range(TURNS + 1):  # the first one only warms up
        for name, one in scorers.items():
            start = time.perf_counter()
            had = [score.granularity for score in one.many(requests)]
            below[name] = sum(granularity not in (None, FINE) for granularity in had)
            seconds[name] += [time.perf_counter() - start] if turn else []
    found = {}
    for name in names:
        took, rate = seconds.get(name), Rate()
        if took:
            ratio = statistics.median(b / a for a, b in zip(took, seconds[FINE], strict=True))
            rate = Rate(len(requests) / statistics.median(took), ratio, below[name] / len(requests))
        found[name] = asdict(rate)
    return found


def at(timed: Timed, granularity: str) -> Scorer | None:
    """Return a scorer at another granularity, with the same encoders; None where calibration refuses it."""
    scorer = timed.scorer
    if granularity == FINE:
        return scorer
    other = Scorer(scorer.model, ImageEncoder(scorer.encoder.encoders), scorer.predictor)
    try:
        other.encoder.policy = GranularEncoding(scorer.predictor, timed.calibration, Granularity.parse(granularity))
    except UsageError:
        return None
    return other


if __name__ == "__main__":
    main()
