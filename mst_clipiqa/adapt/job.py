"""What an adaptation works on: the model, what moves, images with their ladders, and ratings if there are any.

A third of the images, drawn by name, trains nothing: their ladders are the gate's.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.adapt.fit import AdaptRecipe
from mst_clipiqa.adapt.ladders import LadderPlan, Ladders, make_ladders, prepare_files
from mst_clipiqa.adapt.moving import Material, Moving, MovingEncoders, MovingFusion, parse
from mst_clipiqa.adapt.signal import Signal
from mst_clipiqa.data import RatedSet, Record
from mst_clipiqa.encoders.adapter import start
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.pipeline import Bar, no_bar
from mst_clipiqa.model.mst_clipiqa import Text, to_head
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.scoring.scorer import Scorer

HELD = 3
"""One image in this many is held out."""
FEWEST = 24
"""Images that adaptation needs."""


@dataclass(frozen=True)
class AdaptJob:
    """What to adapt.

    Attributes:
        scorer: the model.
        files: images of the new domain.
        out: the new model folder.
        train: "fusion", "norm" or "lora:R".
        signal: where the right order comes from.
        target: the score to adapt; it needs a template head, which reads no prompt.
        check: rated images that decide whether the model is kept.
        labels: share of them that train instead, 0..1.
        recipe, plan: how.
    """

    scorer: Scorer
    files: Sequence[Path]
    out: Path
    train: str = "fusion"
    signal: Signal = field(default_factory=Signal)
    target: str = "quality"
    check: RatedSet | None = None
    labels: float = 0.0
    recipe: AdaptRecipe = field(default_factory=AdaptRecipe)
    plan: LadderPlan = field(default_factory=LadderPlan)


@dataclass(frozen=True)
class RatedMaterial:
    """Rated images that train nothing: their material and prompts, and target -> ratings."""

    material: Material
    prompts: tuple[str | None, ...] = ()
    ratings: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class AdaptData:
    """What adaptation works on: ladders that train, ladders held out, labelled images, and rated ones that decide."""

    training: Ladders
    held: Ladders
    labelled: Material | None
    y: Tensor
    rated: RatedMaterial


def prepare_data(job: AdaptJob, moving: Moving, bar: Bar = no_bar) -> AdaptData:
    """Make and prepare the versions of all images; UsageError for too few that can be read."""
    encoder = job.scorer.encoder
    training, held = (make_ladders(encoder, some, job.plan, moving.prepare, bar) for some in split(job.files))
    if min(len(training), len(held)) < FEWEST // HELD:
        raise UsageError(
            f"Expected at least {FEWEST} images to adapt to, got {len(training) + len(held)} that can be read."
        )
    return AdaptData(training, held, *_rated(job, moving, bar))


def split(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images that train and those that are held out, drawn by name; both in order."""
    ranked = sorted(files, key=lambda path: (zlib.crc32(path.name.encode("utf-8", "surrogatepass")), str(path)))
    held = set(ranked[::HELD])
    return [path for path in files if path not in held], [path for path in files if path in held]


def moving_of(job: AdaptJob) -> Moving:
    """Return the model with what moves; UsageError if it has no such target or is adapted already."""
    model, pair = job.scorer.model, job.scorer.encoder.encoders
    target = model.config.targets.get(job.target)
    if target is None or target.head != "template" or job.target not in model.parts:
        known = ", ".join(name for name, one in model.config.targets.items() if one.head == "template") or "none"
        raise UsageError(f"Expected a target with a template head ({known}) to adapt, got {job.target!r}.")
    if model.config.encoders.adapter:
        raise UsageError(f"Expected a model that is not adapted yet, got {model.config.name}: adapt what it came from.")
    text = Text(templates=pair.encode_templates(list(TEMPLATES)).cpu().clone())
    kind, rank = parse(job.train)
    if kind == "fusion":
        return MovingFusion(pair, model.parts[job.target], text)
    return MovingEncoders(pair, model.parts[job.target], text, start(pair, kind, rank, job.recipe.seed))


def _rated(job: AdaptJob, moving: Moving, bar: Bar) -> tuple[Material | None, Tensor, RatedMaterial]:
    """Return the rated images that train, with ratings on the head's scale, and those that decide."""
    if job.check is None:
        return None, torch.zeros(0), RatedMaterial(Material(torch.zeros(0), torch.zeros(0)))
    if job.target not in job.check.ranges:
        raise UsageError(f"Expected ratings of {job.target} in the rated set, got {', '.join(job.check.targets)}.")
    kept, material, _ = prepare_files(job.scorer.encoder, [one.file for one in job.check.records], moving.prepare, bar)
    records = [job.check.records[i] for i in kept]
    train = _labelled(records, job.labels)
    rows = [torch.tensor([i for i in range(len(records)) if (i in train) is wanted]) for wanted in (True, False)]
    low, high = job.check.ranges[job.target]
    y = to_head(torch.tensor([records[i].targets[job.target] for i in rows[0]]), low, high)
    rest = [records[i] for i in rows[1]]
    targets = [job.target]
    if moving.features_move:  # then every target may change
        heads = {name: one.head for name, one in job.scorer.model.config.targets.items() if name != job.target}
        prompts = all((record.prompt or "").strip() for record in rest)
        targets += [n for n, head in heads.items() if n in job.check.ranges and (head == "template" or prompts)]
    ratings = {name: np.array([record.targets[name] for record in rest]) for name in targets}
    decides = RatedMaterial(material[rows[1].long()], tuple(record.prompt for record in rest), ratings)
    return (material[rows[0].long()] if len(rows[0]) else None), y, decides


def _labelled(records: Sequence[Record], share: float) -> set[int]:
    """Return which records train: whole prompts, drawn by their names, up to a share of all."""
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault(record.group, []).append(i)
    chosen: set[int] = set()
    for group in sorted(groups, key=lambda name: zlib.crc32(name.encode())):
        if len(chosen) + len(groups[group]) > share * len(records):
            break
        chosen |= set(groups[group])
    return chosen
