"""What an adaptation works on: the model, what moves, images with their ladders, and ratings if there are any.

A third of the images, drawn by name, trains nothing: their ladders are the gate's. Rated images that train with their
ratings, whatever their file's name, are never among them; the third is one of the others.
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
from mst_clipiqa.adapt.moving import Material, Moving, MovingEncoders, MovingFusion, parse_train
from mst_clipiqa.adapt.signal import Signal
from mst_clipiqa.data import RatedSet, Record, rated_for
from mst_clipiqa.encoders.adapter import new_adapter
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.pipeline import Bar, no_bar
from mst_clipiqa.model.mst_clipiqa import Text, to_head
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import TrainedModel, image_hash
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import contamination, seen_by, trained_on
from mst_clipiqa.train.recipe import check_real

HELD = 3
"""One image in this many is held out, of those that do not train with their ratings."""
FEWEST = 24
"""Images that adaptation needs."""
_MOST_LABELS = 0.9  # the rest decide whether the model is kept


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
        labels: share of them that train instead, 0 to 0.9.
        recipe, plan: how.

    Raises:
        UsageError: ``labels`` is out of bounds.
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

    def __post_init__(self) -> None:
        """Check the share."""
        check_real("labels", self.labels, _MOST_LABELS)


@dataclass(frozen=True)
class RatedMaterial:
    """Rated images that do not train with their ratings.

    Attributes:
        material: of the images.
        prompts: None for an image without one.
        ratings: target -> ratings in native units, float (n,); NaN for an image without one.
        contaminated: what the model had seen of them before, in words; empty for nothing.
        skipped: rated images that could not be read, with their reasons.
    """

    material: Material
    prompts: tuple[str | None, ...] = ()
    ratings: dict[str, np.ndarray] = field(default_factory=dict)
    contaminated: str = ""
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AdaptData:
    """What adaptation works on.

    Attributes:
        training: ladders that train.
        held: ladders held out; none is of a labelled image, nor of a copy of one under another name.
        labelled: material of the rated images that train with their ratings, (n, ...); None without any.
        y: their ratings on the head's scale 1..5, float (n,).
        rated: rated images that decide.
        records: the labelled images.
    """

    training: Ladders
    held: Ladders
    labelled: Material | None
    y: Tensor
    rated: RatedMaterial
    records: tuple[Record, ...] = ()


def prepare_data(job: AdaptJob, moving: Moving, bar: Bar = no_bar) -> AdaptData:
    """Make and prepare the versions of all images.

    Raises:
        UsageError: too few images can be read, or too few of them are not labelled.
    """
    encoder = job.scorer.encoder
    labelled, y, rated, records = _rated(job, moving, bar)
    known = trained_on(records).images
    parts = split(job.files, known)
    training, held = (make_ladders(encoder, some, job.plan, moving.prepare, bar) for some in parts)
    if min(len(training), len(held)) < FEWEST // HELD:
        found, what = f"{len(training) + len(held)} that can be read", "add images"
        if own := sum(_hash(path) in known for path in training.files) if known else 0:
            found, what = f"{found}, of which {own} train with their ratings", "lower --labels or add images"
        raise UsageError(f"Expected at least {FEWEST} images to adapt to, got {found}: {what}.")
    return AdaptData(training, held, labelled, y, rated, records)


def split(files: Sequence[Path], labelled: frozenset[str] = frozenset()) -> tuple[list[Path], list[Path]]:
    """Return the images that train and those that are held out; both in order.

    Labelled images are never held out; a third of the others is, drawn by name.

    Args:
        files: the images.
        labelled: ``image_hash`` of those that train with their ratings, whatever their names.
    """
    free = [path for path in files if not labelled or _hash(path) not in labelled]
    ranked = sorted(free, key=lambda path: (zlib.crc32(path.name.encode("utf-8", "surrogatepass")), str(path)))
    held = set(ranked[::HELD])
    return [path for path in files if path not in held], [path for path in files if path in held]


def _hash(path: Path) -> str:
    """Return the hash of an image file; empty if it cannot be read, which is said when it is opened."""
    try:
        return image_hash(path.read_bytes())
    except OSError:
        return ""


def moving_of(job: AdaptJob) -> Moving:
    """Return the model with what moves; UsageError if it has no such target or is adapted already."""
    model, pair = job.scorer.model, job.scorer.encoder.encoders
    _check_target(model, job.target)
    if model.config.encoders.adapter:
        raise UsageError(
            f"Expected a model with the encoders it was trained on, got {model.config.name}, whose encoders are "
            "adapted already: adapt the model that it came from."
        )
    text = Text(templates=pair.encode_templates(list(TEMPLATES)).cpu().clone())
    kind, rank = parse_train(job.train)
    if kind == "fusion":
        return MovingFusion(pair, model.parts[job.target], text)
    return MovingEncoders(pair, model.parts[job.target], text, new_adapter(pair, kind, rank, job.recipe.seed))


def _check_target(model: TrainedModel, name: str) -> None:
    """Raise UsageError for a target that the model does not have, or whose head reads prompts."""
    targets = model.config.targets
    free = [known for known, one in targets.items() if one.head == "template" and known in model.parts]
    if name in free:
        return
    why = "whose head reads the prompt" if name in targets else f"which {model.config.name} does not score"
    advice = f"choose --target {' or '.join(free)}" if free else "choose another model"
    raise UsageError(f"Expected a target that needs no prompt, as adaptation has none, got {name!r}, {why}: {advice}.")


def _rated(
    job: AdaptJob, moving: Moving, bar: Bar
) -> tuple[Material | None, Tensor, RatedMaterial, tuple[Record, ...]]:
    """Return rated images that train, their ratings 1..5, those that decide, and the records of those that train."""
    if job.check is None:
        return None, torch.zeros(0), RatedMaterial(Material(torch.zeros(0), torch.zeros(0))), ()
    if not rated_for(job.check.records, job.target):
        raise UsageError(f"Expected ratings of {job.target} in the rated set, got {', '.join(job.check.targets)}.")
    targets = [job.target]
    if moving.features_move:  # then every target may change
        targets += [name for name in job.scorer.model.config.targets if name in job.check.ranges and name != job.target]
    usable = [record for record in job.check.records if not record.targets.keys().isdisjoint(targets)]
    kept, material, skipped = prepare_files(job.scorer.encoder, [one.file for one in usable], moving.prepare, bar)
    records = [usable[i] for i in kept]
    train, decide = _divided(records, job.target, job.labels)
    labelled, deciding = [records[i] for i in train], [records[i] for i in decide]
    y = to_head(torch.tensor([record.targets[job.target] for record in labelled]), *job.check.ranges[job.target])
    rated = RatedMaterial(
        material[torch.tensor(decide, dtype=torch.int64)],
        tuple(record.prompt if (record.prompt or "").strip() else None for record in deciding),
        {name: np.array([record.targets.get(name, np.nan) for record in deciding]) for name in targets},
        contamination(deciding, seen_by(job.scorer.model)).label,
        skipped,
    )
    return (material[torch.tensor(train)] if train else None), y, rated, tuple(labelled)


def _divided(records: Sequence[Record], target: str, share: float) -> tuple[list[int], list[int]]:
    """Return which records train with their ratings, and which decide: none of the same prompts or files."""
    train = sorted(_labelled(records, target, share))
    prompts, images = {records[i].group for i in train}, {records[i].sha256 for i in train}
    others = [i for i, record in enumerate(records) if record.group not in prompts]
    return train, [i for i in others if not images or records[i].sha256 not in images]  # hashing reads the file


def _labelled(records: Sequence[Record], target: str, share: float) -> set[int]:
    """Return which of the records with a rating of the target train: whole prompts, by name, up to a share of them."""
    rated = [i for i, record in enumerate(records) if target in record.targets]
    groups: dict[str, list[int]] = {}
    for i in rated:
        groups.setdefault(records[i].group, []).append(i)
    chosen: set[int] = set()
    for group in sorted(groups, key=lambda name: zlib.crc32(name.encode())):
        if len(chosen) + len(groups[group]) > share * len(rated):
            break
        chosen |= set(groups[group])
    return chosen
