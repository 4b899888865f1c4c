"""Predictions and ratings -> everything that is reported about them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.agreements import Agreement, agreement
from mst_clipiqa.evaluate.conformal import interval_coverage
from mst_clipiqa.evaluate.measures import paired
from mst_clipiqa.evaluate.pairs import PairAccuracy, pair_accuracy
from mst_clipiqa.evaluate.resampling import DEFAULT, Interval, Resampling, bootstrap

MEASURES = ("srcc", "plcc", "krcc", "rmse")


@dataclass(frozen=True)
class Extras:
    """What to report besides agreement.

    Attributes:
        tables: name ("generator", "style") -> a label per image; agreement is reported within each label.
        band: lower and upper ends of the images' intervals; their measured coverage is reported.
        pair_threshold: two images of a prompt are compared if their ratings differ by more than this.
    """

    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    band: tuple[ArrayLike, ArrayLike] | None = None
    pair_threshold: float = 0.0


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class LabelAgreement:
    """One row of a table: the images with one label, their mean rating and prediction, and the agreement."""

    label: str
    mean_mos: float
    mean_prediction: float
    agreement: Agreement


@dataclass(frozen=True)
class Evaluation:
    """The results for one set of predictions.

    Attributes:
        agreement: all measures.
        intervals: measure (srcc, plcc, krcc, rmse) -> its interval over resampled prompt groups.
        groups: the number of prompt groups.
        tables: name -> agreement within each label.
        pairs: accuracy on pairs of images of one prompt; None if no prompt groups were given.
        coverage: share of ratings inside the band; None if no band was given.
    """

    agreement: Agreement
    intervals: dict[str, Interval]
    groups: int
    tables: dict[str, tuple[LabelAgreement, ...]]
    pairs: PairAccuracy | None
    coverage: float | None

    def to_json(self) -> dict[str, object]:
        """Return plain dictionaries and lists; undefined values become None."""
        return {key: json_ready(value) for key, value in asdict(self).items()}


def evaluate(
    predictions: ArrayLike,
    mos: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    extras: Extras = NO_EXTRAS,
    resampling: Resampling = DEFAULT,
) -> Evaluation:
    """Measure predictions against mean opinion scores.

    Args:
        predictions: float (n,), in the units of the ratings.
        mos: float (n,).
        groups: the prompt group of each image (n,), or None if unknown; the intervals are then too narrow if
            images share prompts.
        extras: tables, intervals of the predictions, threshold for pairs.
        resampling: level, resamples and seed of the intervals.

    Raises:
        DataError: the lengths differ, there are no images, or a value is not finite.

    Example:
        >>> evaluate([1.0, 2.0, 3.0], [1.1, 1.9, 3.2], groups=["a", "a", "b"]).agreement.srcc
        1.0
    """
    x, y = paired(predictions, mos)
    if not x.size:
        raise DataError("Expected predictions to evaluate, got none.")
    intervals = {measure: bootstrap(x, y, groups, measure, resampling) for measure in MEASURES}
    band = extras.band
    return Evaluation(
        agreement=agreement(x, y),
        intervals=intervals,
        groups=intervals["srcc"].groups,
        tables={name: table(x, y, labels) for name, labels in extras.tables.items()},
        pairs=None if groups is None else pair_accuracy(x, y, groups, extras.pair_threshold, resampling),
        coverage=None if band is None else interval_coverage(y, band[0], band[1]),
    )


def table(predictions: ArrayLike, mos: ArrayLike, labels: Sequence[str]) -> tuple[LabelAgreement, ...]:
    """Return the agreement within each label, sorted by label.

    Raises:
        DataError: the number of labels is not the number of images.
    """
    x, y = paired(predictions, mos)
    if len(labels) != len(x):
        raise DataError(f"Expected one label for each of {len(x)} images, got {len(labels)}.")
    array = np.array([str(label) for label in labels])
    parts = []
    for label in sorted(set(array.tolist())):
        inside = array == label
        within = agreement(x[inside], y[inside])
        parts.append(LabelAgreement(label, float(y[inside].mean()), float(x[inside].mean()), within))
    return tuple(parts)


def json_ready(value: Any) -> Any:
    """Return a value that JSON can hold: tuples become lists, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
