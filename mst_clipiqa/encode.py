"""Pictures to features: open in threads, encode in batches, look into the cache first.

    source - bytes - [cache] - picture - views - f_c, f_f - [cache]

A picture whose features are cached is not even decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mst_clipiqa.cache import Cache, Features
from mst_clipiqa.errors import PictureError, UsageError
from mst_clipiqa.model.mstfe import EncoderPair
from mst_clipiqa.model.preprocess import Views, views
from mst_clipiqa.pictures import MAX_PIXELS, open_picture, read_picture
from mst_clipiqa.pipeline import in_batches, in_order

_Tag = TypeVar("_Tag")


@dataclass(frozen=True)
class Encoded:
    """A picture after the encoders: features (D,), float32 on the CPU, and its upright size in pixels."""

    f_c: Tensor
    f_f: Tensor
    width: int
    height: int


@dataclass(frozen=True)
class Failed:
    """A picture that could not be encoded, and why."""

    reason: str


@dataclass(frozen=True)
class Item(Generic[_Tag]):
    """A picture to encode and whatever the caller wants to find beside the result."""

    picture: Any
    tag: _Tag


@dataclass(frozen=True)
class Seen:
    """A picture ready for the encoders, and the key under which to keep what they say."""

    views: Views
    width: int
    height: int
    key: str | None


class PictureEncoder:
    """A frozen pair of encoders with threads that feed it and a cache that spares it."""

    def __init__(
        self, encoders: EncoderPair, *, batch_size: int = 32, workers: int = 2, cache: Cache | None = None
    ) -> None:
        """Take the pair, pictures a step, threads that open pictures, and where features are kept, if anywhere."""
        if batch_size < 1 or workers < 1:
            raise UsageError(f"Expected batch_size and workers of at least 1, got {batch_size} and {workers}.")
        self.encoders = encoders
        self.batch_size = batch_size
        self.workers = workers
        self.cache = cache.space(encoders) if cache else None

    def batches(self, items: Iterable[Item[_Tag]]) -> Iterator[list[tuple[_Tag, Encoded | Failed]]]:
        """Yield the items in order, in lists of at most ``batch_size``, in bounded memory whatever their number."""
        opened = in_order(items, lambda item: self.open(item.picture), workers=self.workers, ahead=2 * self.batch_size)
        for batch in in_batches(opened, self.batch_size):
            tags = [item.tag for item, _ in batch]
            yield list(zip(tags, self.encode_opened([one for _, one in batch]), strict=True))

    def encode(self, pictures: Sequence[Any]) -> list[Encoded]:
        """Return features of pictures; PictureError for the first one that cannot be read."""
        found: list[Encoded] = []
        for batch in self.batches(Item(picture, None) for picture in pictures):
            for _, one in batch:
                if isinstance(one, Failed):
                    raise PictureError(one.reason)
                found.append(one)
        return found

    def open(self, picture: Any, *, max_pixels: int = MAX_PIXELS) -> Encoded | Failed | Seen:
        """Return a picture's features from the cache, or its views; safe to call from many threads at once."""
        key = None
        if isinstance(picture, Failed):  # known to be bad before it was opened; it keeps its place in the order
            return picture
        try:
            if self.cache is not None and isinstance(picture, str | os.PathLike | bytes):
                picture = picture if isinstance(picture, bytes) else read_picture(picture)
                key = self.cache.key(picture)
                if known := self.cache.get(key):
                    return Encoded(known.f_c, known.f_f, known.width, known.height)
            opened = open_picture(picture, max_pixels=max_pixels)
        except PictureError as error:
            return Failed(str(error))
        return Seen(views(opened.image, self.encoders.view), opened.width, opened.height, key)

    def encode_opened(self, opened: Sequence[Encoded | Failed | Seen]) -> list[Encoded | Failed]:
        """Return what ``open`` gave, with its views turned into features in one step; at most a batch of them."""
        new = iter(self._encode([one for one in opened if isinstance(one, Seen)]))
        return [next(new) if isinstance(one, Seen) else one for one in opened]

    def _encode(self, seen: Sequence[Seen]) -> list[Encoded]:
        if not seen:
            return []
        coarse = torch.stack([one.views.coarse for one in seen]).to(self.encoders.device)
        crops = [one.views.fine for one in seen if one.views.fine is not None]
        fine = torch.stack(crops).to(self.encoders.device) if crops else None
        f_c, f_f = (f.cpu() for f in self.encoders.encode_views(coarse, fine))
        if self.cache is not None:
            kept = [(one.key, Features(f_c[i], f_f[i], one.width, one.height)) for i, one in enumerate(seen)]
            self.cache.put([(key, features) for key, features in kept if key is not None])
        return [Encoded(f_c[i], f_f[i], one.width, one.height) for i, one in enumerate(seen)]
