"""A rated set in, a model folder out: what ``mst-clipiqa train`` does.

The test part is set aside first. A model is trained on the features of the other parts and saved. Only then is the
test part encoded, so that the card can state how well the saved model does.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.data import RatedSet, Split, TrainingPart
from mst_clipiqa.errors import ModelError, UsageError, nearest
from mst_clipiqa.evaluate import Evaluation, Extras, conformal_halfwidth, evaluate, generator_mean, srcc
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import Bar
from mst_clipiqa.model.mst_clipiqa import Head, to_native
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, TrainedOn, load, save, write_card
from mst_clipiqa.train.card import card
from mst_clipiqa.train.contamination import Contamination, contamination, seen_by, trained_on
from mst_clipiqa.train.curves import draw_history
from mst_clipiqa.train.features import encode_records, rated_features
from mst_clipiqa.train.fit import Epoch, Fitted, Recipe, fit, predict

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainingJob:
    """What to train.

    Attributes:
        rated: the rated set.
        split: its training, validation and test parts.
        target: the target to predict.
        head: "template" or "prompt".
        recipe: how to train.
        out: the model folder.
    """

    rated: RatedSet
    split: Split
    target: str
    head: Head
    recipe: Recipe
    out: Path

    @property
    def scale(self) -> tuple[float, float]:
        """Return the native range of the target; UsageError if the set has no such target."""
        if self.target not in self.rated.ranges:
            known = ", ".join(self.rated.ranges)
            hint = nearest(self.target, self.rated.ranges)
            raise UsageError(f"Expected a target of {self.rated.name} ({known}), got {self.target!r}{hint}.")
        return self.rated.ranges[self.target]


@dataclass(frozen=True)
class Learnt:
    """A fitted model.

    Attributes:
        fitted: the model and its history.
        interval: half-width of its 90 % interval in native units; None if the validation part is too small.
        seconds: how long training took.
    """

    fitted: Fitted
    interval: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """How well the saved model does on the test part.

    Attributes:
        evaluation: all measures.
        baseline_srcc: SRCC of the generator's mean on the same images.
        contamination: how much of the test part had been seen before.
        predictions: scores in native units.
    """

    evaluation: Evaluation
    baseline_srcc: float
    contamination: Contamination
    predictions: tuple[float, ...]


def build(job: TrainingJob, encoder: ImageEncoder, bar: Bar) -> TrainingResult | None:
    """Train, save the model folder, then evaluate on the test part and write the card.

    Args:
        job: what to train.
        encoder: the frozen pair.
        bar: opens a progress bar: ``bar(label, total)``.

    Returns:
        The result; None if the split has no test part.
    """
    scale = job.scale
    job.out.mkdir(parents=True, exist_ok=True)
    older = _older(job, encoder)
    learnt = learn(job.split.for_training(), job, encoder, bar)
    saved = _trained(job, encoder, learnt, scale, older)
    save(saved, job.out, card(saved.config, job.split.protocol, {}))
    job.split.save(job.out / "split.json")
    result = measure(saved, job, encoder, bar) if job.split.test else None
    _write_training(job, learnt, result)
    write_card(job.out, card(saved.config, job.split.protocol, _read_training(job.out)))
    (job.out / CHECKPOINT).unlink(missing_ok=True)
    return result


def learn(parts: TrainingPart, job: TrainingJob, encoder: ImageEncoder, bar: Bar) -> Learnt:
    """Encode the training and validation parts and fit; the test part cannot be reached from here."""
    records = [*parts.train, *parts.validation]
    with bar("Encoding", len(records)) as advance:
        table = encode_records(encoder, records, prompts=job.head == "prompt", progress=advance)
    low, high = job.scale
    training, validation = (
        rated_features(table, p, job.target, job.head, (low, high)) for p in (parts.train, parts.validation)
    )
    start = time.perf_counter()
    total = job.recipe.epochs * len(job.recipe.learning_rates)
    with bar("Training", total) as advance:

        def report(_: Epoch) -> None:
            advance(1)

        fitted = fit(training, validation, job.head, job.recipe, checkpoint=job.out / CHECKPOINT, report=report)
    residuals = to_native(predict(fitted.model, validation), low, high) - to_native(validation.y, low, high)
    half = conformal_halfwidth(residuals.abs().numpy())
    return Learnt(fitted, half if math.isfinite(half) else None, time.perf_counter() - start)


def measure(model: TrainedModel, job: TrainingJob, encoder: ImageEncoder, bar: Bar) -> TrainingResult:
    """Score the test part with a saved model, and report how much of it had been seen before."""
    test, (low, high) = job.split.test, job.scale
    with bar("Testing", len(test)) as advance:
        table = encode_records(encoder, test, prompts=job.head == "prompt", progress=advance)
    part = rated_features(table, test, job.target, job.head, (low, high))
    q = to_native(predict(model.parts[job.target], part), low, high).numpy()
    mos = [record.targets[job.target] for record in test]
    half = model.config.targets[job.target].interval
    band = None if half is None else (q - half, q + half)
    tables = {"generator": [r.generator for r in test], "style": [r.style for r in test]}
    extras = Extras({name: labels for name, labels in tables.items() if any(labels)}, band)
    seen = seen_by(model, model.config.encoders)
    learnt_from = [*job.split.train, *job.split.validation]
    baseline = generator_mean(
        [r.targets[job.target] for r in learnt_from], [r.setting for r in learnt_from], [r.setting for r in test]
    )
    return TrainingResult(
        evaluate(q, mos, [r.group for r in test], extras),
        srcc(baseline, mos),
        contamination(test, seen),
        tuple(float(value) for value in q),
    )


def _older(job: TrainingJob, encoder: ImageEncoder) -> TrainedModel | None:
    """Return the model that is already in the folder, if any; the new target joins it."""
    if not (job.out / "config.json").is_file():
        return None
    older = load(job.out)
    if older.config.encoders.sha256 != encoder.encoders.sha256:
        raise ModelError(f"Expected a new folder or one with the same encoders, got {job.out}: choose another with -o.")
    return older


def _trained(
    job: TrainingJob, encoder: ImageEncoder, learnt: Learnt, scale: tuple[float, float], older: TrainedModel | None
) -> TrainedModel:
    """Return the folder's model with the new target added."""
    pair = encoder.encoders
    target = Target(job.head, *scale, interval=learnt.interval)
    seen = trained_on([*job.split.train, *job.split.validation])
    if older is None:
        reference = EncoderRef(pair.source, pair.sha256, pair.dim)
        config = ModelConfig(job.out.resolve().name, reference, {job.target: target}, pair.view)
        return TrainedModel(config, {job.target: learnt.fitted.model}, seen)
    config = dataclasses.replace(older.config, targets={**older.config.targets, job.target: target})
    together = TrainedOn(older.trained_on.images | seen.images, older.trained_on.prompts | seen.prompts)
    return TrainedModel(config, {**older.parts, job.target: learnt.fitted.model}, together)


def _write_training(job: TrainingJob, learnt: Learnt, result: TrainingResult | None) -> None:
    """Add this training to ``training.json`` and draw its curves."""
    lines = _read_training(job.out)
    lines[job.target] = {
        "data": job.rated.name,
        "licence": job.rated.licence,
        "citation": job.rated.citation,
        "protocol": job.split.protocol,
        "leakage": job.split.leakage,
        "head": job.head,
        "recipe": asdict(job.recipe),
        "threads": torch.get_num_threads(),
        "seconds": round(learnt.seconds, 1),
        "best": asdict(learnt.fitted.best),
        "interval": learnt.interval,
        "history": [asdict(line) for line in learnt.fitted.history],
        "test": None if result is None else _result_json(result),
    }
    (job.out / "training.json").write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    draw_history(learnt.fitted.history, job.target, job.out / f"{job.target}.png")


def _result_json(result: TrainingResult) -> dict[str, Any]:
    return {
        **result.evaluation.to_json(),
        "baseline_srcc": result.baseline_srcc,
        "contamination": asdict(result.contamination) | {"label": result.contamination.label},
    }


def _read_training(folder: Path) -> dict[str, Any]:
    path = folder / "training.json"
    lines: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return lines
