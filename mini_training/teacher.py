"""A kernel regression that the networks learn from: smooth answers for the rated images, and for mixtures of them.

It keeps apart what two kinds of images say. *Within* a generator's images, ratings are a smooth function of the
statistics and of the prompt, every generator and setting having a level of its own (random effects). *Between* them, an
image's level is the mean level of generators and settings, by how likely each is to have made it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mini_training.data import Rated
from mini_training.describe import Described
from mini_training.words import sentences
from mst_clipiqa.encoders.mini.statistics import SIZE
from mst_clipiqa.encoders.mini.towers import FARTHEST

WITHIN, BETWEEN, LEVEL = 2.0, 0.1, 10.0
"""Variance of the ratings' noise, of the generator's, and of a generator's level, in units of the kernels'."""

SHARPEN = 2.0
"""Power of the likelihoods of generators."""


@dataclass(frozen=True)
class _Part:
    """One target: mean, weights of the rated images, levels of generators."""

    mean: float
    weights: Tensor  # (n,)
    levels: Tensor  # (groups,)


class Teacher:
    """Fitted to some rated images; answers for any statistics, asked with the prompt of any of these images."""

    def __init__(self, rated: Rated, described: Described, rows: np.ndarray) -> None:
        """Solve for the weights; a few seconds for two thousand images."""
        self.rows = rows
        self._place = np.full(len(rated.names), -1)
        self._place[rows] = np.arange(len(rows))
        families = _families(described.coarse[rows], described.fine[rows])
        self._mean = [x.mean(0) for x in families]
        self._scale = [1 / x.std(0).clamp(min=1e-3) for x in families]
        self._own = self._standard(families)
        self._lengths = [x.square().sum(1) for x in self._own]
        self._text = torch.from_numpy(_text_kernels([rated.prompts[i] for i in rows])).float()
        near, all_near = self._images(self._own)
        self._groups, index = np.unique(rated.groups[rows], return_inverse=True)
        member = torch.from_numpy(index[:, None] == np.arange(len(self._groups))).double()
        self._prior = member.mean(0)
        self._maker = _solve(all_near, BETWEEN, member - self._prior)
        kernels = (near, self._with_text(near, self._text))
        ratings = torch.from_numpy(rated.ratings[rows, :2]).double()
        solved = [_target(kernel, y, member) for kernel, y in zip(kernels, ratings.T, strict=True)]
        self._parts = [part for part, _ in solved]
        self._answers = torch.stack([answer for _, answer in solved], 1).float()

    def own(self, rows: np.ndarray) -> Tensor:
        """Return quality and correspondence, float (batch, 2), of rated images, whose generator is known."""
        return self._answers[self._place[rows]]

    def answers(self, coarse: Tensor, fine: Tensor, *prompts: np.ndarray) -> list[Tensor]:
        """Return quality and correspondence, float (batch, 2), in the raters' units, for each array of prompts.

        Args:
            coarse: statistics of the whole image, (batch, S_c).
            fine: statistics of its crops, (batch, S_f).
            prompts: each int (batch,): the rated image whose prompt each is asked with.
        """
        near, level = self._seen(coarse, fine)
        return [self._within(near, asked) + level for asked in prompts]

    def parts(self, coarse: Tensor, fine: Tensor, prompts: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the two sums of an answer: what is said within a generator's images, and the generator's level."""
        near, level = self._seen(coarse, fine)
        return self._within(near, prompts), level

    def levels(self, groups: np.ndarray) -> Tensor:
        """Return the levels of generators and settings that were trained on, float (batch, 2)."""
        table = torch.stack([part.levels for part in self._parts], 1).float()
        return table[np.searchsorted(self._groups, groups)]

    def _seen(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Return how near images are to the rated ones, (batch, n), and the levels of their likely makers."""
        near, all_near = self._images(self._standard(_families(coarse, fine)))
        maker = (self._prior.float() + all_near @ self._maker.float()).clamp(min=1e-4) ** SHARPEN
        maker = maker / maker.sum(1, keepdim=True)
        return near, torch.stack([maker @ part.levels.float() for part in self._parts], 1)

    def _within(self, near: Tensor, prompts: np.ndarray) -> Tensor:
        kernels = (near, self._with_text(near, self._text[:, self._place[prompts]]))
        said = [part.mean + kernel @ part.weights.float() for part, kernel in zip(self._parts, kernels, strict=True)]
        return torch.stack(said, 1)

    def _standard(self, families: list[Tensor]) -> list[Tensor]:
        found = zip(families, self._mean, self._scale, strict=True)
        return [((x - mean) * scale).clamp(-FARTHEST, FARTHEST) for x, mean, scale in found]

    def _images(self, families: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return how near images are to the rated ones: the mean over families, and all statistics at once."""
        found = zip(families, self._own, self._lengths, strict=True)
        apart = [(x.square().sum(1)[:, None] + lengths - 2 * x @ own.T).clamp(min=0) for x, own, lengths in found]
        sizes = [x.shape[1] for x in families]
        each = [torch.exp(-a / (2 * size)) for a, size in zip(apart, sizes, strict=True)]
        return torch.stack(each).mean(0), torch.exp(-torch.stack(apart).sum(0) / (2 * sum(sizes)))

    @staticmethod
    def _with_text(near: Tensor, text: Tensor) -> Tensor:
        """Return the kernel of correspondence: image, meaning, length, and image with meaning."""
        meaning, length = text[0], text[1]
        return near + 0.3 * meaning + 0.2 * length + near * meaning


def _target(kernel: Tensor, y: Tensor, member: Tensor) -> tuple[_Part, Tensor]:
    """Solve for one target; return it and its answers for the rated images."""
    kernel, mean = kernel.double(), float(y.mean())
    weights = _solve(kernel + LEVEL * member @ member.T, WITHIN, y - mean)
    within = mean + kernel @ weights
    levels = member.T @ (y - within) / member.sum(0)
    return _Part(mean, weights, levels), within + member @ levels


def _solve(kernel: Tensor, noise: float, target: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve(kernel.double() + noise * torch.eye(len(kernel)), target)
    return solved


def _families(coarse: Tensor, fine: Tensor) -> list[Tensor]:
    """Part the statistics: whole image, its layout, mean over crops, spread over crops."""
    return [coarse[:, :SIZE], coarse[:, SIZE:], fine[:, :SIZE], fine[:, SIZE:]]


def _text_kernels(prompts: list[str]) -> np.ndarray:
    """Return how alike prompts are in meaning and in length, (2, n, n).

    Without the sentence encoder nothing is known of meaning, and it stays 0.
    """
    different, index = np.unique(prompts, return_inverse=True)
    counted = np.array([[len(p.split()), p.count(","), len(p)] for p in different], float)
    counted = (counted - counted.mean(0)) / counted.std(0).clip(1e-3)
    length = np.exp(-np.square(counted[:, None] - counted).sum(-1) / 6)
    vectors = sentences(list(different))
    meaning = np.zeros_like(length)
    if vectors is not None:
        vectors = vectors - vectors.mean(0)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        meaning = np.exp(vectors @ vectors.T - 1)
    return np.stack([meaning, length])[:, index][:, :, index]
