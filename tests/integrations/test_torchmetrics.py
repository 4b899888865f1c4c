"""The metric in the real torchmetrics: alone, copied, in a collection, and over two processes."""

from __future__ import annotations

import copy
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

pytest.importorskip("torchmetrics")

from torchmetrics import MetricCollection

from mst_clipiqa.errors import UsageError
from mst_clipiqa.integrations import torchmetrics
from mst_clipiqa.integrations.torchmetrics import MSTClipIQAScore
from mst_clipiqa.scoring.scorer import Scorer
from tests.serving import toy_scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return toy_scorer()


def images(count: int = 5) -> torch.Tensor:
    ramp = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64)
    noise = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return (ramp + noise * torch.linspace(0, 1, count).view(-1, 1, 1, 1)).clamp(0, 1)


def test_the_value_is_the_mean_of_the_scorers_scores(scorer: Scorer) -> None:
    metric = MSTClipIQAScore(scorer, "correspondence")
    prompts = [f"a thing of kind {n}" for n in range(5)]
    metric.update(images()[:2], prompts[:2])
    metric.update(images()[2:], prompts[2:])
    scores = [score.correspondence for score in scorer(list(images()), prompts)]
    assert metric.compute().item() == pytest.approx(sum(filter(None, scores)) / 5, rel=1e-6)
    assert metric.count == 5 and metric.failed == 0
    metric.reset()
    assert metric.count == 0 and metric.total == 0


def test_what_cannot_be_scored_is_counted_apart_and_never_a_zero(scorer: Scorer) -> None:
    metric = MSTClipIQAScore(scorer)
    metric.update([*images(2), b"no image"])
    assert metric.count == 2 and metric.failed == 1
    both = sum(filter(None, (score.quality for score in scorer(list(images(2)))))) / 2
    assert metric.compute().item() == pytest.approx(both, rel=1e-6)
    without_prompt = MSTClipIQAScore(scorer, "correspondence")
    without_prompt.update(images(2))
    assert torch.isnan(without_prompt.compute()) and without_prompt.failed == 2


def test_it_says_why_an_image_was_not_scored(scorer: Scorer) -> None:
    metric = MSTClipIQAScore(scorer)
    metric.update(images(2).half())
    assert metric.count == 2 and metric.reason == ""
    metric.update(images(2) * 9)
    assert metric.failed == 2 and "to 9: divide it by 255" in metric.reason
    assert metric.clone().reason == metric.reason
    metric.reset()
    assert metric.reason == ""
    without_prompt = MSTClipIQAScore(scorer, "correspondence")
    without_prompt.update(images(1))
    assert without_prompt.reason == "expected a prompt for correspondence, got none: give it"


def test_it_does_what_a_metric_does(scorer: Scorer, tmp_path: Path) -> None:
    metric = MSTClipIQAScore(scorer)
    assert (metric.higher_is_better, metric.is_differentiable, metric.full_state_update) == (True, False, False)
    first = metric(images(2))  # forward: the value of this batch
    metric(images(4)[2:])
    assert first == pytest.approx(MSTClipIQAScore(scorer)(images(2)).item())
    twin = metric.clone()
    twin.update(images(1))
    assert metric.count == 4 and twin.count == 5
    assert id(twin.scorer) == id(scorer)  # shared
    both = MetricCollection({"quality": MSTClipIQAScore(scorer), "fit": MSTClipIQAScore(scorer, "correspondence")})
    both.update(images(2), ["a fox", "a hat"])
    assert set(both.compute()) == {"quality", "fit"}
    figure, axes = metric.plot()
    low, high = axes.get_ylim()
    assert low <= 0 and high >= 5  # the whole scale
    figure.savefig(tmp_path / "plot.png")


@pytest.mark.parametrize("first", [[], [b"no image"]])
def test_a_collection_keeps_two_scores_apart_if_its_first_batch_has_none(scorer: Scorer, first: list[bytes]) -> None:
    both = MetricCollection({"quality": MSTClipIQAScore(scorer), "fit": MSTClipIQAScore(scorer, "correspondence")})
    both.update(first, ["a fox"] * len(first))
    both.update(images(), ["a fox"] * 5)
    alone = MSTClipIQAScore(scorer)
    alone.update(images())
    assert both.compute()["quality"] == alone.compute()
    assert both.compute()["fit"] != alone.compute()


def test_a_collection_keeps_two_models_apart(small_model: Path, scorer: Scorer) -> None:
    both = MetricCollection({"one": MSTClipIQAScore(small_model, device="cpu"), "two": MSTClipIQAScore(scorer)})
    both.update([])
    both.update(images(2))
    assert len(both.compute_groups) == 2


def test_a_collection_scores_once_for_two_metrics_of_one_score(scorer: Scorer) -> None:
    twice = MetricCollection({"one": MSTClipIQAScore(scorer), "two": MSTClipIQAScore(scorer)})
    twice.update(images(2))
    assert twice.compute_groups == {0: ["one", "two"]}


def test_an_unknown_target_is_named(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match=r"Expected a target of quality, correspondence, got 'qualty' \(did you mean"):
        MSTClipIQAScore(scorer, "qualty")


def in_a_process(rank: int, store: str, scorer: Scorer, out: Connection) -> None:
    """Score this rank's share of the images, three and two, and send the value that all ranks agree on."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metric = MSTClipIQAScore(scorer)
    metric.update(images()[:3] if rank == 0 else [*images()[3:], b"no image"])
    value = metric.compute().item()
    with metric.sync_context():
        out.send((value, metric.count.item(), metric.failed.item()))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes_agree_on_the_value_of_one(scorer: Scorer, tmp_path: Path) -> None:
    alone = MSTClipIQAScore(scorer)
    alone.update([*images(), b"no image"])
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    store = str(tmp_path / "store")
    ranks = [
        context.Process(target=in_a_process, args=(rank, store, scorer, out)) for rank, (_, out) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    try:
        found = [into.recv() if into.poll(60) else None for into, _ in pipes]
        for rank in ranks:
            rank.join(60)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert found[0] == found[1] == (pytest.approx(alone.compute().item(), rel=1e-6), 5, 1)


def test_a_later_batch_does_not_hide_why_an_earlier_image_failed(scorer: Scorer) -> None:
    metric = MSTClipIQAScore(scorer)
    metric([*images(1), b"no image"])
    mean = metric(images(1))
    assert mean == scorer(images(1)[0]).quality
    assert metric.failed == 1 and "got bytes that are none of these" in metric.reason
    metric.reset()
    assert metric.reason == ""


def test_sums_are_float64_and_means_float32_whatever_the_default(scorer: Scorer) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # of which a sum would soon stand still
    try:
        metric = MSTClipIQAScore(scorer)
    finally:
        torch.set_default_dtype(before)
    metric.update(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert (metric.total.dtype, metric.compute().dtype) == (torch.float64, torch.float32)


class Constant:
    """A scorer that gives every image the same quality, without looking at it."""

    QUALITY = 3.14159

    def stream(self, requests: Iterable[Any]) -> Iterator[tuple[Any, SimpleNamespace]]:
        for request in requests:
            yield request, SimpleNamespace(targets={"quality": self.QUALITY}, reason="")


@pytest.mark.parametrize("add", ["update", "forward"])
def test_many_single_updates_do_not_move_the_mean(scorer: Scorer, add: str) -> None:
    metric = MSTClipIQAScore(scorer)
    metric.scorer = cast("Scorer", Constant())
    metric.total += 1e6 * Constant.QUALITY
    metric.count += 10**6
    for _ in range(1000):
        getattr(metric, add)([b""])
    assert metric.count == 1_001_000
    assert metric.total.item() == pytest.approx(1_001_000 * Constant.QUALITY, rel=1e-12)
    assert metric.compute().item() == pytest.approx(Constant.QUALITY, rel=1e-7)


def test_the_sum_keeps_its_bits_however_the_metric_is_cast(scorer: Scorer) -> None:
    def exact(metric: object) -> bool:
        assert isinstance(metric, MSTClipIQAScore)
        return metric.total.dtype == torch.float64 and metric.total.item() == total

    metric, total = MSTClipIQAScore(scorer), 1e6 + 1e-6
    metric.total += total
    assert exact(metric.half()) and exact(metric.bfloat16()) and exact(metric.to(torch.float16))
    assert exact(metric.set_dtype(torch.float16)) and exact(metric.to("cpu", torch.bfloat16))
    inside = torch.nn.ModuleList([metric]).half().to(torch.bfloat16)[0]
    assert (
        isinstance(inside, MSTClipIQAScore) and exact(inside) and exact(inside.clone()) and exact(copy.deepcopy(inside))
    )
    inside.reset()
    assert (inside.total.dtype, inside.total.item()) == (torch.float64, 0.0)


def test_a_saved_sum_is_loaded_in_float64(scorer: Scorer) -> None:
    metric, other = MSTClipIQAScore(scorer), MSTClipIQAScore(scorer)
    metric.persistent(True)
    metric.total += 0.1
    saved = metric.state_dict()
    other.load_state_dict(saved)
    assert other.total.item() == metric.total.item()
    other.load_state_dict(metric.state_dict() | {"total": torch.tensor(0.5)})  # as older versions saved it
    assert (other.total.dtype, other.total.item()) == (torch.float64, 0.5)


def test_a_device_without_float64_gets_a_float32_sum(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchmetrics._sum_dtype(torch.device("mps")) == torch.float32
    monkeypatch.setattr(torchmetrics, "_WITHOUT_FLOAT64", ("meta",))  # which every machine has
    metric = MSTClipIQAScore(scorer).to("meta")
    assert (metric.total.device.type, metric.total.dtype) == ("meta", torch.float32)
    metric.reset()
    assert (metric.total.device.type, metric.total.dtype) == ("meta", torch.float32)
    assert metric.count.device.type == "meta"
