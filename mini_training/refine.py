"""The prompt head trained again on frozen features, where a batch costs milliseconds.

Trained beside the encoders it learns the rated prompts by heart and hardly hears a new one: with another image's prompt
its score falls by 0.01. On features, three things hold it back and make it listen: an image's own prompt must be well
ahead of others, drawn scenes ask for the right colour, and features are jittered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mini_training.data import HIGH, LOW
from mini_training.fit import Known, Sets
from mini_training.learner import Learner, Prompts
from mini_training.plan import Plan, Refining
from mini_training.prepare import Maps, tensor
from mini_training.prompts import Captions
from mini_training.teacher import match_targets
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text, to_head


@dataclass(frozen=True)
class Features:
    """What the frozen encoders make of some images and prompts.

    Attributes:
        f_c, f_f: float, (n, D).
        tokens: T, float, (prompts, L, D).
        mask: m, bool, (prompts, L).
        said: int, (n, captions): of a scene, its captions' rows in ``tokens``; None for rated images.
    """

    f_c: Tensor
    f_f: Tensor
    tokens: Tensor
    mask: Tensor
    said: Tensor | None = None


@torch.no_grad()
def features(learner: Learner, maps: Maps, prompts: Prompts, batch: int = 16) -> Features:
    """Return what the frozen encoders make of images, with all their crops, and of prompts."""
    learner.eval()
    parts = [maps[i : i + batch] for i in range(0, len(maps.coarse), batch)]
    f_c = torch.cat([learner.coarse(tensor(part.coarse).unsqueeze(1)) for part in parts])
    f_f = torch.cat([learner.fine(tensor(part.fine)) for part in parts])
    return Features(f_c, f_f, learner.text(prompts.tokens), prompts.mask)


def refine(learner: Learner, sets: Sets, known: Known, captions: Captions, how: Refining) -> None:
    """Replace the learner's prompt head by one trained on features of the images that ``known`` names."""
    rated = features(learner, sets.maps.rated[: len(sets.rated.names)], sets.prompts)
    drawn = features(learner, sets.maps.scenes, captions.prompts)
    scenes = replace(drawn, said=torch.from_numpy(captions.rows))
    head = _refined(learner.plan, sets, known, how, (rated, scenes))
    shift = _shift(learner.plan, sets, known, how, (rated, scenes))
    with torch.no_grad():
        head.state_dict()["head.w_o.bias"].add_(shift)
    learner.match = head


def _refined(plan: Plan, sets: Sets, known: Known, how: Refining, of: tuple[Features, Features]) -> MSTCLIPIQA:
    """Return the mean of heads that begin with the same weights and differ in what they see when."""
    y = to_head(torch.from_numpy(match_targets(sets.described, sentences(sets), sets.rated, known.rows)), LOW, HIGH)
    means: list[Tensor] = []
    for i in range(how.heads):
        torch.manual_seed(how.seed)
        head = _Refined(fresh(replace(plan, alpha=how.alpha)), sets, known, replace(how, seed=how.seed + i), y)
        head.train(*of)
        weights = [weight.detach() / how.heads for weight in head.model.parameters()]
        means = [a + b for a, b in zip(means, weights, strict=True)] if means else weights
    with torch.no_grad():
        for weight, mean in zip(head.model.parameters(), means, strict=True):
            weight.copy_(mean)
    return head.model.eval()


def sentences(sets: Sets) -> np.ndarray:
    """Return the sentence vector of each image's prompt, float (n, width): MiniLM's, of unit length."""
    mask = sets.prompts.mask.unsqueeze(-1)
    vectors = F.normalize((sets.prompts.tokens * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    found: np.ndarray = vectors[sets.prompt_of].astype(float)
    return found


@torch.no_grad()
def _rates(head: MSTCLIPIQA, of: Features, prompt_of: Tensor, rows: np.ndarray) -> Tensor:
    own = prompt_of[rows]
    q: Tensor = head(of.f_c[rows], of.f_f[rows], Text(tokens=of.tokens[own], mask=of.mask[own])).q
    return q


def _shift(plan: Plan, sets: Sets, known: Known, how: Refining, of: tuple[Features, Features]) -> float:
    """Return by how much a head scores new prompts too low, on 1..5: it takes them for the wrong ones.

    Heads are trained without a part of the prompts each, and asked about the images of these.
    """
    prompts = sets.rated.prompt_ids[known.rows]
    part = np.random.default_rng(how.seed).permutation(prompts.max() + 1)[prompts] % how.folds
    y, errors = to_head(torch.from_numpy(sets.rated.ratings[:, 1]), LOW, HIGH), []
    for fold in range(how.folds):
        inside, outside = known.rows[part != fold], known.rows[part == fold]
        head = _refined(plan, sets, Known(inside, known.photos), replace(how, heads=how.fold_heads), of)
        errors.append(y[outside] - _rates(head, of[0], torch.from_numpy(sets.prompt_of), outside))
    return float(torch.cat(errors).mean())


def fresh(plan: Plan) -> MSTCLIPIQA:
    """Return an untrained model of correspondence."""
    model = MSTCLIPIQA(plan.dim, "prompt")
    state = model.state_dict()
    state["head.alpha"].fill_(plan.alpha)
    state["head.w_o.bias"].fill_(3.0)  # the middle of 1..5
    model.load_state_dict(state)
    return model


class _Refined:
    def __init__(self, model: MSTCLIPIQA, sets: Sets, known: Known, how: Refining, y: Tensor) -> None:
        self.model, self.known, self.how, self.prompt_of = model, known, how, torch.from_numpy(sets.prompt_of)
        self.y = y
        self.optimizer = torch.optim.AdamW(model.parameters(), how.rate, weight_decay=how.decay)
        self.rng = np.random.default_rng(how.seed)
        torch.manual_seed(how.seed)

    def train(self, rated: Features, scenes: Features) -> None:
        """Take every step; afterwards the model holds the running mean of its weights."""
        how, weights = self.how, list(self.model.parameters())
        steps = int(how.epochs * len(self.known.rows) / how.batch)
        mean = [weight.detach().clone() for weight in weights]
        spread = rated.f_c[self.known.rows].std(0), rated.f_f[self.known.rows].std(0)
        for step in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = how.rate * min(1, step / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = self._rated(rated, spread) + self._scenes(scenes, spread)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            torch._foreach_lerp_(mean, [weight.detach() for weight in weights], 1 - how.average)
        with torch.no_grad():
            for weight, average in zip(weights, mean, strict=True):
                weight.copy_(average)

    def _rated(self, of: Features, spread: tuple[Tensor, Tensor]) -> Tensor:
        rows = torch.from_numpy(self.rng.choice(self.known.rows, self.how.batch, replace=False))
        own, y = self.prompt_of[rows], self.y[rows]
        other = self.prompt_of[torch.from_numpy(self.rng.choice(self.known.rows, self.how.batch))]
        f_c, f_f = (
            self._jittered(f[rows], by, self.how.jitter) for f, by in zip((of.f_c, of.f_f), spread, strict=True)
        )
        seen = torch.rand(of.mask[own].shape) >= self.how.hidden
        seen[:, 0] = True
        q = self._score(f_c, f_f, of.tokens[own], of.mask[own] & seen)
        wrong = self._score(f_c, f_f, of.tokens[other], of.mask[other])
        counts = (own != other) & (y > 2)  # an image that shows neither prompt may score alike
        behind = torch.relu(self.how.ahead - (q - wrong)) * counts
        return mst_clipiqa_loss(q, y) + self.how.shuffled * behind.mean()

    def _scenes(self, of: Features, spread: tuple[Tensor, Tensor]) -> Tensor:
        if of.said is None:
            raise TypeError("Expected scenes with captions.")
        how, n = self.how, len(of.f_c)
        rows = torch.from_numpy(self.rng.choice(n, min(how.scenes, n), replace=False))
        f_c, f_f = (
            self._jittered(f[rows], by, how.scene_jitter) for f, by in zip((of.f_c, of.f_f), spread, strict=True)
        )
        said = of.said[rows]
        count, every = said.shape[1], said.flatten()
        seen = of.mask[every]
        seen = seen[:, : int(seen.sum(1).max())]  # captions are short
        tokens = of.tokens[every, : seen.shape[1]]
        q = self._score(f_c.repeat_interleave(count, 0), f_f.repeat_interleave(count, 0), tokens, seen)
        return _caption_loss(q.view(-1, count), how)

    def _score(self, f_c: Tensor, f_f: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        q: Tensor = self.model(f_c, f_f, Text(tokens=tokens, mask=mask)).q
        return q

    def _jittered(self, f: Tensor, spread: Tensor, by: float) -> Tensor:
        return f + by * spread * torch.randn_like(f)


def _caption_loss(q: Tensor, how: Refining) -> Tensor:
    """Return what scores of captions lose, float (scenes, captions): right, without a colour, wrong ones.

    The right caption should win against the wrong ones, and the one without a colour should lie between.
    """
    right, without, wrong = q[:, :1], q[:, 1:2], q[:, 2:]
    choice = how.sharpness * torch.cat([right, wrong], 1)
    told = F.cross_entropy(choice, torch.zeros(len(q), dtype=torch.long))
    behind = torch.relu(how.apart - (right - without)).mean() + torch.relu(how.apart - (without - wrong)).mean()
    return how.scene * told + how.between * behind
