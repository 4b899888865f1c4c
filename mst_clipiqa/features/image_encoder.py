"""Images to features: decode in threads, encode in batches, and skip images whose features are cached.

    source - bytes - [cache] - image - views - f_c, f_f - [cache]

An image whose features are cached is not even decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import EncoderPair, encode_views
from mst_clipiqa.encoders.precision import own_settings
from mst_clipiqa.encoders.threads import batches_at_once, set_torch_threads
from mst_clipiqa.errors import ImageError, UsageError, as_reason, as_sentence
from mst_clipiqa.features.at_once import check_at_once
from mst_clipiqa.features.cache import Cache, image_key
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.pipeline import in_batches, in_order
from mst_clipiqa.images.decode import check_size, open_image
from mst_clipiqa.images.files import StoredImage, read_image
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.model.preprocess import Views, ViewSpec, views
from mst_clipiqa.model.shapes import CoarseEmbeddings, FineEmbeddings

_Item = TypeVar("_Item")

BATCH_SIZE = 32
"""Images per batch on a CPU, if not said otherwise."""


@dataclass(frozen=True)
class Failed:
    """An image that could not be read, and why (``as_reason``); given as an image, it keeps its place, unopened."""

    reason: str


@dataclass(frozen=True)
class AlreadyScored:
    """An image with a score from an earlier run; given as an image, it keeps its place and is not opened."""

    score: Any


ImagePrompts: TypeAlias = tuple[str | None, ...] | None
"""What an image will be scored against; None if that is not known yet."""


@dataclass(frozen=True)
class Viewed:
    """An image ready for the encoders.

    Attributes:
        coarse, fine: its views, as in ``model/preprocess.py``.
        width, height: of the upright image, pixels.
        key: under which to cache the features, or None.
        prompts: what the image will be scored against, if that is known by now.
        note: what makes its scores less certain; such an image is not cached, so that this is said every time.
    """

    coarse: Tensor
    fine: Tensor | None
    width: int
    height: int
    key: str | None
    prompts: ImagePrompts = None
    note: str = ""


Opened: TypeAlias = Encoded | Failed | AlreadyScored | Viewed
"""What ``ImageEncoder.open`` returns."""


class FullEncoding:
    """The usual encoding policy, both streams for every image; other policies derive from it.

    Attributes:
        in_turn: whether one batch must be done before the next begins.
        granularity: what was asked for below fine; empty for full encoding.
        described: that and its calibration, which also decide the features, in words; empty for full encoding.
        batch_size: images per batch on a CPU, unless the user says otherwise.
    """

    in_turn = False
    batch_size = BATCH_SIZE
    granularity = ""
    described = ""

    def __init__(self, encoders: EncoderPair) -> None:
        self.encoders = encoders

    def views(self, image: Image.Image) -> Views:
        """Return the views of an RGB image that ``encode`` may need."""
        return views(image, self.encoders.view)

    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return the features of a batch of at least one image."""
        f_c, f_f = encode_viewed(self.encoders, viewed)
        return [Encoded(f_c[i], f_f[i], image.width, image.height, image.note) for i, image in enumerate(viewed)]

    def key(self, granularity: str | None) -> str:
        """Return the part of a cache key that features of a granularity have."""
        return ""

    def cached(self, get: Callable[[str], Encoded | None], prompts: ImagePrompts) -> Encoded | None:
        """Return an image's features from the cache, or None; ``get`` finds them by a part of their key."""
        return get("")

    def summary(self) -> str:
        """Return a sentence or two about what was done, or nothing."""
        return ""


class ImageEncoder:
    """Encodes images with a frozen pair, decoding in threads and skipping images that are cached.

    Args:
        encoders: the frozen pair.
        batch_size: images per batch; None for the policy's, or on a CUDA card for two of the encoders' chunks.
        workers: decoding threads.
        cache: where features are kept, if anywhere.
        policy: what is encoded of each image; by default both streams.
        opening: how images are opened.

    Raises:
        UsageError: ``batch_size`` or ``workers`` is not a whole number from 1 to 1,000,000.
    """

    def __init__(
        self,
        encoders: EncoderPair,
        *,
        batch_size: int | None = None,
        workers: int = 2,
        cache: Cache | None = None,
        policy: FullEncoding | None = None,
        opening: OpenOptions | None = None,
    ) -> None:
        if batch_size is not None:
            check_at_once("batch_size", batch_size)
        check_at_once("workers", workers)
        self.encoders = encoders
        self.chosen_batch_size = batch_size
        self.workers = workers
        self.cache = cache.space(encoders) if cache else None
        self.policy = policy or FullEncoding(encoders)
        self.opening = opening or OpenOptions()

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        on_card = self.encoders.device.type == "cuda"
        return self.chosen_batch_size or (2 * self.encoders.chunking.size if on_card else self.policy.batch_size)

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        self.chosen_batch_size = images

    def to(self, device: torch.device) -> ImageEncoder:
        """Move the encoders to a device; returns itself. UsageError if they were exported for the CPU."""
        move = getattr(self.encoders, "to", None)
        if move is None:
            raise UsageError("Expected encoders that torch computes, got exported ones: load them without a backend.")
        with torch.inference_mode(False):  # else the weights could never again be part of a graph
            move(device, self.encoders.precision)
        self.cache = self.cache and self.cache.cache.space(self.encoders)  # each device has a part of its own
        return self

    def batches(
        self, items: Iterable[_Item], open_item: Callable[[_Item], Opened]
    ) -> Iterator[list[tuple[_Item, Encoded | Failed | AlreadyScored]]]:
        """Yield the items in order beside their features, in lists of at most ``batch_size``, in bounded memory.

        Args:
            items: in any number; read only as far as needed.
            open_item: calls ``open`` with the item's image; runs in the decoding threads.
        """
        at_once = 1 if self.policy.in_turn else batches_at_once(self.encoders.device)
        ahead = (3 - at_once) * self.batch_size  # so that three batches are in memory
        opened = in_order(items, open_item, workers=self.workers, ahead=ahead)
        batches, cores = in_batches(opened, self.batch_size), torch.get_num_threads()

        def encoded(batch: list[tuple[_Item, Opened]]) -> list[tuple[_Item, Encoded | Failed | AlreadyScored]]:
            set_torch_threads(cores)
            features = self.encode_opened([image for _, image in batch])
            return [(item, image) for (item, _), image in zip(batch, features, strict=True)]

        if at_once == 1:
            yield from map(encoded, batches)
        else:
            yield from (done for _, done in in_order(batches, encoded, workers=at_once, ahead=at_once))

    def encode(self, images: Sequence[Any]) -> list[Encoded]:
        """Return features of images; ImageError for the first one that cannot be read, UsageError for one image."""
        check_several(images)
        features: list[Encoded] = []
        for batch in self.batches(images, self.open):
            for image, encoded in batch:
                if not isinstance(encoded, Encoded):
                    why = encoded.reason if isinstance(encoded, Failed) else "expected an image, got its score"
                    raise ImageError(as_sentence(why, image))
                features.append(encoded)
        return features

    def open(self, image: Any, prompts: ImagePrompts = None, *, max_pixels: int | None = None) -> Opened:
        """Return an image's features from the cache, or its views; safe to call from many threads at once.

        Args:
            image: a path, bytes, PIL image, array or tensor; ``Failed`` and ``AlreadyScored`` come back as they are.
            prompts: what the image will be scored against, if that is known by now.
            max_pixels: a larger image is refused; None takes the encoder's limit.
        """
        key, limit = None, max_pixels or self.opening.max_pixels
        if isinstance(image, Failed | AlreadyScored):
            return image
        try:
            if self.cache is not None and isinstance(image, str | os.PathLike | StoredImage | bytes):
                image = image if isinstance(image, bytes) else read_image(image)
                key = image_key(image) + _suffix(self.opening)
                at, cache = key, self.cache
                if cached := self.policy.cached(lambda part: cache.get(at + part), prompts):
                    check_size((cached.width, cached.height), limit)
                    return cached
            opened = open_image(image, self.opening, max_pixels=limit)
        except ImageError as error:
            return Failed(as_reason(error))
        seen = self.policy.views(opened.image)
        return Viewed(seen.coarse, seen.fine, opened.width, opened.height, key, prompts, opened.caution)

    def encode_opened(self, opened: Sequence[Opened]) -> list[Encoded | Failed | AlreadyScored]:
        """Return the features of images that ``open`` returned, at most a batch; those without views as they are."""
        viewed = [image for image in opened if isinstance(image, Viewed)]
        with own_settings(self.encoders.device):
            encoded = self.policy.encode(viewed) if viewed else []
        if self.cache is not None and viewed:
            keyed = [(image.key, features) for image, features in zip(viewed, encoded, strict=True)]
            self.cache.put([(key + self.policy.key(f.granularity), f) for key, f in keyed if key and not f.note])
        features_in_turn = iter(encoded)
        return [next(features_in_turn) if isinstance(image, Viewed) else image for image in opened]


def check_several(images: object) -> None:
    """Raise a UsageError if one image was given in place of several; of an array it would be a row that was scored."""
    is_file = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(images, "read")
    is_several = isinstance(images, Iterable) or hasattr(images, "__getitem__")  # the latter: a dataset of torch
    if is_file or not is_several or getattr(images, "ndim", 1) not in (1, 4):
        raise UsageError(
            f"Expected several images, got one {type(images).__name__}: put it in a list; for a folder, "
            "score_rows(scorer, expand(folder)) gives a row per image."
        )


def needed_side(view: ViewSpec) -> int:
    """Return the shorter side in pixels to which a large JPEG may be reduced as it is decoded, for these views."""
    coarse = view.shorter or view.size
    match view.fine:
        case "native":
            return max(coarse, view.native_side or 2**31)
        case "own":
            return max(coarse, needed_side(view.own) if view.own else 0)
    return coarse


def _suffix(opening: OpenOptions) -> str:
    """Return the part of a cache key that says how images were opened; frames need none, as they are not cached."""
    return ("-fast" if opening.reduce_to else "") + ("-srgb" if opening.color == "srgb" else "")


def encode_viewed(pair: EncoderPair, viewed: Sequence[Viewed]) -> tuple[CoarseEmbeddings, FineEmbeddings]:
    """Return f_c and f_f of images with all their views, float32 (images, D) and (images, D_f), on the CPU."""
    coarse = stacked([image.coarse for image in viewed], pair.device)
    crops = [image.fine for image in viewed if image.fine is not None]
    f_c, f_f = encode_views(pair, coarse, stacked(crops, pair.device) if crops else None)
    return f_c.cpu(), f_f.cpu()


def stacked(pixels: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return views of one size as one tensor on a device, channels last in memory as each of them is."""
    together = torch.stack([view.movedim(-3, -1) for view in pixels]).movedim(-1, -3)
    if device.type == "cuda":  # from pinned memory the copy runs beside the computation
        return together.pin_memory().to(device, non_blocking=True)
    return together.to(device)
