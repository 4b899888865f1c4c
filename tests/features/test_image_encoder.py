"""Batches of images: encoded one ahead of the caller, with the caller's number of threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mstfe import Stream
from tests.fakes import FakePair, draw

PATIENCE = 20  # seconds


@dataclass
class Watched(FakePair):
    """Notes the threads of each batch, and when the second one is done; fails at an image that is black."""

    threads: list[int] = field(default_factory=list)
    second: threading.Event = field(default_factory=threading.Event)

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        found = super().encode_chunk(stream, views)
        if stream == "coarse":
            if not views.any():
                raise MemoryError("black")
            self.threads.append(torch.get_num_threads())
            if len(self.threads) == 2:
                self.second.set()
        return found


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for i in range(8):
        draw(i, i / 8).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.iterdir())


def test_the_next_batch_is_encoded_while_the_caller_has_the_last_one(files: list[Path]) -> None:
    pair = Watched()
    encoder = ImageEncoder(pair, batch_size=2)
    batches = encoder.batches(files, encoder.open)
    assert [item for item, _ in next(batches)] == files[:2]
    assert pair.second.wait(PATIENCE)  # though nobody has asked for it yet


def test_what_encoding_raises_comes_after_the_batches_before_it(files: list[Path]) -> None:
    draw(0, 0).point(lambda _: 0).save(files[4])
    encoder = ImageEncoder(Watched(), batch_size=1)
    batches = encoder.batches(files, encoder.open)
    assert [next(batches)[0][0] for _ in range(4)] == files[:4]
    with pytest.raises(MemoryError, match="black"):
        next(batches)


def test_a_batch_is_encoded_with_as_many_threads_as_the_caller_has(files: list[Path]) -> None:
    before, pair = torch.get_num_threads(), Watched()
    encoder = ImageEncoder(pair, batch_size=4)
    torch.set_num_threads(2)
    try:
        other = threading.Thread(target=torch.set_num_threads, args=(1,))  # the start value of later threads
        other.start()
        other.join()
        list(encoder.batches(files, encoder.open))
    finally:
        torch.set_num_threads(before)
    assert pair.threads == [2, 2]
