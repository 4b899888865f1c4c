"""Is B better than A? Two benchmark results, split by split.

Each split trains a model of its own, whose scores cannot be pooled with another's. SRCC is therefore computed within
each split's test part, and the differences are averaged over the splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mst_clipiqa.benchmark.results import interval_over_splits
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import Difference, difference_of, paired_difference, srcc

_SAME = ("data", "tested_on", "split_by", "test_share")  # of two results that can be compared


def compare_results(a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]) -> Difference:
    """Return how much better B ranks the test images than A: the mean difference in SRCC over the common splits.

    The 95 % interval is over splits, corrected for their overlap; for a single split, it is over prompts.

    Args:
        a, b: two results of ``summarise``, for the same data and splits.
        target: the target to compare.
        heads: the head of A and that of B.

    Raises:
        DataError: the results cannot be compared; the message says what differs.
    """
    for key in _SAME:
        if a.get(key) != b.get(key):
            raise DataError(
                f"Expected two results with the same {key}, got {a.get(key)!r} and {b.get(key)!r}: "
                "run both benchmarks on the same data and splits."
            )
    left, right = (_runs(found, target, head) for found, head in zip((a, b), heads, strict=True))
    common = sorted(left.keys() & right.keys())
    if not common:
        raise DataError("Expected two results with splits in common, got none: run both with the same splits.")
    pairs = [_paired(left[split], right[split]) for split in common]
    if len(pairs) == 1:
        return paired_difference(*pairs[0], left[common[0]]["groups"])
    ours, theirs = (np.array([srcc(pair[side], pair[2]) for pair in pairs]) for side in (0, 1))
    low, high = interval_over_splits((theirs - ours).tolist(), a["test_share"])
    return difference_of("srcc", (float(ours.mean()), float(theirs.mean())), (low, high))


def _runs(found: dict[str, Any], target: str, head: str) -> dict[int, dict[str, Any]]:
    """Return split -> run, of one target and head."""
    return {run["split"]: run for run in found["runs"] if (run["target"], run["head"]) == (target, head)}


def _paired(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[float], list[float], list[float]]:
    """Return the predictions of A and B for the images of A's test part, and their ratings."""
    if sorted(a["names"]) != sorted(b["names"]):
        raise DataError(
            f"Expected two results with the same test images, got others in split {a['split']}: "
            "run both benchmarks on the same data and splits."
        )
    other = dict(zip(b["names"], zip(b["predictions"], b["mos"], strict=True), strict=True))
    found = [other[name] for name in a["names"]]
    if not np.allclose([mos for _, mos in found], a["mos"]):
        raise DataError(
            f"Expected two results with the same ratings, got others in split {a['split']}: "
            "run both benchmarks on the same labels."
        )
    return a["predictions"], [q for q, _ in found], a["mos"]
