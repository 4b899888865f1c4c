"""What training reads in place of pixels: the maps of the frozen first blocks, computed once.

The stem and the first ``FROZEN`` blocks are never trained, so what they make of a view is computed once, by the code
that the product runs, and kept in bf16: of the rated images as they are and mirrored, of images on their way down a
ladder of distortion, of a few photographs, and of pure noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import data as samples
from torch import Tensor

from mini_training.data import Rated, open_image, save_json
from mini_training.distort import KINDS, LADDER, distort
from mini_training.noise import noise
from mini_training.plan import COMPUTED, FROZEN, NOISES, VIEW
from mini_training.pretrained import lite0
from mini_training.scenes import draw, scenes
from mst_clipiqa.encoders.mini.fused import FusedTower
from mst_clipiqa.encoders.mini.towers import TowerConfig
from mst_clipiqa.model.preprocess import normalised, views

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
"""Of scikit-image: every one is taken down every ladder."""

_NAMES = ("rated", "mirrored", "ladders", "photographs", "noises", "scenes")
_GENERATED = 560  # rated images that are taken down one ladder each; of LIVE in the Wild all are
_STEPS = len(LADDER)


@dataclass(frozen=True)
class Maps:
    """What training reads of some images, coarse (n, ...) and fine (n, K, ...).

    Maps (h, w, channels) in bf16, kept as int16, on disk; or, once the towers are frozen, numbers (inputs,) in float32.
    """

    coarse: np.ndarray
    fine: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> Maps:
        """Return some images."""
        return Maps(self.coarse[rows], self.fine[rows])


@dataclass(frozen=True)
class Prepared:
    """All maps.

    Attributes:
        rated: AGIQA-3K's images, then LIVE in the Wild's.
        mirrored: the same, mirrored.
        ladders: four strengths of one distortion, ladder after ladder.
        bases: int, (ladders,): which rated image each ladder starts from; -1 - i: photograph i.
        kinds: the distortion of each ladder.
        photographs: scikit-image's.
        noises: pure noise.
        scenes: drawn scenes.
    """

    rated: Maps
    mirrored: Maps
    ladders: Maps
    bases: np.ndarray
    kinds: np.ndarray
    photographs: Maps
    noises: Maps
    scenes: Maps


def prepare(rated: Rated, data: Path, live: Path, work: Path) -> None:
    """Compute every map that is not in the work folder yet."""
    files = [data / "images" / name for name in rated.names] + [live / "images" / name for name in rated.photos]
    bases, kinds = _ladders(len(rated.names), len(rated.photos))
    photographs = [Image.fromarray(getattr(samples, name)()[..., :3]) for name in PHOTOGRAPHS]

    def step(n: int) -> Image.Image:
        ladder, at = divmod(n, _STEPS)
        base = bases[ladder]
        image = open_image(files[base]) if base >= 0 else photographs[-1 - base]
        strength = LADDER[at] * np.random.default_rng(ladder).uniform(0.9, 1.0)
        return distort(image, kinds[ladder], strength, ladder)

    save_json(work / "ladders.json", {"bases": bases, "kinds": kinds})
    _write(work / "rated", len(files), lambda i: open_image(files[i]))
    _write(work / "mirrored", len(files), lambda i: ImageOps.mirror(open_image(files[i])))
    _write(work / "ladders", _STEPS * len(bases), step)
    _write(work / "photographs", len(photographs), lambda i: photographs[i])
    _write(work / "noises", NOISES, noise)
    drawn = scenes()
    _write(work / "scenes", len(drawn), lambda i: draw(drawn[i], photographs[i % len(photographs)]))


def read(work: Path) -> Prepared:
    """Return what ``prepare`` left; maps stay on disk until they are asked for."""
    plan = json.loads((work / "ladders.json").read_text())
    maps = {name: _read(work / name) for name in _NAMES}
    return Prepared(**maps, bases=np.array(plan["bases"]), kinds=np.array(plan["kinds"]))


def tensor(maps: np.ndarray) -> Tensor:
    """Return maps, kept in bf16, as a tensor in ``COMPUTED``, channels last; numbers, float32, as they are."""
    found = torch.from_numpy(np.array(maps))
    return found.view(torch.bfloat16).to(COMPUTED) if found.dtype == torch.int16 else found


def _ladders(generated: int, photos: int) -> tuple[list[int], list[str]]:
    """Return which image each ladder starts from, and its distortion."""
    rng, kinds = np.random.default_rng(7), list(KINDS)
    chosen = rng.permutation(generated)[:_GENERATED], generated + rng.permutation(photos)
    bases = [int(i) for part in chosen for i in part]
    used = [kinds[i % len(kinds)] for part in chosen for i in range(len(part))]
    for i in range(len(PHOTOGRAPHS)):
        bases += [-1 - i] * len(kinds)
        used += kinds
    return bases, used


def _write(name: Path, count: int, image: Callable[[int], Image.Image]) -> None:
    """Write the maps of ``count`` images; a file that is complete is kept."""
    paths = [name.with_suffix(f".{stream}.npy") for stream in ("coarse", "fine")]
    if all(path.is_file() for path in paths):
        return
    tower = lite0(TowerConfig(dim=8))
    fused = FusedTower(tower, COMPUTED)

    @torch.inference_mode()
    def one(i: int) -> list[np.ndarray]:
        seen = views(image(i), VIEW)
        if seen.fine is None:
            raise TypeError("Expected native crops.")
        maps = (fused.first(normalised(v, VIEW, COMPUTED), FROZEN) for v in (seen.coarse[None], seen.fine))
        return [m.permute(0, 2, 3, 1).contiguous().bfloat16().view(torch.int16).numpy() for m in maps]

    torch.set_num_threads(1)
    with ThreadPoolExecutor(initializer=lambda: torch.set_num_threads(1)) as pool:
        found = pool.map(one, range(count))
        coarse, fine = (np.stack(maps) for maps in zip(*_flat(found), strict=True))
    for path, maps in zip(paths, (coarse, fine), strict=True):
        np.save(path.with_suffix(".part.npy"), maps)
        path.with_suffix(".part.npy").replace(path)


def _flat(found: Iterator[list[np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for coarse, fine in found:
        yield coarse[0], fine


def _read(name: Path) -> Maps:
    return Maps(*(np.load(name.with_suffix(f".{stream}.npy"), mmap_mode="r") for stream in ("coarse", "fine")))
