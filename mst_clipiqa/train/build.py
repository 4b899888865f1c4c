"""A rated set, or pairs with preferences, in; a model folder out: what ``mst-clipiqa train`` does.

The test part is set aside first. A model is trained on the features of the other parts and saved. Only then is the
test part encoded, so that the card can state how well the saved model does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mst_clipiqa.data import PreferenceSet, Record, TrainingPart
from mst_clipiqa.evaluate import (
    Evaluation,
    PairAccuracy,
    Reference,
    Widening,
    preference_accuracy,
    rmse,
)
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import Bar
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, to_native
from mst_clipiqa.model_folder import Target, TrainedModel, save
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.train.agreement import baseline_srcc, evaluate_records
from mst_clipiqa.train.calibrate import Calibrating, describe, halves, scores, widen
from mst_clipiqa.train.card import card
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.contamination import Contamination, contamination, seen_by
from mst_clipiqa.train.curves import draw_history
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.fit import Fitted, fit
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.joining import CHECKPOINT, SPLIT_FILE, config_of, finish, joined, make_way, older_model
from mst_clipiqa.train.preferences import all_differences, pair_features, put_on_scale
from mst_clipiqa.train.training_file import read_training, write_training


@dataclass(frozen=True)
class Learnt:
    """A fitted model.

    Attributes:
        fitted: the model and its history.
        reference: of the features that it was trained on; None if the validation part is too small.
        widening: its 90 % intervals in native units; None if the validation part is too small.
        seconds: how long training took.
        unread: how many images were left out, because the text encoder does not read their prompts.
    """

    fitted: Fitted
    reference: Reference | None
    widening: Widening | None
    seconds: float
    unread: int = 0


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


def build(
    job: TrainingJob,
    encoder: ImageEncoder,
    bar: Bar,
    log: Callable[[Epoch], None] = lambda epoch: None,
    kept: Callable[[Path], None] = lambda place: None,
) -> TrainingResult | None:
    """Train, save the model folder, then evaluate on the test part and write the card.

    Args:
        job: what to train.
        encoder: the frozen pair.
        bar: opens a progress bar: ``bar(label, total)``.
        log: called after each epoch.
        kept: called with the place of each card that somebody had edited, also while the training ran.

    Returns:
        The result; None if the split has no test part.

    Raises:
        UsageError: the folder holds files that are not those of a model, or another split; or another process saves a
            model there meanwhile.
        DataError: too few images have a rating of the target.
        ModelError: a file of the folder is damaged, or its model has other encoders.
    """
    if not job.preferences:
        job.split.check_rated(job.target, "train", "validation")
    elif job.has_ratings:  # pairs can select the epoch, but only ratings give the scale
        job.split.check_rated(job.target, "train")
    older, config = older_model(job, encoder), config_of(job.out)
    job.out.mkdir(parents=True, exist_ok=True)
    reference = older.reference if older else None  # the intervals of the other targets depend on it
    learnt = learn(job.usable.for_training(), job, encoder, bar, reference, log=log)
    make_way(job, config, kept)
    saved = joined(job, encoder, older, (_target(job, learnt), learnt.fitted.model, learnt.reference))
    others = {name: entry for name, entry in read_training(job.out).items() if older and name != job.target}
    save(saved, job.out, card(saved.config, job.split.protocol, others))
    job.split.save(job.out / SPLIT_FILE)
    result = measure(saved, job, encoder, bar) if job.split.test else None
    write_training(job.out, job.target, _entry(job, encoder, learnt, result))
    write_atomically(job.out / f"{job.target}.png", draw_history(learnt.fitted.history, job.target))
    finish(job, saved, card(saved.config, job.split.protocol, read_training(job.out)), kept)
    return result


def learn(
    parts: TrainingPart,
    job: TrainingJob,
    encoder: ImageEncoder,
    bar: Bar,
    reference: Reference | None = None,
    log: Callable[[Epoch], None] = lambda epoch: None,
) -> Learnt:
    """Encode the training and validation parts, fit and calibrate; the test part cannot be reached from here.

    Half of the validation prompts select the epoch. The other half choose nothing: they calibrate. Images whose prompt
    the text encoder does not read get no score, so they are left out.

    Args:
        parts: training and validation.
        job: what to train.
        encoder: the frozen pair.
        bar: opens a progress bar.
        reference: of the folder's other targets; None makes one from the training part.
        log: called after each epoch.

    Raises:
        DataError: the text encoder reads too few of the prompts.
    """
    records = [*parts.train, *parts.validation]
    with bar("Encoding", len(records)) as advance:
        table = encode_records(encoder, records, prompts=job.head == "prompt", progress=advance)
    low, high = job.scale
    parts, unread = _read(parts, table, job.head)
    selecting, held = halves(parts.validation)

    def features(some: Sequence[Record]) -> RatedFeatures:
        return rated_features(table, some, job.target, job.head, (low, high))

    def with_pairs(some: Sequence[Record]) -> RatedFeatures:
        pairs = pair_features(table, job.pairs(some), job.head) if job.preferences else None
        return replace(features(job.rated_only(some)), pairs=pairs)

    training, validation = with_pairs(parts.train), with_pairs(selecting)
    start = time.perf_counter()
    total = job.recipe.epochs * len(job.recipe.learning_rates)
    with bar("Training", total) as advance:

        def report(epoch: Epoch) -> None:
            advance(1)
            log(epoch)

        fitted = fit(training, validation, job.head, job.recipe, checkpoint=job.out / CHECKPOINT, report=report)
    if training.pairs is not None and not job.has_ratings:
        put_on_scale(fitted.model, training.pairs)
    seconds = time.perf_counter() - start
    data = Calibrating(TrainingPart(parts.train, tuple(selecting), parts.protocol), held, features)
    reference = reference or describe(data)
    if job.preferences:
        known = TrainingPart(tuple(job.rated_only(parts.train)), tuple(job.rated_only(selecting)), parts.protocol)
        data = Calibrating(known, job.rated_only(held), features)
    alone = job.recipe if job.leave_out and not job.preferences else None
    widening = widen(data, fitted, reference, job.head, alone)
    native = widening and Widening(widening.interval * (high - low) / 4, widening.growth)
    return Learnt(fitted, reference, native, seconds, unread)


def _read(parts: TrainingPart, table: FeatureTable, head: str) -> tuple[TrainingPart, int]:
    """Return the parts without the images that a head does not score, and how many these are."""
    train, validation = table.scored_parts(parts.train, parts.validation, head)
    unread = len(parts.train) + len(parts.validation) - len(train) - len(validation)
    return TrainingPart(train, validation, parts.protocol), unread


def measure(model: TrainedModel, job: TrainingJob, encoder: ImageEncoder, bar: Bar) -> TrainingResult:
    """Score the test part with a saved model, and report how much of it had been seen before."""
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
    q = to_native(scores(model.parts[job.target], part), low, high).numpy()
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


def _target(job: TrainingJob, learnt: Learnt) -> Target:
    """Return the new target as config.json has it."""
    wide = learnt.widening
    interval, growth = (wide.interval, wide.growth) if wide else (None, 0.0)
    return Target(job.head, *job.scale, interval, calibrated=job.has_ratings, growth=growth)


def _entry(job: TrainingJob, encoder: ImageEncoder, learnt: Learnt, result: TrainingResult | None) -> dict[str, Any]:
    """Return this training's entry in ``training.json``."""
    return {
        "data": job.rated.name,
        "licence": job.rated.licence,
        "citation": job.rated.citation,
        "protocol": job.split.protocol,
        "leakage": job.usable.leakage,
        "images": {part: len(names) for part, names in job.split.names().items()},
        "rated": {part: len(names) for part, names in job.split.rated(job.target).names().items()},
        "unread": learnt.unread + (result.unread if result else 0),
        "head": job.head,
        "recipe": asdict(job.recipe),
        "precision": encoder.encoders.precision,
        "threads": torch.get_num_threads(),
        "seconds": round(learnt.seconds, 1),
        "best": asdict(learnt.fitted.best),
        "widening": learnt.widening and asdict(learnt.widening),
        "history": [asdict(line) for line in learnt.fitted.history],
        "preferences": job.preferences and _pairs_json(job, job.preferences),
        "test": None if result is None else _result_json(result),
    }


def _pairs_json(job: TrainingJob, preferences: PreferenceSet) -> dict[str, Any]:
    parts = {"train": job.split.train, "validation": job.split.validation, "test": job.split.test}
    return {"data": preferences.images.name, **{name: len(job.pairs(part)) for name, part in parts.items()}}


def _result_json(result: TrainingResult) -> dict[str, Any]:
    return {
        **(result.evaluation.to_json() if result.evaluation else {}),
        "baseline_srcc": result.baseline_srcc,
        "preferences": result.preferences and asdict(result.preferences),
        "contamination": asdict(result.contamination) | {"label": result.contamination.label},
    }
