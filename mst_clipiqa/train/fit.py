"""The training loop, over features.

It sees a training and a validation part, never a test part. The seed alone decides the initial weights and the order
of the images, which is drawn per epoch. A run that was stopped therefore resumes and ends with the same weights, also
with another number of cores, as all of it is computed in one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mst_clipiqa.encoders.torch_threads import on_one_thread
from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate import plcc, srcc
from mst_clipiqa.evaluate.measures import is_constant
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head
from mst_clipiqa.train.checkpoint import Epoch, State, TrainingState, load_checkpoint, save_checkpoint
from mst_clipiqa.train.features import PairFeatures, RatedFeatures
from mst_clipiqa.train.identity import identity_of
from mst_clipiqa.train.preferences import all_differences, bradley_terry_loss, differences, share_right
from mst_clipiqa.train.recipe import Recipe
from mst_clipiqa.train.scale import fit_line, start_at_mean


@dataclass(frozen=True)
class Fitted:
    """The model of the best epoch on validation, that epoch, and the history of all epochs."""

    model: MSTCLIPIQA
    best: Epoch
    history: tuple[Epoch, ...]


@on_one_thread()
def fit(
    training: RatedFeatures,
    validation: RatedFeatures,
    head: Head,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train a fusion and a head, and return the epoch that agrees best with the validation part.

    Args:
        training: ratings, pairs or both to train on.
        validation: what selects the epoch and the learning rate.
        head: "template" or "prompt".
        recipe: how to train.
        checkpoint: saved after each epoch; training resumes from it if it exists.
        report: called after each epoch.

    Raises:
        UsageError: a part is too small, the checkpoint is damaged or belongs to another training, or the weights did
            not stay finite.
    """
    _check_sizes(training, validation)
    identity = identity_of(training, validation, head, recipe) if checkpoint else {}
    run = load_checkpoint(checkpoint, identity)
    while run.rate < len(recipe.learning_rates):
        for epoch in _epochs(run, training, validation, head, recipe):
            if checkpoint:
                save_checkpoint(checkpoint, run, identity)
            if report:
                report(epoch)
        run = replace(run, rate=run.rate + 1, epoch=0, model=None, optimiser=None, stale=0, rate_best=-2.0)
    model = MSTCLIPIQA(training.f_c.shape[1], head, training.f_f.shape[1])
    if run.best is None or run.best_model is None or not _finite(run.best_model):
        raise UsageError("Expected a training that converges, got weights that are not finite: lower learning_rates.")
    model.load_state_dict(run.best_model)
    if _has_scale(training, head, recipe):
        fit_line(model, predict(model, training), training.y)
    return Fitted(model.eval().requires_grad_(False), run.best, tuple(run.history))


@on_one_thread()
@torch.no_grad()
def predict(model: MSTCLIPIQA, part: RatedFeatures) -> Tensor:
    """Return predictions on the head's scale 1..5, which those of a prompt head may leave, float32 (images,)."""
    rows = [torch.arange(start, min(start + 1024, len(part))) for start in range(0, len(part), 1024)]
    return torch.cat([model(part.f_c[r], part.f_f[r], part.text(r)).q for r in rows])


def _batches(part: RatedFeatures, size: int, generator: torch.Generator) -> list[tuple[bool, Tensor]]:
    """Return the batches of an epoch in random order: whether of pairs, and the rows; a pair per image in pairs."""
    found = [(False, rows) for rows in torch.randperm(len(part), generator=generator).split(size) if len(rows)]
    if part.pairs is None:
        return found
    drawn = torch.randperm(len(part.pairs), generator=generator)[: part.pairs.images]
    found += [(True, rows) for rows in drawn.split(size)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def _check_sizes(training: RatedFeatures, validation: RatedFeatures) -> None:
    of_pairs = training.pairs is not None and not len(training)
    counts = [len(part.pairs or ()) if of_pairs else len(part) for part in (training, validation)]
    if min(counts) < 2:
        what = "pairs" if of_pairs else "images"
        raise UsageError(
            f"Expected at least 2 {what} to train on and 2 to validate on, got {counts[0]} and {counts[1]}: "
            f"add {what}, or change the shares."
        )


def _epochs(
    run: TrainingState, training: RatedFeatures, validation: RatedFeatures, head: Head, recipe: Recipe
) -> Iterator[Epoch]:
    """Train with one learning rate; ``run`` is up to date whenever an epoch is yielded."""
    rate = recipe.learning_rates[run.rate]
    model, optimiser = _start(run, training, head, recipe)
    while run.epoch < recipe.epochs and run.stale < recipe.patience:
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + run.epoch)
        batches, losses = _batches(training, recipe.batch_size, generator), []
        for step, (of_pairs, rows) in enumerate(batches):
            share = (run.epoch + step / len(batches)) / recipe.epochs
            for group in optimiser.param_groups:
                group["lr"] = rate * (_cosine(share) if recipe.cosine else 1.0)
            if of_pairs and training.pairs:
                loss = _pair_loss(model, training.pairs, rows)
            else:
                loss = _rated_loss(model, training, rows, recipe)
            losses.append(_step(optimiser, loss))
        run.epoch += 1
        line = _validate(
            model, validation, recipe, Epoch(rate, run.epoch, float(np.mean(losses)), 0.0, math.nan, math.nan)
        )
        run.history.append(line)
        run.model, run.optimiser = _copied(model.state_dict()), optimiser.state_dict()
        better_here = line.agreement > run.rate_best
        run.rate_best, run.stale = (line.agreement, 0) if better_here else (run.rate_best, run.stale + 1)
        if run.best is None or line.agreement > run.best.agreement:
            run.best, run.best_model = line, run.model
        yield line


def _start(
    run: TrainingState, training: RatedFeatures, head: Head, recipe: Recipe
) -> tuple[MSTCLIPIQA, torch.optim.Optimizer]:
    """Return the model and the optimiser, initialised from the seed or restored from the run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MSTCLIPIQA(training.f_c.shape[1], head, training.f_f.shape[1])
    if recipe.identity_start:
        _identity_start(model)
    if _has_scale(training, head, recipe):
        start_at_mean(model, predict(model, training), training.y)
    kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    rate = recipe.learning_rates[run.rate]
    optimiser = kind(model.parameters(), lr=rate, weight_decay=recipe.weight_decay, fused=True)  # one pass over memory
    if run.model and run.optimiser:
        model.load_state_dict(run.model)
        optimiser.load_state_dict(run.optimiser)
    return model, optimiser


def _has_scale(training: RatedFeatures, head: Head, recipe: Recipe) -> bool:
    """Return whether the ratings put the scores on their scale; those of a template head cannot leave it."""
    return recipe.on_scale and head == "prompt" and len(training) > 0


@torch.no_grad()
def _identity_start(model: MSTCLIPIQA) -> None:
    """Set W_c and W_f to the identity and the gate to one half; W_h stays random so that the gate can learn.

    A map between different sizes keeps its random start: there is no identity.
    """
    for linear in (model.gff.W_c, model.gff.W_f):
        if linear.in_features != linear.out_features:
            continue
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    torch.nn.init.zeros_(model.gff.W_g.weight)
    torch.nn.init.zeros_(model.gff.W_g.bias)


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.item()


def _rated_loss(model: MSTCLIPIQA, part: RatedFeatures, rows: Tensor, recipe: Recipe) -> Tensor:
    q = model(part.f_c[rows], part.f_f[rows], part.text(rows)).q
    return mst_clipiqa_loss(q, part.y[rows], recipe.ranking_weight, recipe.margin)


def _pair_loss(model: MSTCLIPIQA, part: PairFeatures, rows: Tensor) -> Tensor:
    return bradley_terry_loss(differences(model, part, rows), part.preferred[rows], part.strength[rows])


def _validate(model: MSTCLIPIQA, part: RatedFeatures, recipe: Recipe, line: Epoch) -> Epoch:
    """Return the epoch with its results on the validation part; the loss is that of ratings and of pairs together."""
    if len(part):
        q = predict(model, part)
        loss = mst_clipiqa_loss(q, part.y, recipe.ranking_weight, recipe.margin).item()
        rank, linear = (_correlation(measure, q, part.y) for measure in (srcc, plcc))
        line = replace(line, validation_loss=loss, validation_srcc=rank, validation_plcc=linear)
    if part.pairs:
        found = all_differences(model, part.pairs)
        loss = line.validation_loss + bradley_terry_loss(found, part.pairs.preferred, part.pairs.strength).item()
        line = replace(line, validation_loss=loss, validation_pairs=share_right(found, part.pairs.preferred))
    return line


def _correlation(measure: Callable[[ArrayLike, ArrayLike], float], q: Tensor, y: Tensor) -> float:
    """Return a correlation; NaN if all ratings are the same, the worst if all predictions are, or if they diverged."""
    if is_constant(y.double().numpy()):
        return math.nan
    found = measure(q.numpy(), y.numpy()) if bool(q.isfinite().all()) else math.nan
    return found if math.isfinite(found) else -1.0


def _cosine(share: float, warm_up: float = 0.05) -> float:
    """Return the factor of the rate at a share 0..1 of the training: linear warm-up, then cosine decay to 0."""
    if share < warm_up:
        return (share + 1e-3) / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (share - warm_up) / (1 - warm_up))))


def _finite(state: State) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def _copied(state: State) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
