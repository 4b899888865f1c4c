"""Batches of images: what is encoded at once, in which order it comes, and what it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.encoding import FullEncoding
from mst_clipiqa.features.image_encoder import ImageEncoder, needed_side
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec
from tests.fakes import FakePair, draw

_LOCK = threading.Lock()


@dataclass
class Waiting(FakePair):
    """Its first chunk waits until another one has begun, in another batch."""

    began: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=20))
    went_on: bool = False

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        if not self.went_on:
            self.began.wait()
            self.went_on = True
        return super().encode_chunk(stream, views)


@dataclass
class Counting(FakePair):
    """Counts the batches that are encoded at the same time."""

    now: int = 0
    most: int = 0

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        with _LOCK:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with _LOCK:
            self.now -= 1
        return super().encode_chunk(stream, views)


class InTurn(FullEncoding):
    in_turn = True


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def images(count: int) -> list[Image.Image]:
    return [draw(i, i / count, size=32) for i in range(count)]


def test_two_batches_are_encoded_at_once_and_come_in_order() -> None:
    given = images(11)
    encoder = ImageEncoder(Waiting(), batch_size=3)
    found = list(encoder.batches(given, encoder.open))
    assert [len(batch) for batch in found] == [3, 3, 3, 2]
    alone = ImageEncoder(FakePair(), policy=InTurn(FakePair())).encode(given)
    for (image, one), want, own in zip((pair for batch in found for pair in batch), alone, given, strict=True):
        assert image is own
        assert isinstance(one, Encoded)
        assert torch.equal(one.f_c, want.f_c)
        assert torch.equal(one.f_f, want.f_f)


@pytest.mark.parametrize("policy", [FullEncoding, InTurn])
def test_no_more_than_two_batches_are_encoded_at_once(policy: type[FullEncoding]) -> None:
    pair = Counting()
    encoder = ImageEncoder(pair, batch_size=2, policy=policy(pair))
    assert [len(batch) for batch in encoder.batches(images(9), encoder.open)] == [2, 2, 2, 2, 1]
    assert pair.most == (1 if policy is InTurn else 2)


def test_one_core_encodes_a_batch_at_a_time() -> None:
    torch.set_num_threads(1)
    pair = Counting()
    encoder = ImageEncoder(pair, batch_size=4)
    assert [len(batch) for batch in encoder.batches(images(6), encoder.open)] == [4, 2]
    assert pair.most == 1


def test_an_error_of_the_encoders_reaches_the_caller() -> None:
    class Failing(FakePair):
        def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
            raise MemoryError("no room")

    encoder = ImageEncoder(Failing(), batch_size=4)
    with pytest.raises(MemoryError, match="no room"):
        list(encoder.batches(images(9), encoder.open))


@pytest.mark.parametrize(
    ("view", "side"),
    [
        (ViewSpec(size=224), 224),
        (ViewSpec(size=224, shorter=256), 256),
        (ViewSpec(size=224, fine="native", native_side=512), 512),
        (ViewSpec(size=224, fine="native", native_side=100), 224),
        (ViewSpec(size=224, fine="native", native_side=None), 2**31),  # crops of the image as it is
        (ViewSpec(size=224, fine="own", own=ViewSpec(size=336)), 336),
        (ViewSpec(size=224, fine="own", own=ViewSpec(size=112)), 224),
    ],
)
def test_a_large_jpeg_is_reduced_to_no_less_than_both_streams_see(view: ViewSpec, side: int) -> None:
    assert needed_side(view) == side


@pytest.mark.parametrize(("kind", "cores", "workers"), [("cpu", 64, 2), ("cuda", 8, 8), ("cuda", 64, 16)])
def test_a_card_has_a_decoding_thread_per_core_unless_a_number_was_chosen(
    monkeypatch: pytest.MonkeyPatch, kind: str, cores: int, workers: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    pair = FakePair(device=torch.device(kind))
    assert ImageEncoder(pair).workers == workers
    assert ImageEncoder(pair, workers=5).workers == 5


def test_a_card_has_a_batch_of_two_chunks_unless_a_number_was_chosen() -> None:
    pair = FakePair(device=torch.device("cuda"))
    assert ImageEncoder(pair).batch_size == pair.chunking.size + pair.chunking.size > 4
    assert ImageEncoder(pair, batch_size=5).batch_size == 5
    assert ImageEncoder(FakePair()).batch_size == FullEncoding.batch_size
