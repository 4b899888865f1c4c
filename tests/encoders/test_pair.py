"""How a batch is divided among the cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from mst_clipiqa.encoders.pair import Chunking, encode_stream, encode_views
from mst_clipiqa.model.mstfe import Stream
from tests.fakes import FakePair


@dataclass
class Watched(FakePair):
    """Notes the stream and the number of images of each chunk."""

    seen: list[tuple[Stream, int]] = field(default_factory=list)

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        self.seen.append((stream, len(views)))
        return super().encode_chunk(stream, views)


def views(count: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("chunking", "count", "sizes"),
    [
        (Chunking(8, False, None), 20, [4, 8, 8]),
        (Chunking(8, False, None), 6, [3, 3]),  # no core waits for the other
        (Chunking(8, False, None), 1, [1]),
        (Chunking(8, False, 1), 6, [6]),
        (Chunking(4, True, None), 6, [4, 4]),
    ],
)
def test_sizes_of_chunks(two_cores: None, chunking: Chunking, count: int, sizes: list[int]) -> None:
    pair = Watched(chunking=chunking)
    found = encode_stream(pair, "coarse", views(count))
    assert sorted(size for _, size in pair.seen) == sizes
    assert torch.equal(found, FakePair().encode_chunk("coarse", views(count)))


def test_the_stream_that_takes_longest_comes_first() -> None:
    pair = Watched(chunking=Chunking(1, False, 1))
    f_c, f_f = encode_views(pair, views(2))
    assert [stream for stream, _ in pair.seen] == ["fine", "fine", "coarse", "coarse"]
    assert torch.equal(f_c, FakePair().encode_chunk("coarse", views(2)))
    assert torch.equal(f_f, FakePair().encode_chunk("fine", views(2)))
