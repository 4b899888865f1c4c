"""The training and validation parts of a rated set in; a fitted and calibrated model out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mst_clipiqa.data import Record, TrainingPart
from mst_clipiqa.evaluate import Reference, Widening
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import Bar
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.fit import Fitted, fit
from mst_clipiqa.train.intervals import CalibrationData, calibrated_reference, calibrated_widening, halve_validation
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.joining import CHECKPOINT
from mst_clipiqa.train.preferences import pair_features, put_on_scale


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


def learn(
    parts: TrainingPart,
    job: TrainingJob,
    encoder: ImageEncoder,
    bar: Bar,
    *,
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
        DataError: an image cannot be read or lacks a prompt, or the text encoder reads too few of the prompts.
        UsageError: as for ``fit``.
    """
    records = [*parts.train, *parts.validation]
    with bar("Encoding", len(records)) as advance:
        table = encode_records(encoder, records, prompts=job.head == "prompt", progress=advance)
    parts, unread = _read(parts, table, job.head)
    selecting, held_out = halve_validation(parts.validation)

    def features(some: Sequence[Record]) -> RatedFeatures:
        return rated_features(table, some, job.target, job.head, job.scale)

    def with_pairs(some: Sequence[Record]) -> RatedFeatures:
        pairs = pair_features(table, job.pairs(some), job.head) if job.preferences else None
        return replace(features(job.rated_only(some)), pairs=pairs)

    training, validation = with_pairs(parts.train), with_pairs(selecting)
    start = time.perf_counter()
    fitted = _fitted(training, validation, job, bar, log)
    seconds = time.perf_counter() - start
    data = CalibrationData(replace(parts, validation=tuple(selecting)), held_out, features)
    reference = reference or calibrated_reference(data)
    return Learnt(fitted, reference, _native_widening(data, fitted, reference, job), seconds, unread)


def _fitted(
    training: RatedFeatures, validation: RatedFeatures, job: TrainingJob, bar: Bar, log: Callable[[Epoch], None]
) -> Fitted:
    total = job.recipe.epochs * len(job.recipe.learning_rates)
    with bar("Training", total) as advance:

        def report(epoch: Epoch) -> None:
            advance(1)
            log(epoch)

        fitted = fit(training, validation, job.head, job.recipe, checkpoint=job.out / CHECKPOINT, report=report)
    if training.pairs is not None and not job.has_ratings:
        put_on_scale(fitted.model, training.pairs)
    return fitted


def _native_widening(
    data: CalibrationData, fitted: Fitted, reference: Reference | None, job: TrainingJob
) -> Widening | None:
    """Return the intervals in native units; images that are in pairs only have no ratings to measure them on."""
    train, validation = (tuple(job.rated_only(some)) for some in (data.known.train, data.known.validation))
    known = replace(data.known, train=train, validation=validation)
    rated = replace(data, known=known, held_out=job.rated_only(data.held_out))
    alone = job.recipe if job.leave_out and not job.preferences else None
    found, (low, high) = calibrated_widening(rated, fitted, reference, job.head, alone), job.scale
    return found and Widening(found.interval * (high - low) / 4, found.growth)


def _read(parts: TrainingPart, table: FeatureTable, head: str) -> tuple[TrainingPart, int]:
    """Return the parts without the images that a head does not score, and how many these are."""
    train, validation = table.scored_parts(parts.train, parts.validation, head)
    unread = len(parts.train) + len(parts.validation) - len(train) - len(validation)
    return TrainingPart(train, validation, parts.protocol), unread
