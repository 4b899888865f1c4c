"""Precision: what a card computes natively, and fp32 that is fp32; the card's capability is made up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from mst_clipiqa.encoders import precision
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import Precision, own_settings, resolve_device, resolve_precision
from mst_clipiqa.errors import UsageError
from mst_clipiqa.model.mstfe import Stream
from tests.fakes import DIM, FakePair

VIEWS = torch.zeros((3, 3, 224, 224), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("capability", "computed"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_card_that_emulates_bf16_gets_fp16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], computed: str
) -> None:
    asked: list[object] = []

    def of_card(device: object = None) -> tuple[int, int]:
        asked.append(device)
        return capability

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # as torch answers on a V100
    monkeypatch.setattr(torch.cuda, "get_device_capability", of_card)
    card = torch.device("cuda:1")
    assert resolve_precision("auto", card) == computed
    assert asked == [card]  # the card that computes, not the current one


def test_amd_cards_compute_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"


def test_a_second_card_is_refused_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UsageError, match="Expected a device that this machine has, got 'cuda:1'"):
        resolve_device("cuda:1")


def test_a_device_that_holds_no_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected a device that this machine has, got 'meta'"):
        resolve_device("meta")


def test_on_a_card_the_autocast_of_the_cpu_is_off_too() -> None:
    with torch.autocast("cpu", torch.bfloat16), own_settings(torch.device("cuda")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("capability", "has_it", "seconds", "found"),
    [
        ("AVX512", True, {torch.float32: 2.0, torch.bfloat16: 1.0}, "bf16"),
        ("AVX512", True, {torch.float32: 1.1, torch.bfloat16: 1.0}, "fp32"),
        ("AVX512", True, {torch.float32: 1.0, torch.bfloat16: 2.0}, "fp32"),
        ("AVX512", False, {}, "fp32"),
        ("AVX2", True, {}, "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_that_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, capability: str, has_it: bool, seconds: dict[torch.dtype, float], found: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(precision, "_product_seconds", lambda: (seconds[torch.bfloat16], seconds[torch.float32]))
    precision._gains_from_bf16.cache_clear()
    try:
        assert resolve_precision("auto", torch.device("cpu")) == found
    finally:
        precision._gains_from_bf16.cache_clear()


def test_a_product_is_timed() -> None:
    assert all(0 < seconds < 10 for seconds in precision._product_seconds())


def test_the_seconds_are_first_those_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def product(x: Tensor, _: Tensor) -> None:
        clock[0] += 1.0 if x.dtype == torch.bfloat16 else 5.0

    monkeypatch.setattr(precision, "_clock", lambda: clock[0])
    monkeypatch.setattr(torch.nn.functional, "linear", product)
    assert precision._product_seconds() == (1.0, 5.0)


def test_what_a_cpu_gains_is_no_matter_for_apples_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_gains_from_bf16", lambda: True)
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_the_trial_leaves_the_number_of_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def timed() -> tuple[float, float]:
        seen.append(torch.get_num_threads())
        return 1.0, 1.0

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        monkeypatch.setattr(precision, "_product_seconds", timed)
        precision._gains_from_bf16.__wrapped__()
        assert set(seen) == {1}
        assert torch.get_num_threads() == before + 1
        with ThreadPoolExecutor(1) as new:
            assert new.submit(torch.get_num_threads).result() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("before", [True, False])
def test_fp32_on_a_card_is_fp32(before: bool) -> None:
    seen: list[tuple[bool, bool]] = []

    class Watched(FakePair):
        def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return torch.zeros(len(views), DIM)

    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    kept = [flag.allow_tf32 for flag in flags]
    try:  # not by monkeypatch, which deletes what it finds in no __dict__
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
        encode_views(Watched(device=torch.device("cuda")), VIEWS)
        assert [flag.allow_tf32 for flag in flags] == [before, before]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("fp32", Precision("fp32")),
        ("auto-merge12", Precision("auto", merged=12)),
        ("fp32-fused", Precision("fp32", fused=True)),
        ("bf16-merge8", Precision("bf16", merged=8)),
        ("int8-pairs-merge8", Precision("int8", in_pairs=True, merged=8)),
        ("int8-d089f389-pairs", Precision("int8", ranges="d089f389", in_pairs=True)),
        ("fp32-fused-merge20", Precision("fp32", fused=True, merged=20)),
    ],
)
def test_a_precision_is_read_from_the_text_that_it_prints(text: str, meant: Precision) -> None:
    assert Precision.parse(text) == meant
    assert str(meant) == text
