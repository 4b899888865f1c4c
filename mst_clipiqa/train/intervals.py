"""What a model knows of its own errors: familiarity, and intervals from images that chose nothing.

Two kinds of images calibrate the intervals: new prompts of the training's generators, and each generator in turn,
scored by a model that was trained without it. The encoders are frozen, so such a training costs little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mst_clipiqa.data import Record, TrainingPart
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import HeldOut, Reference, Widening, fit_widening, make_reference
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head
from mst_clipiqa.train.features import RatedFeatures
from mst_clipiqa.train.fit import Fitted, fit, predict
from mst_clipiqa.train.recipe import Recipe

_FEWEST_LEFT_OUT = 20  # images that a generator needs to be left out, and calibration to be possible
Features = Callable[[Sequence[Record]], RatedFeatures]


@dataclass(frozen=True)
class CalibrationData:
    """The records of a training by what they did.

    Attributes:
        known: trained on, and selected the epoch.
        held_out: new prompts that chose nothing.
        features_of: gives those of some records, with ratings on the head's scale 1..5.
    """

    known: TrainingPart
    held_out: Sequence[Record]
    features_of: Features


def halve_validation(validation: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the records that select the epoch and those that calibrate: every other prompt, in order of appearance.

    With fewer than four prompts all of them select, and nothing is left to calibrate on.
    """
    groups = list(dict.fromkeys(record.group for record in validation))
    held = set(groups[1::2]) if len(groups) >= 4 else set()
    return [r for r in validation if r.group not in held], [r for r in validation if r.group in held]


def calibrated_reference(data: CalibrationData) -> Reference | None:
    """Return the calibrated reference of the training images; None with too few held-out images."""
    if len(data.held_out) < _FEWEST_LEFT_OUT:
        return None
    made = make_reference(*_arrays(data.features_of(data.known.train)), [r.generator for r in data.known.train])
    return made.calibrated(made.distance(*_arrays(data.features_of(data.held_out))))


def calibrated_widening(
    data: CalibrationData, fitted: Fitted, reference: Reference | None, head: Head, recipe: Recipe | None
) -> Widening | None:
    """Return the intervals of a fitted model, on the head's scale 1..5; None with too few held-out prompts.

    The images that selected the epoch also choose the growth; those held out choose nothing.

    Args:
        data: what calibrates.
        fitted: the model.
        reference: of its training images; None keeps the intervals equally wide.
        head: its kind.
        recipe: for a training without each generator; None leaves none out.
    """
    if not data.held_out:
        return None
    known = _held_out(fitted, data.features_of(data.held_out), data.held_out, reference)
    counts = Counter(r.generator for r in data.known.train if r.generator)
    names = sorted(name for name, n in counts.items() if n >= _FEWEST_LEFT_OUT) if recipe and reference else []
    left_out = []
    for name in names if len(names) > 2 else []:  # of two generators, leaving one out leaves none to tell apart
        part = recipe and _without(name, data, fitted, head, recipe)
        if part:
            left_out.append(part)
    selecting = data.known.validation
    choosing = _held_out(fitted, data.features_of(selecting), selecting, reference) if selecting else None
    return fit_widening(known, left_out, choosing=choosing)


def _without(name: str, data: CalibrationData, fitted: Fitted, head: Head, recipe: Recipe) -> HeldOut | None:
    """Return the images of one generator as a model sees them that was trained without it; None if too few are left."""

    def others(records: Sequence[Record]) -> list[Record]:
        return [record for record in records if record.generator != name]

    train, selecting, held = others(data.known.train), others(data.known.validation), others(data.held_out)
    out = [r for r in (*data.known.train, *data.known.validation, *data.held_out) if r.generator == name]
    rest = CalibrationData(TrainingPart(tuple(train), tuple(selecting), data.known.protocol), held, data.features_of)
    try:
        reference = calibrated_reference(rest)
    except DataError:
        return None
    if reference is None or len(train) < 2 or len(selecting) < 2:
        return None
    again = replace(recipe, learning_rates=(fitted.best.learning_rate,))
    model = fit(data.features_of(train), data.features_of(selecting), head, again)
    return _held_out(model, data.features_of(out), out, reference)


def clipped_scores(model: MSTCLIPIQA, part: RatedFeatures) -> Tensor:
    """Return the scores that ``score`` gives, float32 (images,): predictions, cut off at the ends of 1..5."""
    return predict(model, part).clamp(1, 5)


def _held_out(fitted: Fitted, part: RatedFeatures, records: Sequence[Record], reference: Reference | None) -> HeldOut:
    excess = np.zeros(len(part)) if reference is None else reference.excess(reference.distance(*_arrays(part)))
    residuals = (clipped_scores(fitted.model, part) - part.y).numpy()
    return HeldOut(residuals, excess, [record.group for record in records])


def _arrays(part: RatedFeatures) -> tuple[np.ndarray, np.ndarray]:
    return part.f_c.numpy(), part.f_f.numpy()
