"""Training proper: towers, text encoder and heads together, on ratings and side tasks, one cycle after another."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mst_clipiqa.model.mstfe import TEMPLATES
from training.distort import KINDS
from training.feed import Feed, encode
from training.learner import Learner, losses
from training.muon import Muon
from training.plan import Plan, Recipe

Watch = Callable[[Learner], object]


def train(feed: Feed, recipe: Recipe, watch: Watch | None = None, start: dict[str, Tensor] | None = None) -> Learner:
    """Return the averaged weights after all cycles of the plan.

    Args:
        feed: where batches come from.
        recipe: sizes, plan and weights of the tasks.
        watch: called with the averaged weights ten times a cycle; what it returns is printed.
        start: weights to go on from.
    """
    torch.manual_seed(recipe.plan.seed)
    model = Learner(recipe.sizes, feed.words.vectors, len(feed.rated.group_names), len(KINDS))
    model.to(memory_format=torch.channels_last)
    if start:
        model.load_state_dict(start)
    for epochs, share in recipe.plan.cycles:
        model = _cycle(model, feed, recipe, round(epochs * len(feed.rows) / recipe.plan.batch), share, watch)
    return model.eval()


def _cycle(model: Learner, feed: Feed, recipe: Recipe, steps: int, share: float, watch: Watch | None) -> Learner:
    """Go once up and down the learning rate; return the weights averaged over the last part."""
    plan = recipe.plan
    average = copy.deepcopy(model).requires_grad_(False)
    optimisers = _optimisers(model, plan, share)
    schedules = [_one_cycle(o, steps) for o in optimisers]
    templates = encode(feed.words, list(TEMPLATES), 8)
    factor = {"quality": 1.0, "match": 1.0} | vars(recipe.weights)
    report = _Report(steps)
    for step, batch in zip(range(1, steps + 1), feed, strict=False):
        model.train()
        parts = losses(model, batch, templates)
        model.zero_grad(set_to_none=True)
        sum(factor[name] * value for name, value in parts.items()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        for o in (*optimisers, *schedules):
            o.step()
        _follow(average, model, 1 - 1 / min(plan.average * steps + 1, step))
        report.add(step, parts, average, watch)
    return average.requires_grad_(True)


class _Report:
    """Prints the mean losses ten times a cycle."""

    def __init__(self, steps: int) -> None:
        self.steps, self.every = steps, max(steps // 10, 1)
        self.sums: dict[str, float] = {}
        self.start = time.perf_counter()

    def add(self, step: int, parts: dict[str, Tensor], average: Learner, watch: Watch | None) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        if step % self.every:
            return
        means = " ".join(f"{name} {value / self.every:.3f}" for name, value in self.sums.items())
        seconds = time.perf_counter() - self.start
        print(f"{step}/{self.steps} {seconds:.0f}s {means}", watch(average) if watch else "", flush=True)
        self.sums = {}


def _optimisers(model: Learner, plan: Plan, share: float) -> list[torch.optim.Optimizer]:
    """Muon for the kernels of the towers, AdamW for all else; the text encoder learns more slowly."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    kernels = [p for _, p in named if p.ndim == 4]
    text = [p for n, p in named if n.startswith("text.")]
    rest = [p for n, p in named if p.ndim != 4 and not n.startswith("text.")]
    rate = plan.rate * share
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": plan.decay, "lr": rate},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "lr": rate},
        {"params": text, "weight_decay": plan.decay, "lr": rate * plan.text},
    ]
    return [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
        Muon(kernels, lr=plan.muon * share, decay=plan.decay),
    ]


def _one_cycle(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    peaks = [group["lr"] for group in optimiser.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, steps, pct_start=0.15, cycle_momentum=False)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the averaged weights, and the statistics of the batch norms, towards the model's."""
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)
