"""A model and a folder of images in, an adapted model folder out, if it is better: what ``mst-clipiqa adapt`` does."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.adapt.card import adapted_card
from mst_clipiqa.adapt.fit import Guides, adapt, output_of
from mst_clipiqa.adapt.gate import NotBetter, RatingGain, Verdict, ladder_gain, rating_gain
from mst_clipiqa.adapt.job import AdaptData, AdaptJob, RatedMaterial, moving_of, prepare_data
from mst_clipiqa.adapt.moving import Material, Moving, MovingEncoders
from mst_clipiqa.adapt.signal import taught_by
from mst_clipiqa.data import Record
from mst_clipiqa.encoders.adapter import ADAPTER_FILES, adapted_sha256, adapter_files, files_sha256
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.pipeline import Bar, no_bar
from mst_clipiqa.model_folder import TrainedModel, TrainedOn, image_hash, save_model
from mst_clipiqa.scoring.folders import check_record
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.saving import check_model_output
from mst_clipiqa.train.contamination import overstate, trained_on, union

REPORT = "adapt.json"


@dataclass(frozen=True)
class Adapted:
    """What adaptation found.

    Attributes:
        verdict: the gate's.
        moved: name -> how far each parameter moved, as a share of its own size (its size itself if it began at 0).
        seconds: part of the work -> how long it took.
        images: how many trained and how many were held out.
        skipped: images that could not be read, rated ones included, with their reasons.
        labelled: rated images that trained with their ratings.
        changed: targets whose scores may have changed; they no longer have intervals.
        contaminated: what the model had seen of the ratings that decide, in words; empty for nothing.
    """

    verdict: Verdict
    moved: dict[str, float]
    seconds: dict[str, float]
    images: tuple[int, int]
    skipped: dict[str, str]
    labelled: tuple[Record, ...] = ()
    changed: tuple[str, ...] = ()
    contaminated: str = ""

    def notes(self) -> list[str]:
        """Return what limits the figures on ratings, one sentence each."""
        seen = f"{self.contaminated.capitalize()}, so these ratings {overstate(self.contaminated)} both models."
        return [*([seen] if self.contaminated else []), *self.verdict.not_measured()]


def build_adapted(job: AdaptJob, bar: Bar = no_bar) -> Adapted:
    """Adapt, and write the model folder if the gate lets it pass.

    Raises:
        UsageError: too few images, the model has no such target, or the folder holds other files.
        ModelError: the record of the model's training is missing.
        NotBetter: the adapted model is no better; nothing was written.
    """
    check_new(job.out)
    check_record(job.scorer.model)
    found, moving = adapt_model(job, bar)
    if refusal := found.verdict.refusal():
        what = f"Expected a better model, got one that is not: {refusal}. Nothing was written."
        raise NotBetter(" ".join([what, *found.notes()]), found.skipped)
    _write(job, moving, found)
    return found


def check_new(out: Path) -> None:
    """Raise UsageError if a folder holds a model already, or files that an adapted model would replace."""
    if (out / "config.json").exists():
        raise UsageError(f"Expected a new folder for -o, got {out}, which holds a model: choose another.")
    check_model_output(out, REPORT, *ADAPTER_FILES)


def adapt_model(job: AdaptJob, bar: Bar = no_bar) -> tuple[Adapted, Moving]:
    """Adapt and measure; write nothing."""
    moving = moving_of(job)
    began = time.perf_counter()
    data = prepare_data(job, moving, bar)
    return adapt_data(job, moving, data, time.perf_counter() - began, bar), moving


def adapt_data(job: AdaptJob, moving: Moving, data: AdaptData, encoding: float, bar: Bar = no_bar) -> Adapted:
    """Move the parameters and return what that changed; ``encoding``: seconds that the data took."""
    before = {name: tensor.detach().clone() for name, tensor in moving.parameters().items()}
    first = output_of(moving, data.held.material).q, _scores(job, moving, data.rated)
    guides = Guides(taught_by(job.signal, data.training.files, job.scorer, job.target), data.labelled, data.y)
    began = time.perf_counter()
    with bar("Adapting", job.recipe.steps) as advance:
        adapt(moving, data.training, job.recipe, guides, lambda: advance(1))
    seconds = {"encoding": encoding, "adapting": time.perf_counter() - began}
    second = output_of(moving, data.held.material).q, _scores(job, moving, data.rated)
    gains = {
        name: rating_gain(first[1][name], second[1][name], ratings, data.rated.prompts)
        for name, ratings in data.rated.ratings.items()
    }
    measured = {name: one for name, one in gains.items() if isinstance(one, RatingGain)}
    unmeasured = {name: one for name, one in gains.items() if isinstance(one, str)}
    return Adapted(
        Verdict(ladder_gain(first[0], second[0], data.held), measured, unmeasured),
        {name: _moved(before[name], tensor.detach()) for name, tensor in moving.parameters().items()},
        seconds,
        (len(data.training), len(data.held)),
        data.training.skipped | data.held.skipped | data.rated.skipped,
        data.records,
        tuple(job.scorer.model.config.targets) if moving.features_move else (job.target,),
        data.rated.contaminated,
    )


@torch.no_grad()
def _scores(job: AdaptJob, moving: Moving, rated: RatedMaterial) -> dict[str, np.ndarray]:
    """Return the scores of the rated images, target -> native units, NaN for none."""
    if not rated.prompts:
        return {name: np.zeros(0) for name in rated.ratings}
    f_c, f_f = (torch.cat(some) for some in zip(*_features(moving, rated.material), strict=True))
    model = _with_fusion(job, moving)
    scores = Predictor(model, job.scorer.encoder.encoders).predict(f_c, f_f, rated.prompts)
    return {name: np.array([score.targets[name] for score in scores], float) for name in rated.ratings}


def _features(moving: Moving, material: Material) -> list[tuple[Tensor, Tensor]]:
    return [moving.features(material[rows]) for rows in torch.arange(len(material.coarse)).split(256)]


def _with_fusion(job: AdaptJob, moving: Moving) -> TrainedModel:
    """Return the model with the target's fusion as it is now."""
    model = job.scorer.model
    return dataclasses.replace(model, parts={**model.parts, job.target: moving.final_part()})


def _moved(before: Tensor, after: Tensor) -> float:
    size = float(before.norm())
    return float((after - before).norm()) / (size or 1.0)


def _write(job: AdaptJob, moving: Moving, found: Adapted) -> None:
    model, pair = _with_fusion(job, moving), job.scorer.encoder.encoders
    config = model.config
    files: dict[str, bytes] = {}
    if isinstance(moving, MovingEncoders):
        files = adapter_files(moving.final(), config.encoders.source)
        digest = files_sha256(files)
        encoders = dataclasses.replace(config.encoders, sha256=adapted_sha256(pair.sha256, digest), adapter=digest)
        config = dataclasses.replace(config, encoders=encoders)
    targets = {
        name: dataclasses.replace(one, interval=None, growth=0.0) if name in found.changed else one
        for name, one in config.targets.items()
    }
    config = dataclasses.replace(config, name=job.out.resolve().name, targets=targets, reference="")
    seen = frozenset(image_hash(path.read_bytes()) for path in job.files if str(path) not in found.skipped)
    together = union([model.trained_on, TrainedOn(seen), trained_on(found.labelled)])
    reference = None if moving.features_move else model.reference
    saved = dataclasses.replace(model, config=config, trained_on=together, reference=reference)
    report = summary(job, found)
    files[REPORT] = (json.dumps(report, indent=1) + "\n").encode()
    save_model(saved, job.out, adapted_card(saved.config, report), files)


def summary(job: AdaptJob, found: Adapted) -> dict[str, Any]:
    """Return the content of ``adapt.json``."""
    return {
        "from": job.scorer.model.config.name,
        "from_sha256": job.scorer.model.sha256,
        "target": job.target,
        "train": job.train,
        "signal": job.signal.name,
        "labels": job.labels,
        "labelled": [record.name for record in found.labelled],
        "check": job.check.name if job.check else None,
        "recipe": asdict(job.recipe),
        "ladders": asdict(job.plan),
        "images": {"trained": found.images[0], "held_out": found.images[1], "skipped": len(found.skipped)},
        "skipped": found.skipped,
        "gate": found.verdict.to_json(),
        "contaminated": found.contaminated,
        "without_intervals": found.changed,
        "moved": found.moved,
        "seconds": {name: round(value, 1) for name, value in found.seconds.items()},
        "threads": torch.get_num_threads(),
    }
