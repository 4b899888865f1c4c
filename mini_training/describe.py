"""Stage ``prepare``: the statistics of rated images, of images on their way down a ladder of distortion, of scenes.

All that is learnt is learnt from these numbers, so pixels are read once. What the towers will see in use is what is
described here: the same views, by the same code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mini_training.data import Rated
from mini_training.distort import KINDS, LADDER, distort
from mini_training.plan import VIEW
from mini_training.scenes import Scene, draw, scenes
from mst_clipiqa.encoders.mini.towers import Tower, TowerConfig
from mst_clipiqa.model.preprocess import planar, views

STEPS = len(LADDER)
CHOSEN, CROPS = 600, 4
"""Rated images that go down a ladder, each of one kind; views of each photograph, which go down all of them."""

_PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "moon",
    "rocket",
    "stereo_motorcycle",
)


@dataclass(frozen=True)
class Ladder:
    """One image and how it is distorted."""

    row: int  # of the rated images; -1 for a photograph
    photograph: int  # which view of one, where ``row`` is -1
    kind: int
    strengths: tuple[float, ...]  # STEPS, rising


@dataclass(frozen=True)
class Described:
    """Statistics, float32."""

    coarse: Tensor  # (n, S_c), in the order of ``Rated``
    fine: Tensor  # (n, S_f)
    ladder_coarse: Tensor  # (m, 1 + STEPS, S_c), the clean image first
    ladder_fine: Tensor  # (m, 1 + STEPS, S_f)
    rows: np.ndarray  # int, (m,): which rated image; -1 for a photograph
    kinds: Tensor  # int, (m,)
    strengths: Tensor  # (m, STEPS)
    scene_coarse: Tensor  # (k, S_c), in the order of ``scenes``
    scene_fine: Tensor  # (k, S_f)


def configs(dim: int, hidden: int, drop: float) -> tuple[TowerConfig, TowerConfig]:
    """Return the coarse tower's config and the fine one's."""
    return TowerConfig(dim, hidden, layout=True, drop=drop), TowerConfig(dim, hidden, spread=True, drop=drop)


def prepare(rated: Rated, data: Path, work: Path) -> None:
    """Describe everything, with all processors."""
    files = [data / "images" / name for name in rated.names]
    ladders = list(_ladders(len(files)))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        clean = list(pool.map(describe_file, files, chunksize=16))
        drawn = list(pool.map(_describe_scene, scenes(), chunksize=16))
        distorted = list(pool.map(describe_ladder, ladders, [files[max(0, one.row)] for one in ladders], chunksize=4))
    torch.save(
        {
            "coarse": torch.stack([c for c, _ in clean]),
            "fine": torch.stack([f for _, f in clean]),
            "ladder_coarse": torch.stack([c for c, _ in distorted]),
            "ladder_fine": torch.stack([f for _, f in distorted]),
            "scene_coarse": torch.stack([c for c, _ in drawn]),
            "scene_fine": torch.stack([f for _, f in drawn]),
            "rows": torch.tensor([one.row for one in ladders]),
            "kinds": torch.tensor([one.kind for one in ladders]),
            "strengths": torch.tensor([one.strengths for one in ladders]),
        },
        work / "described.pt",
    )


def read(work: Path) -> Described:
    """Return what ``prepare`` wrote."""
    found = torch.load(work / "described.pt", weights_only=True)
    return Described(**{**found, "rows": found["rows"].numpy()})


def _ladders(rated: int) -> Iterator[Ladder]:
    rng = np.random.default_rng(0)
    for row in rng.choice(rated, min(CHOSEN, rated), replace=False):
        yield Ladder(int(row), -1, int(rng.integers(len(KINDS))), _strengths(rng))
    for view, kind in product(range(CROPS * len(_PHOTOGRAPHS)), range(len(KINDS))):
        yield Ladder(-1, view, kind, _strengths(rng))


def _strengths(rng: np.random.Generator) -> tuple[float, ...]:
    """Return the card's strengths, each moved by less than half a step."""
    return tuple(float(s) for s in np.clip(np.array(LADDER) + rng.uniform(-0.1, 0.1, STEPS), 0, 1))


def describe_file(file: Path) -> tuple[Tensor, Tensor]:
    """Return what the coarse tower and the fine one are told of an image."""
    with Image.open(file) as image:
        return _describe(image.convert("RGB"))


def describe_ladder(ladder: Ladder, file: Path) -> tuple[Tensor, Tensor]:
    """Return the same of an image and its distorted versions, (1 + STEPS, S) each; a photograph needs no file."""
    if ladder.row < 0:
        clean = _photograph(ladder.photograph)
    else:
        with Image.open(file) as image:
            clean = image.convert("RGB")
    kind, seed = list(KINDS)[ladder.kind], max(0, ladder.row)
    steps = [_describe(clean), *(_describe(distort(clean, kind, s, seed)) for s in ladder.strengths)]
    return torch.stack([c for c, _ in steps]), torch.stack([f for _, f in steps])


def _describe_scene(scene: Scene) -> tuple[Tensor, Tensor]:
    return _describe(draw(scene, _photograph(scene.seed // 3 % (CROPS * len(_PHOTOGRAPHS)))))


def _photograph(view: int) -> Image.Image:
    """Return a view of a freely licensed photograph that comes with scikit-image: all of it, or a random part."""
    from skimage import data

    pixels = getattr(data, _PHOTOGRAPHS[view // CROPS])()
    image = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")
    rng = np.random.default_rng(view)
    if view % CROPS:
        width, height = (round(side * rng.uniform(0.5, 0.9)) for side in image.size)
        left, top = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
        image = image.crop((left, top, left + width, top + height))
    shorter = min(image.size)
    if shorter <= 512:
        return image
    return image.resize((round(image.width * 512 / shorter), round(image.height * 512 / shorter)))


@torch.inference_mode()
def _describe(image: Image.Image) -> tuple[Tensor, Tensor]:
    seen = views(image, VIEW)
    with torch.device("meta"):  # only their statistics are asked for, which have no weights
        coarse, fine = (Tower(config) for config in configs(8, 8, 0.0))
    native = seen.coarse.unsqueeze(0) if seen.fine is None else seen.fine
    whole, crops = planar(seen.coarse.unsqueeze(0), VIEW), planar(native, VIEW)
    return coarse.describe(whole.unsqueeze(0))[0].clone(), fine.describe(crops.unsqueeze(0))[0].clone()
