"""Everything that is trained, and what it loses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mini_training.plan import FROZEN, Plan, Weights
from mini_training.pretrained import lite0, lite0_gains
from mini_training.trunk import Trunk
from mst_clipiqa.encoders.mini.towers import FARTHEST, Tower, TowerConfig
from mst_clipiqa.model.loss import mst_clipiqa_loss, ranking_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text


@dataclass(frozen=True)
class Prompts:
    """MiniLM's states of every prompt.

    Attributes:
        tokens: float, (n, L, width).
        mask: bool, (n, L).
        templates: float, (5, width): the mean state of each of the five templates.
    """

    tokens: Tensor
    mask: Tensor
    templates: Tensor

    def to(self, device: torch.device) -> Prompts:
        """Return the same on a device."""
        return Prompts(self.tokens.to(device), self.mask.to(device), self.templates.to(device))


class Stream(nn.Module):
    """One tower in training."""

    mean: Tensor
    scale: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.tower = lite0(TowerConfig(plan.dim)).requires_grad_(False)
        self.trunk = Trunk(self.tower, FROZEN, lite0_gains())
        self.drop = plan.drop
        self.project = nn.Linear(self.tower.config.inputs, plan.dim)
        self.register_buffer("mean", torch.zeros(self.tower.config.inputs))
        self.register_buffer("scale", torch.ones(self.tower.config.inputs))

    @torch.no_grad()
    def standardise_by(self, maps: Tensor) -> None:
        """Set mean and scale of the pooled numbers by some views."""
        numbers = self.trunk(maps)
        self.mean.copy_(numbers.mean(0))
        self.scale.copy_(1 / (numbers.std(0) + 1e-3))

    def forward(self, views: Tensor) -> Tensor:
        """Return embeddings (batch, D) of K views each.

        Args:
            views: their maps, bf16 or float32 (batch, K, h, w, channels), or what ``describe`` returns
                (batch, K, inputs).
        """
        described = views if views.ndim == 3 else self.describe(views)
        embedding: Tensor = self.project(F.dropout(described, self.drop, self.training).mean(1))
        return embedding

    def describe(self, maps: Tensor) -> Tensor:
        """Return the standardised numbers (batch, K, inputs) that describe views, from maps."""
        numbers = ((self.trunk(maps.flatten(0, 1)) - self.mean) * self.scale).clamp(-FARTHEST, FARTHEST)
        described: Tensor = numbers.unflatten(0, maps.shape[:2])
        return described

    def shipped(self) -> Tower:
        """Return the tower with what was learnt."""
        self.trunk.write(self.tower)
        state = {"mean": self.mean, "scale": self.scale}
        self.tower.load_state_dict(
            state | {f"project.{k}": v for k, v in self.project.state_dict().items()}, strict=False
        )
        return self.tower


class Learner(nn.Module):
    """Both streams, the map of token states, both targets, and LIVE in the Wild's own scale."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.coarse, self.fine = Stream(plan), Stream(plan)
        self.text = nn.Linear(plan.text_dim, plan.dim)
        self.quality, self.match = MSTCLIPIQA(plan.dim, "template"), MSTCLIPIQA(plan.dim, "prompt")
        self.photo_scale = nn.Parameter(torch.ones(()))
        self.photo_shift = nn.Parameter(torch.zeros(()))
        self.quality.state_dict()["head.temperature"].fill_(plan.temperature)
        self.match.state_dict()["head.alpha"].fill_(plan.alpha)
        self.match.state_dict()["head.w_o.bias"].fill_(3.0)  # the middle of 1..5

    @torch.no_grad()
    def centre(self, prompts: Prompts) -> None:
        """Set the shift of token states so that the five templates lie around zero: their differences are small."""
        self.text.bias.copy_(-self.text.weight @ prompts.templates.mean(0))

    def score_quality(self, f_c: Tensor, f_f: Tensor, prompts: Prompts) -> Tensor:
        """Return quality on 1..5."""
        templates = F.normalize(self.text(prompts.templates), dim=-1)
        q: Tensor = self.quality(f_c, f_f, Text(templates=templates)).q
        return q

    def score_match(self, f_c: Tensor, f_f: Tensor, prompts: Prompts, which: Tensor) -> Tensor:
        """Return correspondence on 1..5 with prompts ``which``, int (batch,)."""
        tokens = self.text(F.dropout(prompts.tokens[which], self.plan.text_drop, self.training))
        q: Tensor = self.match(f_c, f_f, Text(tokens=tokens, mask=prompts.mask[which])).q
        return q


def ladder_loss(q: Tensor, step: float) -> Tensor:
    """Return what ladders lose that do not fall by ``step`` a rung; q: (ladders, 1 + rungs), the clean image first.

    The last rung must besides be well below the clean image.
    """
    rungs = torch.relu(step - (q[:, :-1] - q[:, 1:])).mean()
    top = torch.minimum(q[:, 0].detach() - 0.6, torch.tensor(2.6))
    return 2 * (rungs + 0.5 * torch.relu(q[:, -1] - top).mean())


def photo_loss(learner: Learner, q: Tensor, y: Tensor) -> Tensor:
    """Return the loss of photographs, whose ratings are on a scale of their own."""
    return mst_clipiqa_loss(learner.photo_scale * q + learner.photo_shift, y)


def shuffled_loss(own: Tensor, other: Tensor, different: Tensor, y: Tensor, ahead: float) -> Tensor:
    """Return the loss where another prompt scores as well as an image's own; not for images that show neither."""
    return (torch.relu(ahead - (own - other)) * different * (y > 2).float()).mean()


def rated_loss(q: Tensor, y: Tensor, same: Tensor, weights: Weights) -> Tensor:
    """Return the paper's loss, and the ranking loss within generators again."""
    loss = mst_clipiqa_loss(q, y)
    if not weights.within:
        return loss
    alike, counts = torch.unique(same, dim=0, return_counts=True)  # images of one generator have the same row
    pairs = torch.stack([ranking_loss(q[row], y[row]) for row in alike])
    within: Tensor = (pairs * counts).sum() / len(q)
    return loss + weights.within * within
