"""Scores of rated images -> how well they agree with the ratings, beside a baseline that sees no image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from numpy.typing import ArrayLike

from mst_clipiqa.data import Record
from mst_clipiqa.evaluate import Evaluation, Extras, evaluate, generator_mean, srcc


def evaluate_records(
    scores: ArrayLike, records: Sequence[Record], target: str, band: tuple[ArrayLike, ArrayLike] | None = None
) -> Evaluation:
    """Measure scores of a target against its ratings, over prompt groups, and within each generator and style.

    Args:
        scores: of each record, float (n,), in the units of the ratings.
        records: images that have a rating of the target, at least one.
        target: the name of the score.
        band: lower and upper ends of each image's interval, float (n,) each, if there are intervals.

    Raises:
        DataError: there are no records, or a score is not finite.
    """
    mos = [record.targets[target] for record in records]
    labels = {"generator": [record.generator for record in records], "style": [record.style for record in records]}
    tables = {name: some for name, some in labels.items() if any(some)}
    return evaluate(scores, mos, [record.group for record in records], Extras(tables, band))


def baseline_srcc(learnt: Iterable[Record], test: Sequence[Record], target: str) -> float:
    """Return the SRCC on ``test``, -1..1, of the mean rating that an image's generator and setting have in ``learnt``.

    All records have a rating of the target. NaN if undefined, as with a single generator.

    Raises:
        DataError: ``learnt`` is empty.
    """
    rated = [(record.targets[target], record.setting) for record in learnt]
    means = generator_mean([mos for mos, _ in rated], [by for _, by in rated], [record.setting for record in test])
    return srcc(means, [record.targets[target] for record in test])
