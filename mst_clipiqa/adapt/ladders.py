"""Ladders: an image, and versions of it distorted more and more. Their order is known without any rating.

    versions of an image: clean, two crops, and for each of some kinds of distortion one version per strength

Which kinds an image gets is drawn from its name alone, so the same folder always gives the same ladders.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.adapt.moving import Material
from mst_clipiqa.data.record import ImageFile
from mst_clipiqa.errors import ImageError, as_reason
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import Failed, Viewed
from mst_clipiqa.features.pipeline import Bar, in_batches, in_order, no_bar
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.distort import DISTORTIONS, distort
from mst_clipiqa.images.options import OpenOptions

CLEAN, CROPS = 0, (1, 2)
"""Positions of the undistorted versions; the rungs of the first ladder follow."""

Prepare = Callable[[Sequence[Viewed]], Material]


@dataclass(frozen=True)
class LadderPlan:
    """Which versions are made of an image.

    Attributes:
        each: ladders per image, each of another kind of distortion.
        kinds: to draw from.
        strengths: of the rungs, rising, 0..1.
        crop: side of the two crops, as a share of the image's.
        side: pixels; the shorter side of a larger image is brought down to this first, which bounds the cost.
        seed: of the draw of kinds and of the distortions.
    """

    each: int = 3
    kinds: tuple[str, ...] = tuple(sorted(DISTORTIONS))
    strengths: tuple[float, ...] = (0.3, 0.65, 1.0)
    crop: float = 0.85
    side: int = 512
    seed: int = 0

    @property
    def versions(self) -> int:
        """How many versions of an image there are."""
        return 1 + len(CROPS) + self.each * len(self.strengths)

    def rungs(self) -> Tensor:
        """Return the positions of the versions on each ladder, clean first, int64 (each, 1 + strengths)."""
        first, count = 1 + len(CROPS), len(self.strengths)
        return torch.tensor([[CLEAN, *range(first + i * count, first + (i + 1) * count)] for i in range(self.each)])


@dataclass(frozen=True)
class Ladders:
    """All versions of some images, prepared.

    Attributes:
        files: the images.
        material: (images, versions, ...).
        kinds: of each ladder of each image, (images, each).
        plan: how the versions were made.
        skipped: images that could not be read, with their reasons.
    """

    files: tuple[Path, ...]
    material: Material
    kinds: tuple[tuple[str, ...], ...]
    plan: LadderPlan
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)


def make_ladders(
    encoder: ImageEncoder, files: Sequence[Path], plan: LadderPlan, prepare: Prepare, bar: Bar = no_bar
) -> Ladders:
    """Return all versions of the images, prepared; an image that cannot be read is left out, with its reason.

    Args:
        encoder: opens images and makes their views.
        files: the images.
        plan: which versions to make.
        prepare: views -> what is kept of them.
        bar: opens a progress bar.
    """

    def opened(item: tuple[Path, int]) -> Failed | Viewed:
        path, version = item
        try:
            image = version_of(_read(path, plan.side, encoder.opening), path.name, version, plan)
        except ImageError as error:
            return Failed(as_reason(error))
        return _viewed(encoder, image)

    items = [(path, version) for path in files for version in range(plan.versions)]
    found = prepared(encoder, items, opened, prepare, bar)
    whole = [i for i, path in enumerate(files) if (path, CLEAN) not in found.reasons]
    rows = torch.tensor([[found.row_of[files[i], v] for v in range(plan.versions)] for i in whole], dtype=torch.int64)
    skipped = {str(path): found.reasons[path, CLEAN] for path in files if (path, CLEAN) in found.reasons}
    kept = tuple(files[i] for i in whole)
    return Ladders(kept, found.material[rows], tuple(kinds_of(p.name, plan) for p in kept), plan, skipped)


@dataclass(frozen=True)
class Prepared:
    """The material of some items, the row of each in it, and why the others could not be read."""

    material: Material
    row_of: dict[object, int]
    reasons: dict[object, str]


def prepared(
    encoder: ImageEncoder,
    items: Sequence[object],
    opened: Callable[[Any], Failed | Viewed],
    prepare: Prepare,
    bar: Bar = no_bar,
) -> Prepared:
    """Return the material of items and, for those that cannot be read, the reasons."""
    coarse, fine = [], []
    rows: dict[object, int] = {}
    reasons: dict[object, str] = {}
    with bar("Encoding", len(items)) as advance:
        every = in_order(items, opened, workers=encoder.workers, ahead=2 * encoder.batch_size)
        for batch in in_batches(every, encoder.batch_size):
            viewed = [(item, one) for item, one in batch if isinstance(one, Viewed)]
            reasons |= {item: one.reason for item, one in batch if isinstance(one, Failed)}
            if viewed:
                some = prepare([one for _, one in viewed])
                coarse.append(some.coarse)
                fine.append(some.fine)
                rows |= {item: len(rows) + i for i, (item, _) in enumerate(viewed)}
            advance(len(batch))
    empty = torch.zeros(0)
    material = Material(torch.cat(coarse) if coarse else empty, torch.cat(fine) if fine else empty)
    return Prepared(material, rows, reasons)


def prepare_files(
    encoder: ImageEncoder, files: Sequence[ImageFile], prepare: Prepare, bar: Bar = no_bar
) -> tuple[list[int], Material, dict[str, str]]:
    """Return which files could be read, their material as they are, and the reasons of the others."""

    def opened(file: ImageFile) -> Failed | Viewed:
        source = file if isinstance(file, Path) else file.read_bytes()
        try:
            return _viewed(encoder, open_image(source, encoder.opening).image)
        except ImageError as error:
            return Failed(as_reason(error))

    found = prepared(encoder, files, opened, prepare, bar)
    kept = [i for i, path in enumerate(files) if path in found.row_of]
    index = torch.tensor([found.row_of[files[i]] for i in kept], dtype=torch.int64)
    return kept, found.material[index], {str(file): reason for file, reason in found.reasons.items()}


def kinds_of(name: str, plan: LadderPlan) -> tuple[str, ...]:
    """Return the kinds of distortion that an image gets, drawn by its name."""
    return tuple(str(kind) for kind in _generator(name, plan).permutation(plan.kinds)[: plan.each])


def version_of(image: Image.Image, name: str, version: int, plan: LadderPlan) -> Image.Image:
    """Return one version of an RGB image."""
    if version == CLEAN:
        return image
    if version in CROPS:
        corners = _generator(name, plan).random((len(CROPS), 2))[version - CROPS[0]]
        size = [max(1, round(plan.crop * side)) for side in image.size]
        left, top = (int(share * (side - part)) for share, side, part in zip(corners, image.size, size, strict=True))
        return image.crop((left, top, left + size[0], top + size[1]))
    ladder, rung = divmod(version - 1 - len(CROPS), len(plan.strengths))
    return distort(image, kinds_of(name, plan)[ladder], plan.strengths[rung], plan.seed)


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Return an image with its shorter side brought down to at most ``side`` pixels."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


@functools.lru_cache(maxsize=8)  # the versions of an image are opened one after the other
def _read(path: Path, side: int, opening: OpenOptions) -> Image.Image:
    return reduced(open_image(path, opening).image, side)


def _viewed(encoder: ImageEncoder, image: Image.Image) -> Failed | Viewed:
    opened = encoder.open(image)
    return opened if isinstance(opened, Failed | Viewed) else Failed("no views")


def _generator(name: str, plan: LadderPlan) -> np.random.Generator:
    return np.random.default_rng([plan.seed, zlib.crc32(name.encode("utf-8", "surrogatepass"))])
