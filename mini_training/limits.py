"""What the statistics can say at most: the teacher alone, its parts, and with the generator told to it.

    python -m mini_training.limits --data DIR [--work work-out]

Quality, on the 192 prompts that are not for development: five folds over prompts, and each generator left out. Needs
what the stage ``prepare`` left in the work folder. Prints JSON, in half a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mini_training.data import Rated, read_rated
from mini_training.describe import Described, read
from mini_training.teacher import Teacher
from mst_clipiqa.evaluate import generator_mean, pair_accuracy, srcc

FOLDS = 5


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work-out"))
    args = parser.parse_args()
    print(json.dumps(limits(read_rated(args.data), read(args.work)), indent=1))


def limits(rated: Rated, described: Described) -> dict[str, object]:
    """Return SRCC and pair accuracy of quality in five folds, and SRCC within each generator that is left out."""
    kept = np.flatnonzero(rated.part != "development")
    found = [_fold(rated, described, *rows) for rows in folds(rated, kept)]
    made = rated.generators
    left = {
        str(name): _left_out(rated, described, kept[made[kept] != name], kept[made[kept] == name])
        for name in np.unique(made)
    }
    return {
        "five_folds": {name: _mean([fold[name] for fold in found]) for name in found[0]},
        "left_out": left,
        "left_out_mean": _mean(list(left.values())),
    }


def folds(rated: Rated, kept: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows to fit and rows to test, no prompt on both sides."""
    prompts = np.random.default_rng(0).permutation(np.unique(rated.prompt_ids[kept]))
    for fold in range(FOLDS):
        test = np.isin(rated.prompt_ids[kept], prompts[fold::FOLDS])
        yield kept[~test], kept[test]


def _fold(rated: Rated, described: Described, fit: np.ndarray, test: np.ndarray) -> dict[str, dict[str, float]]:
    teacher = Teacher(rated, described, fit)
    within, level = _quality(teacher, described, test)
    told = teacher.levels(rated.groups[test])[:, 0].numpy()
    mean = generator_mean(rated.ratings[fit, 0], rated.groups[fit].tolist(), rated.groups[test].tolist())
    y, ids = rated.ratings[test, 0].astype(float), rated.prompt_ids[test].tolist()
    said = {"generator's mean": mean, "teacher": within + level, "generator told": within + told}
    return {
        name: {"srcc": srcc(x, y), "pairs_of_one_prompt": pair_accuracy(x, y, ids, threshold=0.5).accuracy}
        for name, x in said.items()
    }


def _left_out(rated: Rated, described: Described, fit: np.ndarray, test: np.ndarray) -> dict[str, float]:
    within, level = _quality(Teacher(rated, described, fit), described, test)
    y = rated.ratings[test, 0].astype(float)
    return {"teacher": srcc(within + level, y), "within generators": srcc(within, y)}


def _quality(teacher: Teacher, described: Described, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two parts of quality, which no prompt changes."""
    any_prompt = np.full(len(rows), teacher.rows[0])
    within, level = teacher.parts(described.coarse[rows], described.fine[rows], any_prompt)
    return within[:, 0].numpy(), level[:, 0].numpy()


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


if __name__ == "__main__":
    main()
