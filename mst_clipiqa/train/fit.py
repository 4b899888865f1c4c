"""The training loop, over features.

It sees a training and a validation part, never a test part. The seed alone decides the initial weights and the order
of the images, which is drawn per epoch. A run that was stopped therefore resumes and ends with the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate import plcc, srcc
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head
from mst_clipiqa.tables.atomic import atomic
from mst_clipiqa.train.features import RatedFeatures

State = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are the flags of ``mst-clipiqa train``."""

    name: str
    learning_rates: tuple[float, ...]  # all are tried; the best on validation is kept
    weight_decay: float
    decoupled: bool  # AdamW rather than Adam
    batch_size: int
    epochs: int
    patience: int  # epochs without a better validation SRCC before a rate is abandoned
    cosine: bool  # short warm-up, then cosine decay to zero
    identity_start: bool  # W_c and W_f start as the identity, the gate at one half
    ranking_weight: float = 1.0  # lambda
    margin: float = 0.1  # on the scale 1..5
    seed: int = 0  # same seed, machine and threads: same weights, bit for bit


PAPER = Recipe("paper", (5e-6,), 1e-3, False, 8, 20, 20, False, False)
"""The published recipe and loss (section 4.1), except that the epoch is selected on a validation part."""

FAST = Recipe("fast", (1e-3,), 1e-2, True, 128, 24, 6, True, True)
"""Ours: the same loss from a zero-shot start, with fewer and larger steps."""

RECIPES = {"paper": PAPER, "fast": FAST}


@dataclass(frozen=True)
class Epoch:
    """One epoch of the training history; losses and scores on the head's scale 1..5."""

    learning_rate: float
    epoch: int
    training_loss: float
    validation_loss: float
    validation_srcc: float
    validation_plcc: float = -1.0  # of checkpoints that do not have it


@dataclass(frozen=True)
class Fitted:
    """The model of the best epoch on validation, that epoch, and the history of all epochs."""

    model: MSTCLIPIQA
    best: Epoch
    history: tuple[Epoch, ...]


@dataclass
class _Run:
    """The state that a stopped training needs to resume."""

    rate: int = 0  # index of the learning rate
    epoch: int = 0  # epochs done with it
    model: State | None = None
    optimiser: dict[str, Any] | None = None
    best: Epoch | None = None
    best_model: State | None = None
    stale: int = 0  # epochs since this rate's best
    rate_best: float = -2.0
    history: list[Epoch] = field(default_factory=list)


def fit(
    training: RatedFeatures,
    validation: RatedFeatures,
    head: Head,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train a fusion and a head, and return the epoch with the best validation SRCC.

    Args:
        training: the features to train on.
        validation: the features that select the epoch and the learning rate.
        head: "template" or "prompt".
        recipe: how to train.
        checkpoint: saved after each epoch; training resumes from it if it exists.
        report: called after each epoch.

    Raises:
        UsageError: a part is too small, or the checkpoint belongs to another training.
    """
    if len(training) < 2 or len(validation) < 2:
        got = f"{len(training)} and {len(validation)}"
        raise UsageError(f"Expected at least 2 images to train on and 2 to validate on, got {got}.")
    identity = _identity(training, validation, head, recipe) if checkpoint else {}
    run = _resume(checkpoint, identity)
    while run.rate < len(recipe.learning_rates):
        for epoch in _epochs(run, training, validation, head, recipe):
            if checkpoint:
                _keep(checkpoint, run, identity)
            if report:
                report(epoch)
        run = replace(run, rate=run.rate + 1, epoch=0, model=None, optimiser=None, stale=0, rate_best=-2.0)
    model = MSTCLIPIQA(training.f_c.shape[1], head)
    if run.best is None or run.best_model is None:
        raise UsageError(f"Expected a recipe with at least one epoch and learning rate, got {recipe}.")
    model.load_state_dict(run.best_model)
    return Fitted(model.eval().requires_grad_(False), run.best, tuple(run.history))


@torch.no_grad()
def predict(model: MSTCLIPIQA, part: RatedFeatures) -> Tensor:
    """Return scores on the head's scale 1..5, float32 (images,)."""
    rows = [torch.arange(start, min(start + 1024, len(part))) for start in range(0, len(part), 1024)]
    return torch.cat([model(part.f_c[r], part.f_f[r], part.text(r)).q for r in rows])


def _epochs(
    run: _Run, training: RatedFeatures, validation: RatedFeatures, head: Head, recipe: Recipe
) -> Iterator[Epoch]:
    """Train with one learning rate; ``run`` is up to date whenever an epoch is yielded."""
    rate = recipe.learning_rates[run.rate]
    model, optimiser = _start(run, training.f_c.shape[1], head, recipe)
    steps = -(-len(training) // recipe.batch_size)
    while run.epoch < recipe.epochs and run.stale < recipe.patience:
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + run.epoch)
        order, losses = torch.randperm(len(training), generator=generator), []
        for step in range(steps):
            rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            share = (run.epoch + step / steps) / recipe.epochs
            for group in optimiser.param_groups:
                group["lr"] = rate * (_cosine(share) if recipe.cosine else 1.0)
            losses.append(_step(model, optimiser, training, rows, recipe))
        run.epoch += 1
        line = _validate(model, validation, recipe, Epoch(rate, run.epoch, float(np.mean(losses)), 0.0, 0.0))
        run.history.append(line)
        run.model, run.optimiser = _copied(model.state_dict()), optimiser.state_dict()
        better_here = line.validation_srcc > run.rate_best
        run.rate_best, run.stale = (line.validation_srcc, 0) if better_here else (run.rate_best, run.stale + 1)
        if run.best is None or line.validation_srcc > run.best.validation_srcc:
            run.best, run.best_model = line, run.model
        yield line


def _start(run: _Run, dim: int, head: Head, recipe: Recipe) -> tuple[MSTCLIPIQA, torch.optim.Optimizer]:
    """Return the model and the optimiser, initialised from the seed or restored from the run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MSTCLIPIQA(dim, head)
    if recipe.identity_start:
        _identity_start(model)
    kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    rate = recipe.learning_rates[run.rate]
    optimiser = kind(model.parameters(), lr=rate, weight_decay=recipe.weight_decay, fused=True)  # one pass over memory
    if run.model and run.optimiser:
        model.load_state_dict(run.model)
        optimiser.load_state_dict(run.optimiser)
    return model, optimiser


@torch.no_grad()
def _identity_start(model: MSTCLIPIQA) -> None:
    """Set W_c and W_f to the identity and the gate to one half; W_h stays random so that the gate can learn."""
    for linear in (model.gff.W_c, model.gff.W_f):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    torch.nn.init.zeros_(model.gff.W_g.weight)
    torch.nn.init.zeros_(model.gff.W_g.bias)


def _step(
    model: MSTCLIPIQA, optimiser: torch.optim.Optimizer, part: RatedFeatures, rows: Tensor, recipe: Recipe
) -> float:
    q = model(part.f_c[rows], part.f_f[rows], part.text(rows)).q
    loss = mst_clipiqa_loss(q, part.y[rows], recipe.ranking_weight, recipe.margin)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


def _validate(model: MSTCLIPIQA, part: RatedFeatures, recipe: Recipe, line: Epoch) -> Epoch:
    q = predict(model, part)
    loss = mst_clipiqa_loss(q, part.y, recipe.ranking_weight, recipe.margin).item()
    agreement = [float(measure(q.numpy(), part.y.numpy())) for measure in (srcc, plcc)]
    rank, linear = (value if np.isfinite(value) else -1.0 for value in agreement)
    return replace(line, validation_loss=loss, validation_srcc=rank, validation_plcc=linear)


def _cosine(share: float, warm_up: float = 0.05) -> float:
    """Return the factor of the rate at a share 0..1 of the training: linear warm-up, then cosine decay to 0."""
    if share < warm_up:
        return (share + 1e-3) / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (share - warm_up) / (1 - warm_up))))


def _copied(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _identity(training: RatedFeatures, validation: RatedFeatures, head: Head, recipe: Recipe) -> dict[str, Any]:
    """Return what identifies a training, so that none resumes from another one's checkpoint."""
    both = (training, validation)
    return {
        "recipe": asdict(recipe),
        "head": head,
        "images": [len(part) for part in both],
        "targets": _sha256(part.y for part in both),
        "features": _sha256(f for part in both for f in (part.f_c, part.f_f)),
        "texts": _sha256(t for part in both for t in _texts(part)),
    }


def _texts(part: RatedFeatures) -> list[Tensor]:
    """Return what the head reads beside the features: templates, or the token states of all prompts."""
    text = part.text(torch.arange(len(part)))
    return [tensor for tensor in (text.templates, text.tokens, text.mask) if tensor is not None]


def _sha256(tensors: Iterable[Tensor]) -> str:
    """Return the hash of the exact values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def _keep(path: Path, run: _Run, identity: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    state = {**vars(run), "best": run.best and asdict(run.best), "history": [asdict(line) for line in run.history]}
    with atomic(path) as file:
        torch.save({"identity": identity, "run": state}, file)


def _resume(path: Path | None, identity: dict[str, Any]) -> _Run:
    if path is None or not path.is_file():
        return _Run()
    saved = torch.load(path, weights_only=True)
    if saved["identity"] != identity:
        different = sorted(key for key in identity if saved["identity"].get(key) != identity[key])
        raise UsageError(
            f"Expected a checkpoint of this training in {path}, but its {', '.join(different)} differ: "
            "choose another folder, or delete the file to start over."
        )
    run = saved["run"]
    best = Epoch(**run["best"]) if run["best"] else None
    return _Run(**{**run, "best": best, "history": [Epoch(**line) for line in run["history"]]})
