"""The loop: batches, steps, the running mean of the weights, and the mean of several trainings.

The trainings begin with the same weights, and each sees the images in an order of its own; the mean of the weights that
they end with is kept.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mini_training.data import HIGH, LOW, PHOTO_HIGH, Rated
from mini_training.learner import Learner, Prompts, ladder_loss, photo_loss, rated_loss, shuffled_loss
from mini_training.plan import Plan
from mini_training.prepare import Maps, Prepared, tensor
from mini_training.teacher import quality_targets
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import to_head

_RUNGS = 4
_SAVE = 100  # steps between checkpoints
_CLIP = 5.0  # the largest norm of a gradient
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Known:
    """What a training may look at.

    Attributes:
        rows: int, which images of AGIQA-3K.
        photos: int, which photographs of LIVE in the Wild, counted from 0.
    """

    rows: np.ndarray
    photos: np.ndarray


@dataclass(frozen=True)
class Sets:
    """All that training reads."""

    rated: Rated
    maps: Prepared
    prompts: Prompts
    prompt_of: np.ndarray  # int, (n,): the row of each image's prompt in ``prompts``
    described: np.ndarray  # float, (n + photos, numbers): what ``teacher.describe`` wrote


@dataclass(frozen=True)
class Batch:
    """One step: rated images, photographs, ladders and noise, in this order."""

    coarse: Tensor
    fine: Tensor
    rows: np.ndarray
    photos: np.ndarray
    ladders: int


def fit(sets: Sets, known: Known, begin: Callable[[], Learner], checkpoint: Path) -> Learner:
    """Return a trained learner; training resumes from checkpoints beside ``checkpoint`` if there are any.

    ``begin``: returns the learner as each training finds it, always the same; it holds the plan.
    """
    learner = begin()
    if not _read(learner, checkpoint):
        members = [_member(sets, known, begin(), checkpoint, i) for i in range(learner.plan.members)]
        learner = members[0]
        with torch.no_grad():
            for weights in zip(*(member.parameters() for member in members), strict=True):
                weights[0].copy_(torch.stack(weights).mean(0))
        torch.save({"learner": learner.state_dict()}, checkpoint)
    return learner.eval()


def untrained(sets: Sets, known: Known, plan: Plan) -> Learner:
    """Return a learner whose towers hold ImageNet's weights, standardised by some images that may be looked at."""
    torch.manual_seed(plan.seed)
    learner = Learner(plan)
    learner.centre(sets.prompts)
    _standardise(learner, sets, known)
    return learner


def _member(sets: Sets, known: Known, learner: Learner, checkpoint: Path, number: int) -> Learner:
    """Return one of the trainings whose mean is kept."""
    own = checkpoint.with_suffix(f".{number}.pt")
    if not _read(learner, own):
        _Run(learner, sets, known, own, learner.plan.seed + number).train()
    return learner


def _read(learner: Learner, checkpoint: Path) -> bool:
    """Read what a complete training left, if there is one."""
    if not checkpoint.is_file() or "learner" not in (state := torch.load(checkpoint, weights_only=True)):
        return False
    learner.load_state_dict(state["learner"])
    return True


class _Run:
    """One training; ``seed`` decides in which order it sees the images."""

    def __init__(self, learner: Learner, sets: Sets, known: Known, checkpoint: Path, seed: int) -> None:
        self.learner, self.sets, self.known, self.plan = learner.to(_DEVICE), sets, known, learner.plan
        self.prompts = sets.prompts.to(_DEVICE)
        self.checkpoint, self.seed = checkpoint, seed
        quality, marks = quality_targets(sets.described, sets.rated, known.rows, known.photos)
        self.quality, self.marks = to_head(torch.from_numpy(quality), LOW, HIGH), torch.from_numpy(marks)
        self.steps = max(1, int(self.plan.epochs * len(known.rows) / self.plan.batch))
        both = [*learner.coarse.trunk.parameters(), *learner.fine.trunk.parameters()]
        inside = {id(weight) for weight in both}
        trunks = [weight for weight in both if weight.requires_grad]
        rest = [w for w in learner.parameters() if w.requires_grad and id(w) not in inside]
        self.weights = [*trunks, *rest]
        groups = [
            {
                "params": [w for w in trunks if w.ndim > 1],
                "peak": self.plan.rate,
                "weight_decay": self.plan.trunk_decay,
            },
            {"params": [w for w in trunks if w.ndim == 1], "peak": self.plan.rate, "weight_decay": 0.0},
            {"params": rest, "peak": self.plan.head_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=self.plan.decay)
        self.mean = [weight.detach().clone() for weight in self.weights]
        self.first = 0
        if checkpoint.is_file():
            self._resume()

    def train(self) -> None:
        """Take every step; afterwards the learner holds the running mean of its weights."""
        self.learner.train()
        began, losses = time.perf_counter(), []
        for step in range(self.first, self.steps):
            losses.append(self._step(step))
            if step % 50 == 49:
                seconds = time.perf_counter() - began
                print(
                    f"step {step + 1} of {self.steps}: loss {np.mean(losses[-50:]):.3f}, {seconds:.0f} s",
                    file=sys.stderr,
                )
            if step % _SAVE == _SAVE - 1:
                self._save(step + 1)
        with torch.no_grad():
            for weight, mean in zip(self.weights, self.mean, strict=True):
                weight.copy_(mean)
        torch.save({"learner": self.learner.cpu().state_dict()}, self.checkpoint)

    def _step(self, step: int) -> float:
        rate = _rate(step / self.steps, self.plan.warm)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        rng = np.random.default_rng((self.seed, step))
        torch.manual_seed(self.seed * 1_000_003 + step)
        loss = self._loss(draw(self.sets, self.known, self.plan, (step, self.seed), rng), rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, _CLIP)
        self.optimizer.step()
        with torch.no_grad():
            keep = min(self.plan.average, (step + 1) / (step + 10))
            torch._foreach_lerp_(self.mean, [w.detach() for w in self.weights], 1 - keep)
        return loss.item()

    def _loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        learner, weights = self.learner, self.plan.weights
        f_c, f_f = learner.coarse(batch.coarse.to(_DEVICE)), learner.fine(batch.fine.to(_DEVICE))
        there = learner.score_quality(f_c, f_f, self.prompts)
        q = there.cpu()  # losses are small work
        n, m = len(batch.rows), len(batch.photos)
        y = self.quality[batch.rows]
        generator = self.sets.rated.generators[batch.rows]
        loss = rated_loss(q[:n], y, torch.from_numpy(generator[:, None] == generator[None]), weights)
        if m:
            marks = to_head(self.marks[batch.photos], 0.0, PHOTO_HIGH).to(_DEVICE)
            loss = loss + weights.photos * photo_loss(learner, there[n : n + m], marks).cpu()
        rest = q[n + m :]
        rungs = rest[: batch.ladders * (1 + _RUNGS)].view(batch.ladders, 1 + _RUNGS)
        if batch.ladders:
            loss = loss + weights.ladder * ladder_loss(rungs, self.plan.rung)
        if len(rest) > rungs.numel():
            loss = loss + weights.noise * torch.relu(rest[rungs.numel() :] - self.plan.floor).mean()
        if weights.match:
            match = to_head(torch.from_numpy(self.sets.rated.ratings[batch.rows, 1]), LOW, HIGH)
            loss = loss + weights.match * self._match(batch, f_c[:n], f_f[:n], match, rng)
        return loss

    def _match(self, batch: Batch, f_c: Tensor, f_f: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the loss of correspondence, with each image's own prompt and with that of another image."""
        own = torch.from_numpy(self.sets.prompt_of[batch.rows])
        other = torch.from_numpy(self.sets.prompt_of[rng.choice(self.known.rows, len(batch.rows))])
        q, wrong = (self.learner.score_match(f_c, f_f, self.prompts, which.to(_DEVICE)).cpu() for which in (own, other))
        return mst_clipiqa_loss(q, y) + self.plan.weights.shuffled * shuffled_loss(
            q, wrong, (own != other).float(), y, self.plan.ahead
        )

    def _save(self, done: int) -> None:
        state = {"done": done, "weights": self.weights, "mean": self.mean, "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=_DEVICE)
        with torch.no_grad():
            for weight, saved in zip(self.weights, state["weights"], strict=True):
                weight.copy_(saved)
        self.mean = [mean.detach() for mean in state["mean"]]
        self.optimizer.load_state_dict(state["optimizer"])
        self.first = state["done"]


def draw(sets: Sets, known: Known, plan: Plan, turn: tuple[int, int], rng: np.random.Generator) -> Batch:
    """Return one batch: each epoch sees every rated image once, some of its crops, mirrored or not.

    ``turn``: the step, and the seed of the order.
    """
    step, seed = turn
    rows = _turn(known.rows, plan.batch, step, seed)
    photos = _turn(known.photos, plan.photos, step, seed + 1) if len(known.photos) else known.photos
    maps, n = sets.maps, len(sets.rated.names)
    parts = []
    for row in [*rows, *(n + photos)]:
        parts.append(_crops(maps.mirrored if rng.random() < 0.5 else maps.rated, row, plan.crops, rng))
    allowed = _ladders(sets, known)
    ladders = rng.choice(allowed, plan.ladders, replace=False)
    for ladder in ladders:
        base, chosen = maps.bases[ladder], rng.choice(maps.rated.fine.shape[1], plan.crops, replace=False)
        start = (maps.rated, base) if base >= 0 else (maps.photographs, -1 - base)
        for source, at in (start, *((maps.ladders, _RUNGS * ladder + rung) for rung in range(_RUNGS))):
            parts.append((source.coarse[at], source.fine[at][chosen]))
    for noise in rng.choice(len(maps.noises.coarse), plan.noises, replace=False):
        parts.append(_crops(maps.noises, noise, plan.crops, rng))
    coarse, fine = (tensor(np.stack(part)) for part in zip(*parts, strict=True))
    return Batch(coarse.unsqueeze(1), fine, rows, photos, len(ladders))


def _crops(maps: Maps, row: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return maps.coarse[row], maps.fine[row][rng.choice(maps.fine.shape[1], count, replace=False)]


def _ladders(sets: Sets, known: Known) -> np.ndarray:
    """Return the ladders that start from an image that may be looked at."""
    allowed = {*known.rows.tolist(), *(len(sets.rated.names) + known.photos).tolist()}
    return np.array([i for i, base in enumerate(sets.maps.bases.tolist()) if base < 0 or base in allowed])


def _turn(rows: np.ndarray, count: int, step: int, seed: int) -> np.ndarray:
    """Return the ``step``-th ``count`` rows of an endless list: one shuffle of all rows after the other."""
    places = np.arange(step * count, (step + 1) * count)
    return np.array([_shuffled(rows, int(place) // len(rows), seed)[int(place) % len(rows)] for place in places])


def _shuffled(rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def _rate(done: float, warm: float) -> float:
    """Return the share of the peak rate: up in a line, down in a cosine."""
    if done < warm:
        return max(0.01, done / warm)
    return max(0.01, 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm))))


def _standardise(learner: Learner, sets: Sets, known: Known) -> None:
    rows = np.sort(np.random.default_rng(0).choice(known.rows, min(96, len(known.rows)), replace=False))
    some = sets.maps.rated[rows]
    learner.coarse.standardise_by(tensor(some.coarse))
    learner.fine.standardise_by(tensor(some.fine[:, ::3].reshape(-1, *some.fine.shape[2:])))
