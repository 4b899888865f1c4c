"""Freeze the convolutions, and learn all that follows them again on cached features.

Convolutions know the training pictures by heart, so what is trained beside them leans on them too much. Here they are
left out for every other picture: the statistics learn to do without, and the two answers average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mst_clipiqa.model.mstfe import TEMPLATES
from training.data import FULL, SETS, STEPS
from training.feed import Feed, encode, to_torch
from training.learner import Batch, Learner, losses_of, pixels
from training.plan import Recipe

_LADDERS = 400  # rated pictures whose spoilt versions are kept


@dataclass(frozen=True)
class Cache:
    """Features of n views: of the convolutions, and statistics; one coarse and K fine ones each."""

    conv_c: Tensor  # (n, D)
    stat_c: Tensor  # (n, S)
    conv_f: Tensor  # (n, K, D)
    stat_f: Tensor  # (n, K, S')


def refit(model: Learner, feed: Feed, recipe: Recipe) -> Learner:
    """Return the model with new statistics' embeddings, fusion, heads and text encoder."""
    plan = recipe.plan
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    rated, ladders, rungs = _rated(model.eval(), feed), *_ladders(model, feed, rng)
    model = _renewed(model, feed, recipe)
    trained = [p for n, p in model.named_parameters() if _is_trained(n)]
    steps = round(plan.refit_epochs * len(feed.rows) / plan.batch)
    optimiser = torch.optim.AdamW(trained, plan.rate, betas=(0.9, 0.98), weight_decay=plan.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.15, cycle_momentum=False)
    templates = encode(feed.words, list(TEMPLATES), 8)
    factor = {"quality": 1.0, "match": 1.0} | vars(recipe.weights) | {"caption": plan.refit_caption}
    means = rated.conv_c.mean(0), rated.conv_f.mean((0, 1))
    queue = np.empty(0, int)
    model.train()
    for _ in range(steps):
        if len(queue) < plan.batch:
            queue = np.concatenate([queue, rng.permutation(len(feed.rows))])
        rows, queue = queue[: plan.batch], queue[plan.batch :]
        steep = rng.choice(len(ladders), plan.refit_ladders, replace=False)
        batch = _batch(feed, rows, ladders[steep])
        parts = [_some(rated, rows, rng), _some(rungs, (steep[:, None] * (STEPS + 1)).ravel(), rng)]
        below = steep[:, None] * (STEPS + 1) + np.arange(1, STEPS + 1)
        features = _features(model, [*parts, _some(rungs, below.ravel(), rng)], means, plan.conv_drop)
        values = losses_of(model, features, batch, templates)
        model.zero_grad(set_to_none=True)
        sum(factor[name] * value for name, value in values.items()).backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def _is_trained(name: str) -> bool:
    return not name.startswith(("coarse.", "fine.", "text.words.")) or ".spectrum." in name


def _renewed(model: Learner, feed: Feed, recipe: Recipe) -> Learner:
    """Return a model with the convolutions and the statistics' norms of this one; the rest starts again."""
    new = Learner(recipe.sizes, feed.words.vectors, len(feed.rated.group_names), model.kind.out_features)
    kept = {n: v for n, v in model.state_dict().items() if not _is_trained(n) or ".spectrum.norm." in n}
    new.load_state_dict({**new.state_dict(), **kept})
    return new


def _features(model: Learner, parts: list[Cache], means: tuple[Tensor, Tensor], drop: float) -> tuple[Tensor, Tensor]:
    """Return f_c and f_f of one fine view each, with the convolutions left out for some pictures."""
    conv_c, stat_c, conv_f, stat_f = (
        torch.cat([getattr(p, n) for p in parts]) for n in ("conv_c", "stat_c", "conv_f", "stat_f")
    )
    keep = (torch.rand(len(conv_c), 1) >= drop).float()
    f_c = means[0] + keep * (conv_c - means[0]) + _embed(model.coarse, stat_c)
    f_f = means[1] + keep * (conv_f[:, 0] - means[1]) + _embed(model.fine, stat_f[:, 0])
    p = model.feature_drop
    return nn.functional.dropout(f_c, p), nn.functional.dropout(f_f, p)


def _embed(tower: nn.Module, described: Tensor) -> Tensor:
    tower.spectrum.norm.eval()  # its statistics are those of the run before
    return tower.spectrum.embed(described)


def _some(cache: Cache, rows: np.ndarray, rng: np.random.Generator) -> Cache:
    """Return rows of a cache with one fine view each."""
    at = torch.from_numpy(rows)
    view = torch.from_numpy(rng.integers(0, cache.conv_f.shape[1], len(rows)))
    return Cache(
        cache.conv_c[at], cache.stat_c[at], cache.conv_f[at, view].unsqueeze(1), cache.stat_f[at, view].unsqueeze(1)
    )


def _batch(feed: Feed, rows: np.ndarray, ladders: np.ndarray) -> Batch:
    """Return the truths of a step; ``ladders`` holds picture and set."""
    at = feed.rows[rows]
    m, empty = len(ladders), torch.empty(0)
    return Batch(
        coarse=empty,
        fine=empty,
        ratings=torch.from_numpy(feed.rated.ratings[at]),
        groups=torch.from_numpy(feed.rated.groups[at]),
        ids=feed.hide(feed.ids[at, : int(feed.mask[at].sum(1).max())]),
        mask=feed.mask[at, : int(feed.mask[at].sum(1).max())],
        same=torch.from_numpy(feed.rated.prompt_ids[at]),
        origin=torch.arange(len(rows), len(rows) + m),
        kinds=torch.from_numpy(feed.pixels.kinds[ladders[:, 0], ladders[:, 1]]),
        strengths=torch.from_numpy(feed.pixels.strengths[ladders[:, 0], ladders[:, 1]]),
    )


def _rated(model: Learner, feed: Feed) -> Cache:
    """Return features of the rated pictures, as the product sees them: the whole, and four crops."""
    crop = feed.plan.crop
    corners = [(y, x) for y in (0, FULL - crop) for x in (0, FULL - crop)]

    def views(i: int) -> tuple[np.ndarray, list[np.ndarray]]:
        full = feed.pixels.full[i]
        return _middle(feed.pixels.coarse[i], feed.plan.size), [full[y : y + crop, x : x + crop] for y, x in corners]

    return _encode(model, [views(i) for i in feed.rows])


def _ladders(model: Learner, feed: Feed, rng: np.random.Generator) -> tuple[np.ndarray, Cache]:
    """Return (picture, set) of each ladder, and the features of its clean picture and spoilt versions, in order."""
    chosen = np.concatenate([rng.choice(feed.rows, min(_LADDERS, len(feed.rows)), replace=False), feed.photographs])
    ladders = np.stack([chosen, rng.integers(0, SETS, len(chosen))], 1)
    px, size, crop, out = feed.pixels, feed.plan.size, feed.plan.crop, []
    for i, s in ladders:
        y, x = px.corners[i, s]
        out.append((_middle(px.coarse[i], size), [px.full[i][y : y + crop, x : x + crop]]))
        for row in range((i * SETS + s) * STEPS, (i * SETS + s + 1) * STEPS):
            out.append((_middle(px.spoilt_coarse[row], size), [px.spoilt_region[row][:crop, :crop]]))
    return ladders, _encode(model, out)


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    start = (image.shape[0] - side) // 2
    return image[start : start + side, start : start + side]


@torch.inference_mode()
def _encode(model: Learner, views: list[tuple[np.ndarray, list[np.ndarray]]]) -> Cache:
    parts: list[list[Tensor]] = [[], [], [], []]
    for start in range(0, len(views), 32):
        some = views[start : start + 32]
        coarse = pixels(to_torch(np.stack([c for c, _ in some])))
        fine = pixels(to_torch(np.stack([f for _, crops in some for f in crops])))
        with torch.autocast("cpu", torch.bfloat16):
            conv = model.coarse.convolved(coarse).float(), model.fine.convolved(fine).float()
        stat = model.coarse.spectrum.describe(coarse), model.fine.spectrum.describe(fine)
        k = len(some[0][1])
        found = conv[0], stat[0], conv[1].unflatten(0, (-1, k)), stat[1].unflatten(0, (-1, k))
        for into, value in zip(parts, found, strict=True):
            into.append(value)
    return Cache(*(torch.cat(part).clone() for part in parts))
