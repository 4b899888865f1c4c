"""Which views of an image the encoders see, and what becomes of a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import EncoderPair, encode_views
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.opened import ImagePrompts, Viewed
from mst_clipiqa.model.preprocess import Views, views
from mst_clipiqa.model.shapes import CoarseEmbeddings, FineEmbeddings

BATCH_SIZE = 32
"""Images per batch on a CPU, if not said otherwise."""


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
        rows = zip(f_c.unbind(), f_f.unbind(), viewed, strict=True)
        return [Encoded(coarse, fine, one.width, one.height, one.note) for coarse, fine, one in rows]

    def key(self, granularity: str | None) -> str:
        """Return the part of a cache key that features of a granularity have."""
        return ""

    def cached(self, get: Callable[[str], Encoded | None], prompts: ImagePrompts) -> Encoded | None:
        """Return an image's features from the cache, or None; ``get`` finds them by a part of their key."""
        return get("")

    def summary(self) -> str:
        """Return a sentence or two about what was done, or nothing."""
        return ""


def encode_viewed(pair: EncoderPair, viewed: Sequence[Viewed]) -> tuple[CoarseEmbeddings, FineEmbeddings]:
    """Return f_c and f_f of images with all their views, float32 (images, D) and (images, D_f), on the CPU."""
    coarse = stacked([image.coarse for image in viewed], pair.device)
    crops = [image.fine for image in viewed if image.fine is not None]
    f_c, f_f = encode_views(pair, coarse, stacked(crops, pair.device) if crops else None)
    return f_c.cpu(), f_f.cpu()


def stacked(pixels: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return views, uint8 (..., 3, H, W) of one size, as one tensor (views, ..., 3, H, W) on a device.

    Channels are last in memory, as in each of the views.
    """
    # NumPy stacks them: each operation of torch gives up Python's lock, for which all decoding threads wait.
    together = torch.from_numpy(np.stack([np.moveaxis(view.numpy(), -3, -1) for view in pixels])).movedim(-1, -3)
    if device.type == "cuda":  # from pinned memory the copy runs beside the computation
        return together.pin_memory().to(device, non_blocking=True)
    return together.to(device)
