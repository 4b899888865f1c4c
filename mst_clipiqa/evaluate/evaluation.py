"""Predictions and scores -> everything that is reported about them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.conformal import interval_coverage
from mst_clipiqa.evaluate.measures import Agreement, agreement, paired
from mst_clipiqa.evaluate.pairs import PairAccuracy, pair_accuracy
from mst_clipiqa.evaluate.resampling import DEFAULT, Interval, Resampling, bootstrap

MEASURES = ("srcc", "plcc", "krcc", "rmse")


@dataclass(frozen=True)
class Extras:
    """What is reported beyond agreement.

    Args:
        tables: name -> a label for every image ("generator", "style"): agreement within each label.
        band: lower and upper end of every image's interval; its measured coverage is reported.
        pair_threshold: the least difference of scores that two images of a prompt are compared at.
    """

    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    band: tuple[ArrayLike, ArrayLike] | None = None
    pair_threshold: float = 0.0


NONE = Extras()


@dataclass(frozen=True)
class Part:
    """One line of a table: the images with one label, their mean score and prediction, and the agreement."""

    label: str
    mean_mos: float
    mean_prediction: float
    agreement: Agreement


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one set of predictions.

    `intervals` holds srcc, plcc, krcc and rmse, each resampled by prompt group; `pairs` and `coverage` are None
    where prompt groups or a band were not given.
    """

    agreement: Agreement
    intervals: dict[str, Interval]
    groups: int
    tables: dict[str, tuple[Part, ...]]
    pairs: PairAccuracy | None
    coverage: float | None

    def to_json(self) -> dict[str, object]:
        """Return plain dictionaries and lists; what is undefined becomes None, which JSON can hold."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def evaluate(
    predictions: ArrayLike,
    mos: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    extras: Extras = NONE,
    how: Resampling = DEFAULT,
) -> Evaluation:
    """Measure predictions against mean opinion scores.

    Args:
        predictions: float (n,), in the units of the scores.
        mos: float (n,).
        groups: the prompt group of every image (n,); None where unknown, which makes intervals too narrow if
            images do share prompts.
        extras: tables, intervals of the predictions, threshold of the pairs.
        how: level, resamples and seed of the intervals.

    Raises:
        DataError: different lengths, no images, or values that are not finite.

    Example:
        >>> evaluate([1.0, 2.0, 3.0], [1.1, 1.9, 3.2], groups=["a", "a", "b"]).agreement.srcc
        1.0
    """
    x, y = paired(predictions, mos)
    if not x.size:
        raise DataError("expected predictions to evaluate, got none")
    intervals = {measure: bootstrap(x, y, groups, measure, how) for measure in MEASURES}
    band = extras.band
    return Evaluation(
        agreement=agreement(x, y),
        intervals=intervals,
        groups=intervals["srcc"].groups,
        tables={name: table(x, y, labels) for name, labels in extras.tables.items()},
        pairs=None if groups is None else pair_accuracy(x, y, groups, extras.pair_threshold, how),
        coverage=None if band is None else interval_coverage(y, band[0], band[1]),
    )


def table(predictions: ArrayLike, mos: ArrayLike, labels: Sequence[str]) -> tuple[Part, ...]:
    """Return the agreement within each label, sorted by label.

    Raises:
        DataError: not one label for each image.
    """
    x, y = paired(predictions, mos)
    if len(labels) != len(x):
        raise DataError(f"expected a label for each of {len(x)} images, got {len(labels)}")
    array = np.array([str(label) for label in labels])
    parts = []
    for label in sorted(set(array.tolist())):
        inside = array == label
        within = agreement(x[inside], y[inside])
        parts.append(Part(label, float(y[inside].mean()), float(x[inside].mean()), within))
    return tuple(parts)


def _plain(value: object) -> object:
    """Make a value JSON: tuples to lists, numbers that JSON cannot write to None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
