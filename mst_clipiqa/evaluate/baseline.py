"""A baseline that sees no image: the mean score of the image's generator."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.measures import Floats


def generator_mean(
    train_mos: ArrayLike, train_generators: Sequence[Hashable], test_generators: Sequence[Hashable]
) -> Floats:
    """Return the mean training score of each test image's generator.

    A model that does not beat this baseline tells images apart no better than the names of their generators do.

    Args:
        train_mos: ratings of the training images, float (n,).
        train_generators: their generators (n,), with settings if the set has them.
        test_generators: generators of the test images (m,); an unknown one gets the overall mean.

    Returns:
        float (m,).

    Raises:
        DataError: there are no training images, or not exactly one generator for each.
    """
    scores = np.asarray(train_mos, dtype=np.float64)
    if not scores.size or scores.shape != (len(train_generators),):
        raise DataError(
            f"Expected one generator per training image, got {scores.size} ratings and "
            f"{len(train_generators)} generators."
        )
    by_generator: dict[Hashable, list[float]] = {}
    for generator, score in zip(train_generators, scores, strict=True):
        by_generator.setdefault(generator, []).append(float(score))
    means = {generator: float(np.mean(values)) for generator, values in by_generator.items()}
    overall = float(scores.mean())
    return np.array([means.get(generator, overall) for generator in test_generators], dtype=np.float64)
