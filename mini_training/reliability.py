"""How often ``compare`` and ``drift`` are right: writes docs/reliability.json and the tables of docs/reliability.md.

    python -m mini_training.reliability --data DIR [--work DIR]

The models that left something out stand for ``mini``, as in ``familiarity.py``: one left out the development prompts,
the others one generator each. What they make of every image is in the work folder, so no image is opened here.
Intervals are calibrated on other prompts, or other generators, than those that are measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mini_training.data import Rated, read_rated, save_json
from mini_training.familiarity import TARGETS, Arrays, Known, known_errors
from mini_training.reliability_page import PAGE, RESULTS, written
from mst_clipiqa.analysis.change import Change
from mst_clipiqa.analysis.compare import probability
from mst_clipiqa.analysis.drift import drift
from mst_clipiqa.analysis.pairing import PairBy, Pairing
from mst_clipiqa.evaluate import HeldOut, fit_widening

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # of the certainty that ``compare`` states; from .95 on it names a winner
PAIRS = 20_000  # of the images of each generator that was left out
PROMPTS = (12, 24, 48)
DRAWS = 500  # pairs of tables for each number of prompts
Line = dict[str, Any]  # of a table, ready for JSON


@dataclass(frozen=True)
class HeldOutScores:
    """Images as a model that has seen neither their prompts nor, if left out, their generator scores them.

    Attributes:
        scores, ratings: on 0..5, float (n,).
        half: half-width of their 90 % intervals, float (n,).
        prompts: of each image, int (n,).
    """

    scores: np.ndarray
    ratings: np.ndarray
    half: np.ndarray
    prompts: np.ndarray


@dataclass(frozen=True)
class TwoTables:
    """Two tables to compare: (prompts, 2) of scores, and of ratings; old and new."""

    scores: np.ndarray
    ratings: np.ndarray


def main() -> None:
    """Read the flags, and renew the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K: data.csv and images/")
    parser.add_argument("--work", type=Path, default=Path("work-out"), help="work folder of the training")
    args = parser.parse_args()
    renew(args.data, args.work)


def renew(data: Path, work: Path) -> None:
    """Measure, and write JSON and page; ``work`` is the work folder of the training."""
    rated = read_rated(data)
    names = ("development", *sorted(set(rated.generators)))
    found = measured(rated, [dict(np.load(work / f"{name}.npz")) for name in names])
    save_json(RESULTS, found)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


def measured(rated: Rated, models: Sequence[Arrays], draws: int = DRAWS) -> Line:
    """Return everything that the page shows.

    Args:
        rated: AGIQA-3K.
        models: what each model that left something out makes of every image, as ``outcome`` returns it.
        draws: pairs of tables for each number of prompts.
    """
    known = [known_errors(rated, one) for one in models]
    base = next(one for one in known if not one.out)
    outs = [one for one in known if one.out]
    compared = {target: _compared(rated, base, outs, target) for target in TARGETS}
    drifted = {
        target: [
            *_drifted("known generators", _known_pairs(rated, models, target), draws),
            *_drifted("a generator left out", _new_pairs(rated, models, target), draws),
            *_drifted("no change", [_dealt(pair) for pair in _known_pairs(rated, models, target)], draws),
            *_drifted("no change, not paired", _same(rated, models, target), draws, "none"),
        ]
        for target in TARGETS
    }
    return {"compare": compared, "drift": drifted, "draws": draws, "images": len(base.rows[0])}


def _compared(rated: Rated, base: Known, outs: Sequence[Known], target: str) -> dict[str, list[Line]]:
    """Return, for pairs of each kind, what ``compare`` states and how often it is right."""
    column = list(TARGETS).index(target)
    new = _crossed(rated, base, outs, target)
    every = np.array(list(combinations(range(len(new.scores)), 2))).T
    one = every[:, new.prompts[every[0]] == new.prompts[every[1]]]
    left = []
    for out in outs:
        others = [other.left[target] for other in outs if other is not out]
        part = _with_intervals(rated, out.left[target], out.rows[1], (base.new[target], others), column)
        left.append(_certainties(part, np.random.default_rng(0).integers(0, len(part.scores), (2, PAIRS))))
    return {
        "any two images, new prompts": _bins(*_certainties(new, every)),
        "two images of one new prompt": _bins(*_certainties(new, one)),
        "two images by a generator left out": _bins(*np.concatenate(left, axis=1)),
    }


def _crossed(rated: Rated, base: Known, outs: Sequence[Known], target: str) -> HeldOutScores:
    """Return the images of new prompts; every other prompt calibrates the intervals of the rest."""
    part, rows, column = base.new[target], base.rows[0], list(TARGETS).index(target)
    numbers = np.unique(rated.prompt_ids[rows], return_inverse=True)[1] % 2
    found = []
    for side in (0, 1):
        mine, others = _some(part, numbers == side), _some(part, numbers != side)
        left = [one.left[target] for one in outs]
        found.append(_with_intervals(rated, mine, rows[numbers == side], (others, left), column))
    names = [field.name for field in fields(HeldOutScores)]
    return HeldOutScores(*(np.concatenate([getattr(one, name) for one in found]) for name in names))


def _with_intervals(
    rated: Rated, part: HeldOut, rows: np.ndarray, calibrating: tuple[HeldOut, Sequence[HeldOut]], column: int
) -> HeldOutScores:
    wide = fit_widening(*calibrating)
    if wide is None:
        raise SystemExit("Expected at least nine held-out prompts in each half: use more of the set.")
    ratings = rated.ratings[rows, column].astype(float)
    return HeldOutScores(part.residuals + ratings, ratings, wide.halfwidth(part.excess), rated.prompt_ids[rows])


def _some(part: HeldOut, kept: np.ndarray) -> HeldOut:
    groups = [group for group, one in zip(part.groups, kept, strict=True) if one]
    return HeldOut(part.residuals[kept], part.excess[kept], groups)


def _certainties(part: HeldOutScores, pairs: np.ndarray) -> np.ndarray:
    """Return for pairs of images, int (2, n), the certainty that is stated, and whether it is right: float (2, m)."""
    a, b = pairs
    apart = (part.ratings[a] != part.ratings[b]) & (part.scores[a] != part.scores[b])
    a, b = a[apart], b[apart]
    gap = part.scores[a] - part.scores[b]
    chance = np.array([probability(*one) for one in zip(gap, part.half[a], part.half[b], strict=True)])
    right = (gap > 0) == (part.ratings[a] > part.ratings[b])
    return np.stack([np.maximum(chance, 1 - chance), right.astype(float)])


def _bins(stated: np.ndarray, right: np.ndarray) -> list[Line]:
    lines = []
    for low, high in pairwise(EDGES):
        inside = (stated >= low) & ((stated < high) | (high == EDGES[-1]))
        if inside.any():
            means = {"stated": round(float(stated[inside].mean()), 3), "right": round(float(right[inside].mean()), 3)}
            lines.append({"from": low, "to": high, "pairs": int(inside.sum()), **means})
    return lines


def _known_pairs(rated: Rated, models: Sequence[Arrays], target: str) -> list[TwoTables]:
    """Return the tables of every two generators and settings, new prompts, by the model that knows all of them."""
    return list(_between(rated, models[0], target, combinations(range(len(rated.group_names)), 2)))


def _new_pairs(rated: Rated, models: Sequence[Arrays], target: str) -> list[TwoTables]:
    """Return tables, new prompts, of which the new one is by a generator that the model has not seen."""
    found: list[TwoTables] = []
    for out, arrays in zip(sorted(set(rated.generators)), models[1:], strict=True):
        new = [i for i, name in enumerate(rated.group_names) if name.split("_")[0] == out]
        old = [i for i in range(len(rated.group_names)) if i not in new]
        found += _between(rated, arrays, target, ((a, b) for b in new for a in old))
    return found


def _between(rated: Rated, arrays: Arrays, target: str, pairs: Iterator[tuple[int, int]]) -> Iterator[TwoTables]:
    scores, ratings = _by_prompt(rated, arrays, target)
    for pair in pairs:
        both = np.isfinite(scores[:, pair]).all(axis=1)
        yield TwoTables(scores[both][:, pair], ratings[both][:, pair])


def _by_prompt(rated: Rated, arrays: Arrays, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and ratings of new prompts, float (prompts, generators and settings); NaN if there is no image."""
    rows = np.flatnonzero(rated.part == "development")
    prompts, place = np.unique(rated.prompt_ids[rows], return_inverse=True)
    found = np.full((2, len(prompts), len(rated.group_names)), np.nan)
    found[0, place, rated.groups[rows]] = np.clip(arrays[TARGETS[target]][rows], 0, 5)
    found[1, place, rated.groups[rows]] = rated.ratings[rows, list(TARGETS).index(target)]
    return found[0], found[1]


def _dealt(pair: TwoTables) -> TwoTables:
    """Return tables that differ by chance only: each prompt's two images are dealt out to both orders."""
    return TwoTables(*(np.concatenate([both, both[:, ::-1]]) for both in (pair.scores, pair.ratings)))


def _same(rated: Rated, models: Sequence[Arrays], target: str) -> list[TwoTables]:
    """Return each generator and setting as both tables."""
    return list(_between(rated, models[0], target, ((i, i) for i in range(len(rated.group_names)))))


def _drifted(kind: str, pairs: Sequence[TwoTables], draws: int, pairing: Pairing = "prompt") -> list[Line]:
    """Return how often ``drift`` is right on prompts drawn from tables, for each number of prompts.

    The tables stand for all prompts there are: what it says of the prompts drawn is compared with their means.
    """
    lines: list[Line] = []
    for count in PROMPTS:
        rng = np.random.default_rng(count)
        found = [_one(rng, pairs[int(rng.integers(len(pairs)))], count, pairing) for _ in range(draws)]
        said = [(change, ratings) for change, _, ratings in found if change.verdict in ("better", "worse")]
        right = [(change.difference > 0) == (ratings > 0) for change, ratings in said if ratings]
        lines.append(
            {
                "tables": kind,
                "prompts": count,
                "covers_scores": _share([change.low <= scores <= change.high for change, scores, _ in found]),
                "covers_ratings": _share([change.low <= ratings <= change.high for change, _, ratings in found]),
                "verdicts": _share([change.verdict != "no difference" for change, _, _ in found]),
                "right": _share(right),
            }
        )
    return lines


def _one(rng: np.random.Generator, pair: TwoTables, count: int, pairing: Pairing) -> tuple[Change, float, float]:
    """Return what ``drift`` says of prompts drawn, and the difference over all prompts in scores and in ratings."""
    drawn = rng.integers(len(pair.scores), size=(2, count))
    sides = drawn[[0, 0]] if pairing == "prompt" else drawn
    old, new = (
        [{"file": f"{i}.png", "prompt": f"{i}", "quality": q} for i, q in enumerate(pair.scores[rows, column])]
        for column, rows in enumerate(sides)
    )
    change = drift(old, new, ("quality",), pair_by=PairBy(pairing)).changes[0]
    scores, ratings = (float((both[:, 1] - both[:, 0]).mean()) for both in (pair.scores, pair.ratings))
    return change, scores, ratings


def _share(values: Sequence[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


if __name__ == "__main__":
    main()
