"""Is B better than A? Two benchmark results, split by split.

Each split trains a model of its own, whose scores cannot be pooled with another's. SRCC is therefore computed within
each split's test part, and the differences are averaged over the splits. If all splits share the test images, because
another set is tested on or there is one split, the interval is over the prompts of these images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mst_clipiqa.benchmark.over_prompts import unit_of
from mst_clipiqa.benchmark.results import interval_over_splits
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import Difference, difference_of, srcc
from mst_clipiqa.evaluate.comparison import difference_over_prompts

_SAME = ("data", "tested_on", "split_by", "test_share")  # of two results that can be compared


def compare_results(a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]) -> Difference:
    """Return how much better B ranks the test images than A: the mean difference in SRCC over the common splits.

    The 95 % interval is over splits, corrected for their overlap. If all splits share the test images, it is over
    prompts, for the models that were trained.

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
    left, right = _common(a, b, target, heads)
    if not left:
        raise DataError("Expected two results with splits in common, got none: run both with the same splits.")
    if _share_images(left):
        first = left[0]
        ours, theirs = ([_paired(first, run)[1] for run in side] for side in (left, right))
        return difference_over_prompts(ours, theirs, first["mos"], first["groups"])
    pairs = [_paired(*runs) for runs in zip(left, right, strict=True)]
    before, after = (np.array([srcc(pair[side], pair[2]) for pair in pairs]) for side in (0, 1))
    low, high = interval_over_splits((after - before).tolist(), a["test_share"][target], (-2.0, 2.0))
    return difference_of("srcc", (float(before.mean()), float(after.mean())), (low, high))


def interval_over(a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]) -> str:
    """Return what the interval of ``compare_results`` is over: "splits", "prompts", or "images" if none has a prompt.

    Args:
        a, b, target, heads: as for ``compare_results``, which does not refuse them.
    """
    left, _ = _common(a, b, target, heads)
    return unit_of(left[0]["names"], left[0]["groups"]) if _share_images(left) else "splits"


def splits_compared(a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]) -> tuple[int, int]:
    """Return how many splits ``compare_results`` compares, and how many only one of the results has."""
    left, right = _by_split(a, b, target, heads)
    return len(left.keys() & right.keys()), len(left.keys() ^ right.keys())


def _common(
    a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the runs of A and those of B, for the splits that both have, in the same order."""
    left, right = _by_split(a, b, target, heads)
    common = sorted(left.keys() & right.keys())
    return [left[split] for split in common], [right[split] for split in common]


def _by_split(
    a: dict[str, Any], b: dict[str, Any], target: str, heads: tuple[str, str]
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Return the runs of A and those of B by the number of their split."""
    left, right = (
        {run["split"]: run for run in found["runs"] if (run["target"], run["head"]) == (target, head)}
        for found, head in zip((a, b), heads, strict=True)
    )
    return left, right


def _share_images(runs: list[dict[str, Any]]) -> bool:
    """Return whether all splits are tested on the same images."""
    return all(set(run["names"]) == set(runs[0]["names"]) for run in runs)


def _paired(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[float], list[float], list[float]]:
    """Return the predictions of A and B for the images of A's test part, and their ratings."""
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
