"""What other processes do in tests of the cache, in a module of its own: they import it with all that it imports."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

from torch import Tensor

from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mstfe import Stream
from tests.fakes import FakePair


class SlowPair(FakePair):
    """Takes long enough to be killed meanwhile."""

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        time.sleep(0.01)
        return super().encode_chunk(stream, views)


def encode_slowly(folder: Path, sender: Connection) -> None:
    """Encode the images of a folder into a cache in it; send a word for each."""
    with Cache(folder / "cache") as cache:
        encoder = ImageEncoder(SlowPair(), batch_size=2, cache=cache)
        for batch in encoder.batches(sorted(folder.glob("*.png")), encoder.open):
            for _ in batch:
                sender.send("done")
