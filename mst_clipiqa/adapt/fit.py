"""The loop: a fixed number of steps over images drawn from the seed; the same seed gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mst_clipiqa.adapt.ladders import CLEAN, CROPS, Ladders
from mst_clipiqa.adapt.losses import agreement_loss, anchor_loss, ladder_loss
from mst_clipiqa.adapt.moving import Material, Moving
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.train.recipe import check_real, check_whole

_MOST_STEPS, _MOST_WEIGHT = 1_000_000, 1e6
_AT_ONCE = 64  # images whose versions are scored together


@dataclass(frozen=True)
class AdaptRecipe:
    """How to adapt.

    Attributes:
        steps: 0 changes nothing.
        batch_size: images per step, each with all its versions.
        learning_rate: of Adam, with cosine decay.
        ladder: weight of the ladders; 0 leaves the order to a teacher.
        agreement: weight of the agreement of two crops.
        anchor: weight of the anchor.
        teacher: weight of the teachers, and of the labels.
        seed: of the order of images.
        shuffle: put the rungs of each ladder in a random order: a signal without worth, which the gate must refuse.

    Raises:
        UsageError: a number is out of bounds.
    """

    steps: int = 150
    batch_size: int = 32
    learning_rate: float = 3e-4
    ladder: float = 0.03
    agreement: float = 1.0
    anchor: float = 1.0
    teacher: float = 1.0
    seed: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        """Check every number."""
        check_whole("steps", self.steps, 0, _MOST_STEPS)
        check_whole("batch_size", self.batch_size, 1, _MOST_STEPS)
        check_whole("seed", self.seed, 0)
        check_real("learning_rate", self.learning_rate, 1.0)
        for name in ("ladder", "agreement", "anchor", "teacher"):
            check_real(name, getattr(self, name), _MOST_WEIGHT)


@dataclass(frozen=True)
class Guides:
    """Scores that are known of some images, on the head's scale 1..5.

    Attributes:
        taught: of the clean images of the ladders, float (images,); NaN where the teachers are torn, or without any.
        labelled: material of rated images.
        y: their ratings, float (n,).
    """

    taught: Tensor | None = None
    labelled: Material | None = None
    y: Tensor = field(default_factory=lambda: torch.zeros(0))


@dataclass(frozen=True)
class Answers:
    """Scores q, float (images, versions), and levels p, float (images, versions, 5), or None without them."""

    q: Tensor
    p: Tensor | None = None

    def clean(self, rows: Tensor | slice = slice(None)) -> Answers:
        """Return the answers for the clean versions of some images, (images,) and (images, 5)."""
        return Answers(self.q[rows, CLEAN], None if self.p is None else self.p[rows, CLEAN])


def adapt(
    moving: Moving,
    ladders: Ladders,
    recipe: AdaptRecipe,
    guides: Guides,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Move the parameters.

    Args:
        moving: the model.
        ladders: to train on.
        recipe: how.
        guides: what is known besides.
        report: called after each step.
    """
    if not recipe.steps:
        return
    before = output_of(moving, ladders.material)
    with torch.no_grad():
        fixed = moving.features(_clean_of(ladders.material)) if moving.features_move else ()
    rungs = _rungs(ladders, recipe)
    parameters = list(moving.parameters().values())
    optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        rows = torch.randperm(len(ladders), generator=generator)[: recipe.batch_size]
        some = ladders.material[rows]
        after = _output(moving, some)
        loss = _loss(after, before.clean(rows), rungs[rows], recipe)
        if fixed:
            loss = loss + recipe.anchor * _change(moving.features(_clean_of(some)), [f[rows] for f in fixed])
        if guides.taught is not None:
            loss = loss + recipe.teacher * _taught(after.q, guides.taught[rows])
        if guides.labelled is not None and len(guides.y):
            picked = torch.randperm(len(guides.y), generator=generator)[: 2 * recipe.batch_size]
            q = moving.output(*moving.features(guides.labelled[picked])).q
            loss = loss + recipe.teacher * mst_clipiqa_loss(q, guides.y[picked])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        report()


@torch.no_grad()
def output_of(moving: Moving, material: Material) -> Answers:
    """Return the answers for all versions of images."""
    every = [_output(moving, material[rows]) for rows in torch.arange(len(material.coarse)).split(_AT_ONCE)]
    p = torch.cat([one.p for one in every if one.p is not None]) if every and every[0].p is not None else None
    return Answers(torch.cat([one.q for one in every]), p)


def _output(moving: Moving, material: Material) -> Answers:
    """Return the answers for material (images, versions, ...)."""
    shape = material.coarse.shape[:2]
    f_c, f_f = moving.features(Material(material.coarse.flatten(0, 1), material.fine.flatten(0, 1)))
    out = moving.output(f_c, f_f)
    return Answers(out.q.unflatten(0, shape), None if out.p is None else out.p.unflatten(0, shape))


def _loss(after: Answers, before: Answers, rungs: Tensor, recipe: AdaptRecipe) -> Tensor:
    loss = recipe.ladder * ladder_loss(after.q, rungs)
    loss = loss + recipe.agreement * agreement_loss(after.q[:, list(CROPS)])
    clean = after.clean()
    return loss + recipe.anchor * anchor_loss((clean.q, clean.p), (before.q, before.p))


def _clean_of(material: Material) -> Material:
    return Material(material.coarse[:, CLEAN], material.fine[:, CLEAN])


def _change(after: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """Return by how much features moved, squared, as a share of their own size: other targets see them too."""
    shares = [((a - b) ** 2).mean() / (b**2).mean() for a, b in zip(after, before, strict=True)]
    return torch.stack(shares).mean()


def _taught(q: Tensor, taught: Tensor) -> Tensor:
    known = taught.isfinite()
    return ((q[known, CLEAN] - taught[known]) ** 2).sum() / known.sum().clamp(min=1)


def _rungs(ladders: Ladders, recipe: AdaptRecipe) -> Tensor:
    """Return the order of the rungs of each ladder of each image, int64 (images, each, rungs)."""
    rungs = ladders.plan.rungs().expand(len(ladders), -1, -1)
    if not recipe.shuffle:
        return rungs
    noise = torch.rand(rungs.shape, generator=torch.Generator().manual_seed(recipe.seed))
    return rungs.gather(2, noise.argsort(dim=2))
