"""Targets that are partly what a second, simpler predictor says: kernel regression on ImageNet's features.

    k(x, y) = exp(-|x - y|^2 / m)       m = median of |x - y|^2 over the training images
    target  = keep mos + (1 - keep) prediction

For correspondence k is multiplied by 1 + exp(cos - 1), cos that of the prompts' sentence vectors.

A network that is trained on ratings alone learns its training images by heart. The prediction for an image comes from
regressions that have not seen its prompt, so it is what can be known of an image from others, and a share of it in the
target holds the network back. Neither network of the features was ever trained on ratings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mini_training import plan
from mini_training.data import Rated, open_image
from mini_training.pretrained import folded_state
from mst_clipiqa.encoders.mini.towers import STAGES, pooled
from mst_clipiqa.model.preprocess import normalised, views

KEEP, KEEP_MATCH = 0.5, 0.7
"""Share of the rating in a target of quality, and in one of correspondence."""

VIEW = replace(plan.VIEW, crops=4, crop_size=224)
"""The whole image, and four native crops, all of 224 pixels."""

_NETWORKS = ("lite0", "lite2")
_FOLDS = 6
_RIDGE = 0.1
_FARTHEST = 6.0  # deviations from the mean
_SPREAD = 0.6  # of photographs' ratings, in the range of the generated images'
_STRIDES = [stage[3] for stage in STAGES]
_TAPS = (3, 5, 7)  # the maps after these stages: strides 8, 16 and 32


def describe(rated: Rated, data: Path, live: Path, path: Path) -> None:
    """Write what both networks see in every image, float32 (n, numbers), unless the file exists."""
    if path.is_file():
        return
    files = [data / "images" / name for name in rated.names] + [live / "images" / name for name in rated.photos]
    networks = [Network(name) for name in _NETWORKS]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(os.cpu_count(), initializer=lambda: torch.set_num_threads(1)) as pool:
        rows = list(pool.map(lambda file: described(open_image(file), networks), files))
    part = path.with_suffix(".part.npy")
    np.save(part, np.stack(rows))
    part.replace(path)


@torch.inference_mode()
def described(image: Image.Image, networks: Iterable[Network]) -> np.ndarray:
    """Return what networks see in one image, float32 (numbers,): in the whole, and on average in its crops."""
    seen = views(image, VIEW)
    if seen.fine is None:
        raise TypeError("Expected native crops.")
    of = [normalised(v, VIEW, plan.COMPUTED) for v in (seen.coarse[None], seen.fine)]
    return torch.cat([network(pixels).mean(0) for network in networks for pixels in of]).numpy()


def match_targets(described: np.ndarray, sentences: np.ndarray, rated: Rated, rows: np.ndarray) -> np.ndarray:
    """Return what correspondence is trained on, float32 (n,): as ``quality_targets`` does, without photographs.

    Args:
        described: float, (n or more, numbers): AGIQA-3K's images first.
        sentences: float, (n, width): the sentence vector of each image's prompt, of unit length.
        rated: the ratings.
        rows: int, which images may be looked at.
    """
    y = rated.ratings[:, 1].astype(float)
    held = _held_out(described[rows], y[rows], rated.prompt_ids[rows], sentences[rows])
    y[rows] = KEEP_MATCH * y[rows] + (1 - KEEP_MATCH) * held
    return y.astype(np.float32)


def quality_targets(
    described: np.ndarray, rated: Rated, rows: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what quality is trained on: ratings, where an image may be looked at partly replaced.

    Args:
        described: float, (n + photos, numbers): AGIQA-3K's images, then LIVE in the Wild's.
        rated: the ratings.
        rows, photos: int, which images of either set may be looked at.

    Returns:
        float32 (n,) on the scale of AGIQA-3K, and float32 (photos,) on that of LIVE in the Wild.
    """
    n, quality, marks = len(rated.names), rated.ratings[:, 0].astype(float), rated.photo_ratings.astype(float)
    centre, spread = (marks[photos].mean(), marks[photos].std() / _SPREAD) if len(photos) else (0.0, 1.0)
    middle = quality[rows].mean()
    y = np.concatenate([quality, (marks - centre) / spread + middle])
    groups = np.concatenate([rated.prompt_ids, rated.prompt_ids.max() + 1 + np.arange(len(marks))])
    seen = np.concatenate([rows, n + photos]).astype(int)
    y[seen] = KEEP * y[seen] + (1 - KEEP) * _held_out(described[seen], y[seen], groups[seen])
    return y[:n].astype(np.float32), ((y[n:] - middle) * spread + centre).astype(np.float32)


def regression(
    described: np.ndarray,
    y: np.ndarray,
    new: np.ndarray,
    sentences: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return predictions, float (m,), for ``new`` (m, numbers), from images (n, numbers) with ratings ``y``.

    ``sentences``: the vectors of the prompts of both, (n, width) and (m, width), if prompts count.
    """
    mean, scale = described.mean(0), described.std(0) + 1e-3
    a, b = (np.clip((x - mean) / scale, -_FARTHEST, _FARTHEST) for x in (described.astype(float), new.astype(float)))
    own, other = _squares(a, a), _squares(b, a)
    own, other = (np.exp(-squares / np.median(own)) for squares in (own, other))
    if sentences:
        own, other = (k * (1 + np.exp(s @ sentences[0].T - 1)) for k, s in zip((own, other), sentences, strict=True))
    weights = np.linalg.solve(own + _RIDGE * np.eye(len(a)), y - y.mean())
    predictions: np.ndarray = other @ weights + y.mean()
    return predictions


def _held_out(
    described: np.ndarray, y: np.ndarray, groups: np.ndarray, sentences: np.ndarray | None = None
) -> np.ndarray:
    """Return the prediction for each image by a regression without its group."""
    names, index = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(5).permutation(len(names))[index] % min(_FOLDS, len(names))
    out = np.empty(len(y))
    for each in np.unique(fold):
        rest, here = fold != each, fold == each
        prompts = None if sentences is None else (sentences[rest], sentences[here])
        out[here] = regression(described[rest], y[rest], described[here], prompts)
    return out


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)
    return distances


class Network:
    """An EfficientNet-Lite with ImageNet's weights."""

    def __init__(self, name: str) -> None:
        self.layers = {key: value.to(plan.COMPUTED) for key, value in folded_state(name).items()}
        self.blocks = 1 + max(int(key.split(".")[1]) for key in self.layers if key.startswith("blocks."))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return mean and deviation of three maps and the mean of the last, float32 (n, numbers)."""
        x = F.relu6(self._convolved("stem", pixels, 2))
        maps, stage = [], -1
        for i in range(self.blocks):
            outputs = len(self.layers[f"blocks.{i}.project.weight"])
            starts = i == 0 or outputs != x.shape[1]
            if starts:
                maps += [x] if stage + 1 in _TAPS else []
                stage += 1
            h = F.relu6(self._convolved(f"blocks.{i}.expand", x)) if i else x
            h = F.relu6(self._convolved(f"blocks.{i}.depthwise", h, _STRIDES[stage] if starts else 1))
            h = self._convolved(f"blocks.{i}.project", h)
            x = h if starts else x + h
        return pooled([*maps, x], F.relu6(self._convolved("head", x)))

    def _convolved(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self.layers[f"{name}.weight"], self.layers[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
