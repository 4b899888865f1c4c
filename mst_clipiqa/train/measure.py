"""How well a saved model does on the test part, which nothing before has seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mst_clipiqa.data import Record
from mst_clipiqa.evaluate import Evaluation, PairAccuracy, Widening, preference_accuracy, rmse
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import Bar
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, to_native
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.train.agreement import baseline_srcc, evaluate_records
from mst_clipiqa.train.contamination import Contamination, contamination, seen_by
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.intervals import clipped_scores
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.preferences import all_differences, pair_features


@dataclass(frozen=True)
class TrainingResult:
    """How well the saved model does on the test part.

    Attributes:
        evaluation: all measures; None if no rated image was scored.
        baseline_srcc: SRCC of the generator's mean on the same images; NaN if there are none.
        mean_rmse: RMSE of the mean rating of the other parts on the same images; NaN if there are none.
        contamination: how much of the test part had been seen before.
        predictions: scores of the rated images in native units.
        preferences: share of the test pairs that are ordered right; None without pairs.
        lacks: what the validation part was too small for: "intervals", "familiarity".
        unread: how many images were left out, because the text encoder does not read their prompts.
    """

    evaluation: Evaluation | None
    baseline_srcc: float
    contamination: Contamination
    predictions: tuple[float, ...]
    preferences: PairAccuracy | None = None
    lacks: tuple[str, ...] = ()
    unread: int = 0
    mean_rmse: float = math.nan


def measure(model: TrainedModel, job: TrainingJob, encoder: ImageEncoder, bar: Bar) -> TrainingResult:
    """Score the test part with a saved model, and report how much of it had been seen before.

    Raises:
        DataError: an image cannot be read, or lacks a prompt that the head needs.
        ModelError: the record of the model's training is missing.
    """
    everything, (low, high) = job.usable.test, job.scale
    if not everything:
        return TrainingResult(None, math.nan, contamination((), {}), ())
    with bar("Testing", len(everything)) as advance:
        table = encode_records(encoder, everything, prompts=job.head == "prompt", progress=advance)
    seen = contamination(everything, seen_by(model))
    scored = table.scored(everything, job.head)
    unread = len(everything) - len(scored)
    preferences = _preferred(model.parts[job.target], table, job, scored) if job.preferences else None
    test = job.rated_only(scored)
    if not test:
        return TrainingResult(None, math.nan, seen, (), preferences, unread=unread)
    part = rated_features(table, test, job.target, job.head, (low, high))
    q = to_native(clipped_scores(model.parts[job.target], part), low, high).numpy()
    has = {"intervals": model.config.targets[job.target].interval is not None, "familiarity": bool(model.reference)}
    mos = [record.targets[job.target] for record in test]
    learnt_from = job.rated_only([*job.split.train, *job.split.validation])
    return TrainingResult(
        evaluate_records(q, test, job.target, _band(model, job.target, part, q)),
        baseline_srcc(learnt_from, test, job.target),
        seen,
        tuple(float(value) for value in q),
        preferences,
        tuple(name for name, there in has.items() if not there),
        unread,
        rmse(np.full(len(mos), np.mean([r.targets[job.target] for r in learnt_from])), mos),
    )


def _preferred(
    part: MSTCLIPIQA, table: FeatureTable, job: TrainingJob, scored: Sequence[Record]
) -> PairAccuracy | None:
    """Return how often the preferred image of a pair of these has the higher score; None if there is no pair."""
    pairs = job.pairs(scored)
    if not pairs:
        return None
    found = all_differences(part, pair_features(table, pairs, job.head))
    return preference_accuracy(found.numpy(), [pair.preferred for pair in pairs], [pair.a.group for pair in pairs])


def _band(model: TrainedModel, name: str, part: RatedFeatures, q: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return both ends of the 90 % interval of each image, native units; None if the model is not calibrated."""
    target, reference = model.config.targets[name], model.reference
    if target.interval is None:
        return None
    f = part.f_c.numpy(), part.f_f.numpy()
    excess = np.zeros(len(q)) if reference is None else reference.excess(reference.distance(*f))
    half = Widening(target.interval, target.growth).halfwidth(excess)
    return q - half, q + half
