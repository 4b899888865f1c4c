"""Is B better than A? Two benchmark results, split by split.

Each split trains a model of its own, whose scores cannot be pooled with another's. SRCC is therefore computed within
each split's test part, and the differences are averaged over the splits. If all splits share the test images, because
another set is tested on or there is one split, the interval is over the prompts of these images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mst_clipiqa.benchmark.over_prompts import resampled_units
from mst_clipiqa.benchmark.results import interval_over_splits
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import Difference, difference_of, srcc
from mst_clipiqa.evaluate.comparison import difference_over_prompts

_SAME = ("data", "tested_on", "split_by", "test_share")  # of two results that can be compared
_Pair: TypeAlias = tuple[list[float], list[float], list[float]]
"""The predictions of A and of B for the images of a test part, and their ratings."""


@dataclass(frozen=True)
class ComparedResults:
    """Two results compared by one target and head.

    Attributes:
        interval_over: what the interval is over: "splits", "prompts", or "images" if none has a prompt.
        splits: how many splits were compared.
        splits_left_out: how many splits only one of the results has.
        difference: how much better B ranks the test images than A, in SRCC.
    """

    interval_over: str
    splits: int
    splits_left_out: int
    difference: Difference


def compare_results(a: dict[str, Any], b: dict[str, Any], target: str, head: str) -> ComparedResults:
    """Return how much better B ranks the test images than A: the mean difference in SRCC over the common splits.

    The 95 % interval is over splits, corrected for their overlap. If all splits share the test images, it is over
    prompts, for the models that were trained.

    Args:
        a, b: two results of ``summarise``, for the same data and splits.
        target, head: whose runs to compare.

    Raises:
        DataError: the results cannot be compared; the message says what differs.
    """
    ours, theirs = ({**found, "test_share": found["test_share"].get(target)} for found in (a, b))  # one per target
    for key in _SAME:
        if ours.get(key) != theirs.get(key):
            raise DataError(
                f"Expected two results with the same {key}, got {ours.get(key)!r} and {theirs.get(key)!r}: "
                "run both benchmarks on the same data and splits."
            )
    left, right = (_by_split(found["runs"], target, head) for found in (a, b))
    common = sorted(left.keys() & right.keys())
    if not common:
        raise DataError("Expected two results with splits in common, got none: run both with the same splits.")
    first = left[common[0]]
    if all(set(left[split]["names"]) == set(first["names"]) for split in common):
        over = resampled_units(first["names"], first["groups"])
        before, after = ([_paired(first, side[split])[1] for split in common] for side in (left, right))
        difference = difference_over_prompts(before, after, first["mos"], first["groups"])
    else:
        over = "splits"
        pairs = [_paired(left[split], right[split]) for split in common]
        difference = _difference_over_splits(pairs, a["test_share"][target])
    return ComparedResults(over, len(common), len(left.keys() ^ right.keys()), difference)


def _by_split(runs: list[dict[str, Any]], target: str, head: str) -> dict[int, dict[str, Any]]:
    return {run["split"]: run for run in runs if (run["target"], run["head"]) == (target, head)}


def _difference_over_splits(pairs: list[_Pair], test_share: float) -> Difference:
    before, after = (np.array([srcc(pair[side], pair[2]) for pair in pairs]) for side in (0, 1))
    low, high = interval_over_splits((after - before).tolist(), test_share, (-2.0, 2.0))
    return difference_of("srcc", (float(before.mean()), float(after.mean())), (low, high))


def _paired(a: dict[str, Any], b: dict[str, Any]) -> _Pair:
    """Return the pair of two runs, in the order of A's images; DataError if images or ratings differ."""
    if sorted(a["names"]) != sorted(b["names"]):
        raise DataError(
            f"Expected two results with the same test images, got others in split {b['split']}: "
            "run both benchmarks on the same data and splits."
        )
    other = dict(zip(b["names"], zip(b["predictions"], b["mos"], strict=True), strict=True))
    found = [other[name] for name in a["names"]]
    if not np.allclose([mos for _, mos in found], a["mos"]):
        raise DataError(
            f"Expected two results with the same ratings, got others in split {b['split']}: "
            "run both benchmarks on the same labels."
        )
    return a["predictions"], [q for q, _ in found], a["mos"]
