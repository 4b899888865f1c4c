"""What encoders do whatever the batch: no chunk, thread or merge loses an image, a row or a patch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mst_clipiqa.encoders.merging import merged, no_merges
from mst_clipiqa.encoders.pair import Chunking, encode_batches
from mst_clipiqa.encoders.threads import map_in_parallel
from mst_clipiqa.model.mstfe import Stream
from tests.fakes import FakePair

CPU = torch.device("cpu")
QUICK = settings(max_examples=40, deadline=None)


@dataclass
class Watched(FakePair):
    """Keeps the size of each chunk."""

    sizes: list[int] = field(default_factory=list)

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        self.sizes.append(len(views))
        return super().encode_chunk(stream, views)


@QUICK
@given(
    coarse=st.integers(1, 7),
    fine=st.integers(1, 7),
    size=st.integers(1, 4),
    fixed=st.booleans(),
    threads=st.sampled_from([None, 1, 3]),
)
def test_chunks_change_no_feature(coarse: int, fine: int, size: int, fixed: bool, threads: int | None) -> None:
    pixels = torch.arange((coarse + fine) * 3 * 8 * 8).view(-1, 3, 8, 8).remainder(251).to(torch.uint8)
    streams: list[tuple[Stream, Tensor]] = [("coarse", pixels[:coarse]), ("fine", pixels[coarse:])]
    pair = Watched(chunking=Chunking(size, fixed, threads))
    found = encode_batches(pair, *streams)
    for f, (stream, views) in zip(found, streams, strict=True):
        assert torch.equal(f, torch.cat([FakePair().encode_chunk(stream, view) for view in views.split(1)]))
    assert max(pair.sizes) <= size
    if fixed:
        assert set(pair.sizes) == {size}  # as a compiled or exported encoder needs it
    else:
        assert sum(pair.sizes) == coarse + fine  # none is encoded twice


@QUICK
@given(tasks=st.lists(st.integers(), max_size=9), most=st.integers(1, 5))
def test_results_are_in_order_and_torch_has_its_threads_again(tasks: list[int], most: int) -> None:
    before = torch.get_num_threads()
    assert map_in_parallel(CPU, lambda task: (task, torch.is_inference_mode_enabled()), tasks, most) == [
        (task, True) for task in tasks
    ]
    assert torch.get_num_threads() == before


@QUICK
@given(tokens=st.integers(1, 12), counts=st.lists(st.integers(0, 7), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_merging_loses_no_patch(tokens: int, counts: list[int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, 4, generator=rng, dtype=torch.float64)
    now, sizes = x, no_merges(x)
    for count in counts:
        left = now.shape[1] - min(count, (now.shape[1] + 1) // 2 - 1)
        now, sizes = merged(now, sizes, torch.randn(2, 3, now.shape[1], 5, generator=rng), count)
        assert now.shape[1] == sizes.shape[1] == left
        assert sizes.sum(dim=1).flatten().tolist() == [tokens, tokens]
        torch.testing.assert_close((now * sizes).sum(dim=1), x.sum(dim=1))  # each is the mean of what it stands for
        assert torch.equal(now[:, 0], x[:, 0])  # the class token
        assert sizes[:, 0].flatten().tolist() == [1, 1]
