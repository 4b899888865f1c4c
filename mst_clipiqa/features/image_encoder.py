"""Images to features: decode in threads, encode in batches, and skip images whose features are cached.

    source - bytes - [cache] - image - views - f_c, f_f - [cache]

An image whose features are cached is not even decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import own_settings
from mst_clipiqa.encoders.threads import batches_at_once
from mst_clipiqa.encoders.torch_threads import set_torch_threads
from mst_clipiqa.errors import ImageError, UsageError, as_reason, as_sentence
from mst_clipiqa.features.at_once import check_at_once
from mst_clipiqa.features.cache import Cache, image_key
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.encoding import FullEncoding
from mst_clipiqa.features.opened import AlreadyScored, Failed, ImagePrompts, Opened, Viewed
from mst_clipiqa.features.pipeline import in_batches, in_order
from mst_clipiqa.images.decode import check_size, open_image
from mst_clipiqa.images.files import StoredImage, read_image
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.model.preprocess import ViewSpec

_Item = TypeVar("_Item")

_MOST_WORKERS = 16  # unless asked for: more were not tried


class ImageEncoder:
    """Encodes images with a frozen pair, decoding in threads and skipping images that are cached.

    Args:
        encoders: the frozen pair.
        batch_size: images per batch; None for the policy's, or on a CUDA card for two of the encoders' chunks.
        workers: decoding threads; None for 2, or on a CUDA card one per core, up to 16.
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
        workers: int | None = None,
        cache: Cache | None = None,
        policy: FullEncoding | None = None,
        opening: OpenOptions | None = None,
    ) -> None:
        if batch_size is not None:
            check_at_once("batch_size", batch_size)
        if workers is not None:
            check_at_once("workers", workers)
        self.encoders = encoders
        self.chosen_batch_size = batch_size
        self.chosen_workers = workers
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

    @property
    def workers(self) -> int:
        """Decoding threads: a CPU is kept busy by encoding, a card waits for images."""
        on_card = self.encoders.device.type == "cuda"
        return self.chosen_workers or (min(os.cpu_count() or 2, _MOST_WORKERS) if on_card else 2)

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
            opened = open_image(image, self.opening if max_pixels is None else replace(self.opening, max_pixels=limit))
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
