"""Towers, text encoder and heads while they are trained together, with the side tasks that shape them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.embedded.towers import TextConfig, TextEncoder, Tower, TowerConfig
from mst_clipiqa.model.loss import mst_clipiqa_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text
from training.plan import Sizes


@dataclass(frozen=True)
class Batch:
    """One step's pixels, uint8, and truths; the last rows of the clean part may be photographs without ratings."""

    coarse: Tensor  # (n + m * STEPS, 3, 224, 224): n clean, then m spoilt in STEPS strengths each
    fine: Tensor  # (n + m * STEPS, K, 3, C, C)
    ratings: Tensor  # (r, 4): the first r <= n are rated
    groups: Tensor  # (r,)
    ids: Tensor  # (r, L) prompt tokens
    mask: Tensor  # (r, L)
    same: Tensor  # (r,): prompt number
    origin: Tensor  # (m,): row of the clean picture of each spoilt one
    kinds: Tensor  # (m,)
    strengths: Tensor  # (m, STEPS)


class Learner(nn.Module):
    """Everything that has weights during training."""

    def __init__(self, sizes: Sizes, vectors: Tensor, groups: int, kinds: int) -> None:
        super().__init__()
        d = sizes.dim
        self.coarse = Tower(_tower(sizes.coarse, sizes.coarse_blocks, sizes, "whole"))
        self.fine = Tower(_tower(sizes.fine, sizes.fine_blocks, sizes, "crop"))
        self.text = TextEncoder(TextConfig(len(vectors), vectors.shape[1], d, drop=sizes.text_drop))
        self.text.words.weight.data.copy_(vectors)
        self.text.words.weight.requires_grad_(False)
        self.quality = MSTCLIPIQA(d, "template")
        self.quality.head.temperature.data.fill_(20.0)
        self.match = MSTCLIPIQA(d, "prompt")
        self.match.head.w_o.bias.data.fill_(3.0)
        self.match.head.alpha.data.fill_(0.5)  # at the paper's 0 the prompt would be learnt of too late
        self.side_c, self.side_f = nn.Linear(d, 4), nn.Linear(d, 4)
        for side in (self.side_c, self.side_f):
            side.bias.data = torch.tensor([2.8, 2.8, 0.8, 0.8])  # about the means, so that no step is lost on them
        self.feature_drop = sizes.feature_drop
        self.group = nn.Linear(2 * d, groups)
        self.kind, self.strength = nn.Linear(2 * d, kinds), nn.Linear(2 * d, 1)
        self.caption_scale = nn.Parameter(torch.tensor(10.0))

    def features(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_c, f_f, float32 (batch, D), of uint8 views (batch, 3, S, S) and (batch, K, 3, C, C)."""
        with torch.autocast(coarse.device.type, torch.bfloat16):
            f_c = self.coarse(self._vary(pixels(coarse)))
            f_f = self.fine(self._vary(pixels(fine.flatten(0, 1))))
        f_c, f_f = f_c.float(), f_f.float().unflatten(0, fine.shape[:2]).mean(1)
        return F.dropout(f_c, self.feature_drop, self.training), F.dropout(f_f, self.feature_drop, self.training)

    def _vary(self, x: Tensor) -> Tensor:
        """Change contrast and brightness of each colour a little, in training only."""
        if not self.training:
            return x
        gain = 1 + 0.06 * torch.randn(len(x), 1, 1, 1) + 0.02 * torch.randn(len(x), 3, 1, 1)
        shift = 0.1 * torch.randn(len(x), 1, 1, 1) + 0.04 * torch.randn(len(x), 3, 1, 1)
        return x * gain.to(x.dtype) + shift.to(x.dtype)

    def templates(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return t, float (5, D)."""
        return self.text.sentence(self.text(ids, mask), mask)


def _tower(widths: tuple[int, ...], blocks: tuple[int, ...], sizes: Sizes, spectrum: str) -> TowerConfig:
    return TowerConfig(widths, blocks, sizes.dim, sizes.drop, sizes.pool, spectrum, sizes.spectrum_drop)


def pixels(x: Tensor) -> Tensor:
    """Return (x - 128) / 64, channels last; both steps are exact in bf16, which halves the memory moved."""
    return ((x.to(torch.bfloat16) - 128) * (1 / 64)).contiguous(memory_format=torch.channels_last)


def losses(model: Learner, batch: Batch, templates: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return each loss of a batch, unweighted."""
    return losses_of(model, model.features(batch.coarse, batch.fine), batch, templates)


def losses_of(
    model: Learner, features: tuple[Tensor, Tensor], batch: Batch, templates: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Return each loss of a batch whose features are there already."""
    f_c, f_f = features
    t = model.templates(*templates)
    r = len(batch.ratings)
    n = len(f_c) - batch.strengths.numel()
    y = 1 + batch.ratings * torch.tensor([0.8, 0.8, 1.0, 1.0])
    q = model.quality(f_c, f_f, Text(templates=t)).q
    tokens = model.text(batch.ids, batch.mask)
    match = model.match(f_c[:r], f_f[:r], Text(tokens=tokens, mask=batch.mask))
    order = torch.randperm(r)
    wrong = model.match(f_c[:r], f_f[:r], Text(tokens=tokens[order], mask=batch.mask[order])).q
    both = torch.cat([f_c, f_f], -1)
    out = {
        "quality": mst_clipiqa_loss(q[:r], y[:, 0]),
        "match": mst_clipiqa_loss(match.q, y[:, 1]),
        "towers": F.mse_loss(model.side_c(f_c[:r]), y) + F.mse_loss(model.side_f(f_f[:r]), y),
        "group": F.cross_entropy(model.group(both[:r]), batch.groups, label_smoothing=0.1),
        "shuffled": _shuffled(match.q, wrong, y[:, 1], batch.same != batch.same[order]),
        "caption": _caption(model, match.z, tokens, batch),
    }
    return out | _spoilt(model, q, both, n, batch)


def _shuffled(own: Tensor, wrong: Tensor, y: Tensor, differ: Tensor) -> Tensor:
    """Own prompt should score above another's by up to 0.5, the more so the better the picture shows its own."""
    margin = 0.25 * (y - 1).clamp(0, 2)
    return (torch.relu(margin - own + wrong) * differ).sum() / differ.sum().clamp(min=1)


def _caption(model: Learner, z: Tensor, tokens: Tensor, batch: Batch) -> Tensor:
    """Find a picture's prompt among the batch's; pictures weigh by how well they show it."""
    s = model.text.sentence(tokens, batch.mask)
    logits = model.caption_scale * F.normalize(z, dim=-1) @ s.T
    positive = (batch.same[:, None] == batch.same[None]).float()
    weight = batch.ratings[:, 1].clamp(0, 4)
    loss = -(logits.log_softmax(-1) * positive / positive.sum(1, keepdim=True)).sum(1)
    return (loss * weight).sum() / weight.sum()


def _spoilt(model: Learner, q: Tensor, both: Tensor, n: int, batch: Batch) -> dict[str, Tensor]:
    """A picture above its spoilt self, mild above strong; and name what was done to it."""
    steps = q[n:].unflatten(0, batch.strengths.shape)
    ladder = torch.cat([q[:n][batch.origin, None], steps], 1)
    strengths = torch.cat([torch.zeros_like(batch.strengths[:, :1]), batch.strengths], 1)
    hinge = torch.relu(0.6 * strengths.diff(dim=1) - (ladder[:, :-1] - ladder[:, 1:]))
    kinds = batch.kinds[:, None].expand_as(batch.strengths).flatten()
    clear = batch.strengths.flatten()  # a barely visible distortion has no name
    named = F.cross_entropy(model.kind(both[n:]), kinds, reduction="none")
    told = F.mse_loss(model.strength(both[n:]).squeeze(-1), batch.strengths.flatten())
    return {"spoilt": hinge.mean(), "kind": (named * clear).sum() / clear.sum() + told}
