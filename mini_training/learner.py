"""Towers, text encoder and heads while they are trained together, with the side tasks that shape them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mini_training.describe import Described, configs
from mini_training.plan import Sizes
from mst_clipiqa.encoders.mini.towers import TextConfig, TextEncoder, Tower
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text


@dataclass(frozen=True)
class Batch:
    """One step: statistics of r rated images, r mixtures, m ladders of 1 + STEPS images each; and truths."""

    coarse: Tensor  # (2 * r + m * (1 + STEPS), S_c)
    fine: Tensor  # (2 * r + m * (1 + STEPS), S_f)
    ratings: Tensor  # (r, 4)
    taught: Taught
    groups: Tensor  # (r,)
    ids: Tensor  # (r, L) prompt tokens
    mask: Tensor  # (r, L)
    same: Tensor  # (r,): prompt number
    kinds: Tensor  # (m,)
    strengths: Tensor  # (m, STEPS)
    drawn: Drawn


@dataclass(frozen=True)
class Taught:
    """What the teacher says of the r rated images of a step, and of a mixture of each with another one."""

    coarse: Tensor  # (r, S_c), statistics of the mixtures; the prompt is that of the rated image
    fine: Tensor  # (r, S_f)
    mixtures: Tensor  # (r, 2): their quality and correspondence
    own: Tensor  # (r, 2): those of the rated images
    order: Tensor  # int (r,): whose prompt each rated image is wrongly asked with
    changes: Tensor  # (r,): by how much correspondence then changes


@dataclass(frozen=True)
class Drawn:
    """Statistics of k drawn scenes, and tokens of their captions: all the best, all the middle, all the worst ones."""

    coarse: Tensor  # (k, S_c)
    fine: Tensor  # (k, S_f)
    ids: Tensor  # (3 * k, L)
    mask: Tensor  # (3 * k, L)


class Learner(nn.Module):
    """Everything that has weights during training."""

    def __init__(self, sizes: Sizes, vectors: Tensor, groups: int, kinds: int) -> None:
        super().__init__()
        d = sizes.dim
        self.coarse, self.fine = (Tower(config) for config in configs(d, sizes.hidden, sizes.drop))
        self.text = TextEncoder(TextConfig(len(vectors), vectors.shape[1], d, drop=sizes.text_drop))
        nn.init.normal_(self.text.positions, std=0.02)
        self.text.words.weight.data.copy_(vectors)
        self.text.words.weight.requires_grad_(False)
        self.quality = MSTCLIPIQA(d, "template")
        nn.init.constant_(self.quality.head.get_parameter("temperature"), 20.0)
        self.match = MSTCLIPIQA(d, "prompt")
        # From the paper's alpha of 0 the prompt would be learnt too late.
        nn.init.constant_(self.match.head.get_parameter("alpha"), 0.5)
        nn.init.constant_(self.match.head.get_parameter("w_o.bias"), 3.0)
        self.side_c, self.side_f = nn.Linear(d, 4), nn.Linear(d, 4)
        for side in (self.side_c, self.side_f):
            side.bias.data = torch.tensor([2.8, 2.8, 0.8, 0.8])  # about the means, so that no step is lost on them
        self.feature_drop = sizes.feature_drop
        self.group = nn.Linear(2 * d, groups)
        self.kind, self.strength = nn.Linear(2 * d, kinds), nn.Linear(2 * d, 1)
        self.caption_scale = nn.Parameter(torch.tensor(10.0))

    def standardise(self, described: Described, rows: Tensor) -> Learner:
        """Scale the statistics by their mean and deviation over some of the images, as float16 will store these."""
        for tower, values in ((self.coarse, described.coarse[rows]), (self.fine, described.fine[rows])):
            tower.mean.copy_(values.mean(0).half())
            tower.scale.copy_((1 / values.std(0).clamp(min=1e-3)).half())
        return self

    def features(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_c, f_f, float32 (batch, D), of statistics."""
        f_c, f_f = self.coarse.embed(coarse), self.fine.embed(fine)
        return F.dropout(f_c, self.feature_drop, self.training), F.dropout(f_f, self.feature_drop, self.training)

    def templates(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return t, float (5, D)."""
        return self.text.sentence(self.text(ids, mask), mask)


def losses(model: Learner, batch: Batch, templates: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return each loss of a batch, unweighted; ``templates`` are tokens and mask of the five."""
    f_c, f_f = model.features(batch.coarse, batch.fine)
    t = model.templates(*templates)
    r = len(batch.ratings)
    taught = batch.taught
    y = 1 + torch.cat([0.8 * taught.own, batch.ratings[:, 2:]], 1)
    q = model.quality(f_c, f_f, Text(templates=t)).q
    tokens = model.text(batch.ids, batch.mask)
    twice = Text(tokens=tokens.repeat(2, 1, 1), mask=batch.mask.repeat(2, 1))
    match = model.match(f_c[: 2 * r], f_f[: 2 * r], twice)
    own = match.q[:r]
    swapped = Text(tokens=tokens[taught.order], mask=batch.mask[taught.order])
    wrong = model.match(f_c[:r], f_f[:r], swapped).q
    both = torch.cat([f_c, f_f], -1)
    out = {
        "quality": mst_clipiqa_loss(q[:r], y[:, 0]),
        "match": mst_clipiqa_loss(own, y[:, 1]),
        "mixed": F.mse_loss(torch.stack([q[r : 2 * r], match.q[r:]], 1), 1 + 0.8 * taught.mixtures),
        "towers": F.mse_loss(model.side_c(f_c[:r]), y) + F.mse_loss(model.side_f(f_f[:r]), y),
        "group": F.cross_entropy(model.group(both[:r]), batch.groups, label_smoothing=0.1),
        "shuffled": _shuffled(own, wrong - 0.8 * taught.changes, y[:, 1], batch.same != batch.same[taught.order]),
        "caption": _caption(model, match.z[:r], tokens, batch),
    }
    return out | _distorted(model, q[2 * r :], both[2 * r :], batch) | {"scene": _scene(model, batch.drawn)}


def _shuffled(own: Tensor, wrong: Tensor, y: Tensor, differ: Tensor) -> Tensor:
    """Own prompt should score above another's by up to 0.2, the more so the better the image shows its own.

    Some prompts are harder than others whatever the image: ``wrong`` is cleared of that beforehand.
    """
    margin = 0.1 * (y - 1).clamp(0, 2)
    return (torch.relu(margin - own + wrong) * differ).sum() / differ.sum().clamp(min=1)


def _scene(model: Learner, drawn: Drawn) -> Tensor:
    """A scene's caption above the same without its colour, and that above one with a wrong colour, by 0.1 each."""
    f_c, f_f = (f.repeat(3, 1) for f in model.features(drawn.coarse, drawn.fine))
    tokens = model.text(drawn.ids, drawn.mask)
    right, without, wrong = model.match(f_c, f_f, Text(tokens=tokens, mask=drawn.mask)).q.view(3, -1)
    return (torch.relu(0.1 - right + without) + torch.relu(0.1 - without + wrong)).mean()


def _caption(model: Learner, z: Tensor, tokens: Tensor, batch: Batch) -> Tensor:
    """Find an image's prompt among the batch's; images weigh by how well they show it."""
    s = model.text.sentence(tokens, batch.mask)
    logits = model.caption_scale * F.normalize(z, dim=-1) @ s.T
    positive = (batch.same[:, None] == batch.same[None]).float()
    weight = batch.taught.own[:, 1].clamp(0, 4)
    loss = -(logits.log_softmax(-1) * positive / positive.sum(1, keepdim=True)).sum(1)
    return (loss * weight).sum() / weight.sum()


def _distorted(model: Learner, q: Tensor, both: Tensor, batch: Batch) -> dict[str, Tensor]:
    """An image above its distorted self, mild above strong; and name what was done to it."""
    m, steps = batch.strengths.shape
    ladder, both = q.view(m, 1 + steps), both.view(m, 1 + steps, -1)[:, 1:]
    strengths = torch.cat([torch.zeros_like(batch.strengths[:, :1]), batch.strengths], 1)
    hinge = torch.relu(0.6 * strengths.diff(dim=1) - (ladder[:, :-1] - ladder[:, 1:]))
    named = F.cross_entropy(model.kind(both).flatten(0, 1), batch.kinds.repeat_interleave(steps), reduction="none")
    clear = batch.strengths.flatten()  # a barely visible distortion has no name
    told = F.mse_loss(model.strength(both).squeeze(-1), batch.strengths)
    return {"distorted": hinge.mean(), "kind": (named * clear).sum() / clear.sum() + told}
