"""Images to features: open in threads, encode in batches, look into the cache first.

    source - bytes - [cache] - image - views - f_c, f_f - [cache]

An image whose features are cached is not even decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import EncoderPair, encode_views
from mst_clipiqa.errors import ImageError, UsageError
from mst_clipiqa.features.cache import Cache, Features
from mst_clipiqa.features.pipeline import in_batches, in_order
from mst_clipiqa.images.decode import MAX_PIXELS, open_image, read_image
from mst_clipiqa.model.preprocess import Views, views

_Tag = TypeVar("_Tag")


@dataclass(frozen=True)
class Encoded:
    """An image after the encoders: features (D,), float32 on the CPU, and its upright size in pixels."""

    f_c: Tensor
    f_f: Tensor
    width: int
    height: int


@dataclass(frozen=True)
class Failed:
    """An image that could not be encoded, and why."""

    reason: str


@dataclass(frozen=True)
class Item(Generic[_Tag]):
    """An image to encode and whatever the caller wants to find beside the result."""

    image: Any
    tag: _Tag


@dataclass(frozen=True)
class Seen:
    """An image ready for the encoders, and the key under which to keep what they say."""

    views: Views
    width: int
    height: int
    key: str | None


class ImageEncoder:
    """A frozen pair of encoders with threads that feed it and a cache that spares it."""

    def __init__(
        self, encoders: EncoderPair, *, batch_size: int = 32, workers: int = 2, cache: Cache | None = None
    ) -> None:
        """Take the pair, images a step, threads that open images, and where features are kept, if anywhere."""
        if batch_size < 1 or workers < 1:
            raise UsageError(f"Expected batch_size and workers of at least 1, got {batch_size} and {workers}.")
        self.encoders = encoders
        self.batch_size = batch_size
        self.workers = workers
        self.cache = cache.space(encoders) if cache else None
        self.reduce_to: int | None = None

    def decode_fast(self) -> None:
        """Let JPEGs be decoded at 1/2, 1/4 or 1/8 where they stay at least as large as the views need them.

        Much faster for photographs; scores change a little (docs/performance.md says how much).
        """
        view = self.encoders.view
        self.reduce_to = view.size if view.fine == "same" else max(view.size, view.native_side or 2**31)

    def batches(self, items: Iterable[Item[_Tag]]) -> Iterator[list[tuple[_Tag, Encoded | Failed]]]:
        """Yield the items in order, in lists of at most ``batch_size``, in bounded memory whatever their number."""
        opened = in_order(items, lambda item: self.open(item.image), workers=self.workers, ahead=2 * self.batch_size)
        for batch in in_batches(opened, self.batch_size):
            yield self._encode_batch(batch)

    def encode(self, images: Sequence[Any]) -> list[Encoded]:
        """Return features of images; ImageError for the first one that cannot be read."""
        found: list[Encoded] = []
        for batch in self.batches(Item(image, None) for image in images):
            for _, one in batch:
                if isinstance(one, Failed):
                    raise ImageError(one.reason)
                found.append(one)
        return found

    def open(self, image: Any, *, max_pixels: int = MAX_PIXELS) -> Encoded | Failed | Seen:
        """Return an image's features from the cache, or its views; safe to call from many threads at once."""
        key = None
        if isinstance(image, Failed):  # known to be bad before it was opened; it keeps its place in the order
            return image
        try:
            if self.cache is not None and isinstance(image, str | os.PathLike | bytes):
                image = image if isinstance(image, bytes) else read_image(image)
                key = self.cache.key(image) + ("-fast" if self.reduce_to else "")
                if known := self.cache.get(key):
                    return Encoded(known.f_c, known.f_f, known.width, known.height)
            opened = open_image(image, max_pixels=max_pixels, reduce_to=self.reduce_to)
        except ImageError as error:
            return Failed(str(error))
        return self._views(opened.image, (opened.width, opened.height), key)

    def _views(self, image: Image.Image, size: tuple[int, int], key: str | None) -> Seen:
        return Seen(views(image, self.encoders.view), *size, key)

    def encode_opened(self, opened: Sequence[Encoded | Failed | Seen]) -> list[Encoded | Failed]:
        """Return what ``open`` gave, with its views turned into features in one step; at most a batch of them."""
        new = iter(self._encode([one for one in opened if isinstance(one, Seen)]))
        return [next(new) if isinstance(one, Seen) else one for one in opened]

    def _encode_batch(
        self, batch: Sequence[tuple[Item[_Tag], Encoded | Failed | Seen]]
    ) -> list[tuple[_Tag, Encoded | Failed]]:
        encoded = self.encode_opened([one for _, one in batch])
        return [(item.tag, one) for (item, _), one in zip(batch, encoded, strict=True)]

    def _stacked(self, pixels: Sequence[Tensor]) -> Tensor:
        """Return one tensor on the encoders' device, channels last in memory as each of them is."""
        together = torch.stack([one.movedim(-3, -1) for one in pixels]).movedim(-1, -3)
        if self.encoders.device.type == "cuda":  # from pinned memory the copy runs beside the computation
            return together.pin_memory().to(self.encoders.device, non_blocking=True)
        return together.to(self.encoders.device)

    def _encode(self, seen: Sequence[Seen]) -> list[Encoded]:
        if not seen:
            return []
        coarse = self._stacked([one.views.coarse for one in seen])
        crops = [one.views.fine for one in seen if one.views.fine is not None]
        fine = self._stacked(crops) if crops else None
        f_c, f_f = (f.cpu() for f in encode_views(self.encoders, coarse, fine))
        if self.cache is not None:
            kept = [(one.key, Features(f_c[i], f_f[i], one.width, one.height)) for i, one in enumerate(seen)]
            self.cache.put([(key, features) for key, features in kept if key is not None])
        return [Encoded(f_c[i], f_f[i], one.width, one.height) for i, one in enumerate(seen)]
