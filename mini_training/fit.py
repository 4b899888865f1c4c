"""What every training does: towers, text encoder and heads learnt together from the statistics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mini_training.data import Rated
from mini_training.describe import Described
from mini_training.distort import KINDS
from mini_training.learner import Batch, Drawn, Learner, Taught, losses
from mini_training.plan import Plan, Recipe
from mini_training.scenes import scenes
from mini_training.teacher import Teacher
from mini_training.words import Words
from mst_clipiqa.encoders.mini.pair import PAD, START, UNKNOWN
from mst_clipiqa.model.templates import TEMPLATES

CAPTION = 16
"""Tokens of the longest caption of a drawn scene, and some to spare."""


def fit(rated: Rated, described: Described, rows: np.ndarray, words: Words, recipe: Recipe) -> Learner:
    """Return the weights after the plan's last step, from the rated images at ``rows``; same seed, same weights."""
    plan = recipe.plan
    torch.manual_seed(plan.seed)
    model = Learner(recipe.sizes, words.vectors, len(rated.group_names), len(KINDS))
    model.standardise(described, torch.from_numpy(rows))
    trained = [p for p in model.parameters() if p.requires_grad]
    steps = round(plan.epochs * len(rows) / plan.batch)
    optimiser = torch.optim.AdamW(trained, plan.rate, betas=(0.9, 0.98), weight_decay=plan.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.15, cycle_momentum=False)
    templates = encode(words, list(TEMPLATES), 8)
    factor = {"quality": 1.0, "match": 1.0} | vars(recipe.weights)
    for _, batch in zip(range(steps), _batches(rated, described, rows, words, plan), strict=False):
        found = losses(model, batch, templates)
        model.zero_grad(set_to_none=True)
        sum(factor[name] * value for name, value in found.items()).backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def _batches(rated: Rated, described: Described, rows: np.ndarray, words: Words, plan: Plan) -> Iterator[Batch]:
    """Draw batches for ever, each rated image once before any comes again."""
    rng = np.random.default_rng(plan.seed)
    all_ids, all_mask = encode(words, rated.prompts)
    photographs, ladders = np.flatnonzero(described.rows < 0), np.flatnonzero(np.isin(described.rows, rows))
    said = [caption for scene in scenes() for caption in scene.captions]
    captions = encode(words, said, CAPTION)[0].unflatten(0, (-1, 3))
    teacher = Teacher(rated, described, rows)
    queue = np.empty(0, int)
    while True:
        if len(queue) < plan.batch:
            queue = np.concatenate([queue, rng.permutation(rows)])
        some, queue = queue[: plan.batch], queue[plan.batch :]
        half = plan.ladders // 2
        steep = np.concatenate([rng.choice(photographs, half), rng.choice(ladders, plan.ladders - half)])
        longest = int(all_mask[some].sum(1).max())
        ids, mask = all_ids[some, :longest], all_mask[some, :longest]
        hidden = torch.from_numpy(rng.random(ids.shape) < plan.word_drop) & (ids > START)
        drawn = torch.from_numpy(rng.choice(len(captions), plan.scenes))
        caption_ids = captions[drawn].transpose(0, 1).flatten(0, 1)
        taught = _taught(teacher, described, some, rng)
        yield Batch(
            coarse=torch.cat([described.coarse[some], taught.coarse, described.ladder_coarse[steep].flatten(0, 1)]),
            fine=torch.cat([described.fine[some], taught.fine, described.ladder_fine[steep].flatten(0, 1)]),
            ratings=torch.from_numpy(rated.ratings[some]),
            taught=taught,
            groups=torch.from_numpy(rated.groups[some]),
            ids=ids.masked_fill(hidden, UNKNOWN),
            mask=mask,
            same=torch.from_numpy(rated.prompt_ids[some]),
            kinds=described.kinds[steep],
            strengths=described.strengths[steep],
            drawn=Drawn(
                coarse=described.scene_coarse[drawn],
                fine=described.scene_fine[drawn],
                ids=caption_ids,
                mask=caption_ids != PAD,
            ),
        )


def _taught(teacher: Teacher, described: Described, some: np.ndarray, rng: np.random.Generator) -> Taught:
    """Ask the teacher of rated images, of each mixed with another one, and of each with another one's prompt."""
    share = torch.from_numpy(rng.uniform(0.5, 1, (len(some), 1))).float()
    other, order = rng.choice(teacher.rows, len(some)), rng.permutation(len(some))
    coarse, fine = (share * x[some] + (1 - share) * x[other] for x in (described.coarse, described.fine))
    right, wrong = teacher.answers(described.coarse[some], described.fine[some], some, some[order])
    return Taught(
        coarse=coarse,
        fine=fine,
        mixtures=teacher.answers(coarse, fine, some)[0],
        own=teacher.own(some),
        order=torch.from_numpy(order),
        changes=(wrong - right)[:, 1],
    )


def encode(words: Words, prompts: list[str], length: int = 64) -> tuple[Tensor, Tensor]:
    """Return token ids, int (n, length), and mask, as the product's text encoder sees prompts."""
    ids = torch.full((len(prompts), length), PAD)
    for row, prompt in enumerate(prompts):
        tokens = [START, *words.tokenizer.encode(prompt).ids][:length]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, ids != PAD
