"""Batches for training: random crops of prepared pictures, some of them with their spoilt versions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.embedded.encoders import PAD, START, UNKNOWN
from training.data import SETS, STEPS, Pixels, Rated
from training.learner import Batch
from training.plan import Plan
from training.words import Words


class Feed:
    """Draws batches for ever, each rated picture once before any comes again."""

    def __init__(self, rated: Rated, pixels: Pixels, rows: np.ndarray, words: Words, plan: Plan) -> None:
        self.rated, self.pixels, self.rows, self.words, self.plan = rated, pixels, rows, words, plan
        self.rng = np.random.default_rng(plan.seed)
        self.ids, self.mask = encode(words, rated.prompts)
        self.photographs = np.arange(len(rated.names), len(pixels.full))

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches."""
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
        sets = self.rng.integers(0, SETS, len(origin))
        spoilt = ((clean[origin] * SETS + sets) * STEPS)[:, None] + np.arange(STEPS)
        size, crop = int(self.rng.choice(self.plan.sides)), self.plan.crop
        coarse = [self._crop(self.pixels.coarse[i], size) for i in clean]
        coarse += [self._crop(self.pixels.spoilt_coarse[i], size) for i in spoilt.flat]
        fine = [self._crop(self.pixels.full[i], crop) for i in clean]
        fine += [self._crop(self.pixels.spoilt_region[i], crop) for i in spoilt.flat]
        longest = int(self.mask[rows].sum(1).max())
        return Batch(
            coarse=to_torch(np.stack(coarse)),
            fine=to_torch(np.stack(fine)).unsqueeze(1),
            ratings=torch.from_numpy(self.rated.ratings[rows]),
            groups=torch.from_numpy(self.rated.groups[rows]),
            ids=self.hide(self.ids[rows, :longest]),
            mask=self.mask[rows, :longest],
            same=torch.from_numpy(self.rated.prompt_ids[rows]),
            origin=torch.from_numpy(origin),
            kinds=torch.from_numpy(self.pixels.kinds[clean[origin], sets]),
            strengths=torch.from_numpy(self.pixels.strengths[clean[origin], sets]),
        )

    def hide(self, ids: Tensor) -> Tensor:
        """Replace some words by the unknown one, so that no prompt is learnt by heart."""
        hidden = torch.from_numpy(self.rng.random(ids.shape) < self.plan.word_drop) & (ids > START)
        return ids.masked_fill(hidden, UNKNOWN)

    def _crop(self, image: np.ndarray, side: int) -> np.ndarray:
        """Return a random square, mirrored every other time: neither changes how good a picture is."""
        y, x = self.rng.integers(0, image.shape[0] - side + 1, 2)
        view = image[y : y + side, x : x + side]
        return view[:, ::-1] if self.rng.random() < 0.5 else view


def to_torch(pixels: np.ndarray) -> Tensor:
    """Return uint8 (..., height, width, 3) as (..., 3, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)


def encode(words: Words, prompts: list[str], length: int = 64) -> tuple[Tensor, Tensor]:
    """Return token ids, int (n, length), and mask, as the product's text encoder sees prompts."""
    ids = torch.full((len(prompts), length), PAD)
    for row, prompt in enumerate(prompts):
        tokens = [START, *words.tokenizer.encode(prompt).ids][:length]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, ids != PAD
