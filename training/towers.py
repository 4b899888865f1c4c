"""Stage 3: train towers, text encoder and heads together on ratings and side tasks.

python -m training.towers --data DIR --work DIR --out FILE [--parts train] [--epochs 60] [--seed 0]
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mst_clipiqa.model.mst_clipiqa import Text
from mst_clipiqa.model.mstfe import TEMPLATES
from training.data import FULL, STEPS, Pixels, Rated
from training.learner import Batch, Learner, losses
from training.muon import Muon
from training.plan import Plan, Sizes, Weights
from training.words import Words


class Feed:
    """Draws batches."""

    def __init__(self, rated: Rated, pixels: Pixels, rows: np.ndarray, words: Words, plan: Plan) -> None:
        self.rated, self.pixels, self.rows, self.plan = rated, pixels, rows, plan
        self.rng = np.random.default_rng(plan.seed)
        self.ids, self.mask = encode(words, rated.prompts)
        self.photographs = np.arange(len(rated.names), len(pixels.full))

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever, each picture once before any comes again."""
        queue = np.empty(0, int)
        while True:
            if len(queue) < self.plan.batch:
                queue = np.concatenate([queue, self.rng.permutation(self.rows)])
            rows, queue = queue[: self.plan.batch], queue[self.plan.batch :]
            yield self._batch(rows)

    def _batch(self, rows: np.ndarray) -> Batch:
        photos = self.rng.choice(self.photographs, self.plan.photographs, replace=False)
        clean = np.concatenate([rows, photos])
        origin = np.arange(len(clean) - self.plan.spoilt, len(clean))
        sets = self.rng.integers(0, self.pixels.kinds.shape[1], len(origin))
        spoilt = ((clean[origin] * self.pixels.kinds.shape[1] + sets) * STEPS)[:, None] + np.arange(STEPS)
        coarse = [self._crop(self.pixels.coarse[i], self.plan.size) for i in clean]
        fine = [[self._crop(self.pixels.full[i], self.plan.crop) for _ in range(self.plan.crops)] for i in clean]
        for i in spoilt.flatten():
            coarse.append(self._crop(self.pixels.spoilt_coarse[i], self.plan.size))
            fine.append([self._crop(self.pixels.spoilt_region[i], self.plan.crop) for _ in range(self.plan.crops)])
        longest = int(self.mask[rows].sum(1).max())
        return Batch(
            coarse=to_torch(np.stack(coarse)),
            fine=to_torch(np.array(fine)),
            ratings=torch.from_numpy(self.rated.ratings[rows]),
            groups=torch.from_numpy(self.rated.groups[rows]),
            ids=self.ids[rows, :longest],
            mask=self.mask[rows, :longest],
            same=torch.from_numpy(self.rated.prompt_ids[rows]),
            origin=torch.from_numpy(origin),
            kinds=torch.from_numpy(self.pixels.kinds[clean[origin], sets]),
            strengths=torch.from_numpy(self.pixels.strengths[clean[origin], sets]),
        )

    def _crop(self, image: np.ndarray, side: int) -> np.ndarray:
        """Return a random square, mirrored every other time: neither changes how good a picture is."""
        y, x = self.rng.integers(0, image.shape[0] - side + 1, 2)
        view = image[y : y + side, x : x + side]
        return view[:, ::-1] if self.rng.random() < 0.5 else view


def to_torch(pixels: np.ndarray) -> Tensor:
    """Return uint8 (..., height, width, 3) as (..., 3, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)


def encode(words: Words, prompts: list[str], length: int = 64) -> tuple[Tensor, Tensor]:
    """Return token ids, int (n, length), and mask; every prompt starts with [CLS]."""
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens = [2, *words.tokenizer.encode(prompt).ids][:length]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, ids != 0


def train(feed: Feed, words: Words, sizes: Sizes, plan: Plan, weights: Weights, check=None, keep=None) -> Learner:
    """Return the averaged weights after one cycle."""
    torch.manual_seed(plan.seed)
    model = Learner(sizes, words.vectors, len(feed.rated.group_names), 8).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    steps = round(plan.epochs * len(feed.rows) / plan.batch)
    optimisers = _optimisers(model, plan)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            o, [g["lr"] for g in o.param_groups], steps, pct_start=0.15, cycle_momentum=False
        )
        for o in optimisers
    ]
    ids, mask = encode(words, list(TEMPLATES), 8)
    factor = {"quality": 1.0, "match": 1.0} | vars(weights)
    sums: dict[str, float] = {}
    start = time.time()
    for step, batch in zip(range(1, steps + 1), feed, strict=False):
        model.train()
        parts = losses(model, batch, (ids, mask))
        total = sum(factor[k] * v for k, v in parts.items())
        model.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        for o in (*optimisers, *schedules):
            o.step()
        _follow(average, model, 1 - 1 / min(plan.average * steps + 1, step))
        for k, v in parts.items():
            sums[k] = sums.get(k, 0) + v.item()
        every = max(steps // 10, 1)
        if step % every == 0:
            print(
                step,
                steps,
                f"{time.time() - start:.0f}s",
                {k: round(v / every, 3) for k, v in sums.items()},
                check(average) if check else "",
                flush=True,
            )
            sums = {}
            if keep:
                torch.save(average.state_dict(), keep)
    return average.eval()


def _optimisers(model: Learner, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the kernels of the towers, AdamW for all else; the text encoder learns more slowly."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    kernels = [p for n, p in named if p.ndim == 4 and plan.muon]
    text = [p for n, p in named if n.startswith("text.")]
    rest = [p for n, p in named if not n.startswith("text.") and not (p.ndim == 4 and plan.muon)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": plan.decay, "lr": plan.rate},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "lr": plan.rate},
        {"params": text, "weight_decay": plan.decay, "lr": plan.rate * plan.text},
    ]
    out: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))]
    return [*out, Muon(kernels, plan.muon, decay=plan.decay)] if kernels else out


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if a.dtype.is_floating_point and a.numel() and a.data_ptr() != b.data_ptr():
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


@torch.inference_mode()
def predict(
    model: Learner, words: Words, rated: Rated, pixels: Pixels, view: np.ndarray, rows, crop: int
) -> np.ndarray:
    """Return quality and match in native units, float (n, 2), as the product sees pictures."""
    model.eval()
    ids, mask = encode(words, rated.prompts)
    t = model.templates(*encode(words, list(TEMPLATES), 8))
    at = [(y, x) for y in (0, FULL - crop) for x in (0, FULL - crop)]
    at = [(round(y), round(x)) for y in (0, FULL - crop) for x in (0, FULL - crop)]
    out = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        fine = np.stack([np.stack([pixels.full[i][y : y + crop, x : x + crop] for y, x in at]) for i in part])
        f_c, f_f = model.features(to_torch(view[part]), to_torch(fine))
        q = model.quality(f_c, f_f, Text(templates=t)).q
        m = model.match(f_c, f_f, Text(tokens=model.text(ids[part], mask[part]), mask=mask[part])).q
        out.append(torch.stack([q, m], 1))
    return ((torch.cat(out).numpy() - 1) / 4 * 5).astype(np.float32)
