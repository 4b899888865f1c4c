"""What a caller has set for torch changes no score: autocast, the default device and precision, a fork."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.int8_weights import rounded, sum_bits
from mst_clipiqa.encoders.torch_threads import on_one_thread
from mst_clipiqa.explain import explain
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.integrations.metric import MSTClipIQAMetric, create_metric
from mst_clipiqa.scoring.score import Score
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import draw

PROMPT = "a red fox"


@pytest.fixture(params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def default_precision(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def score(model: Path, precision: str) -> Score:
    (found,) = Scorer.load(model, device="cpu", precision=precision)([np.asarray(draw(0, 0.2))], PROMPT)
    return found


def test_an_autocast_around_a_scorer_changes_nothing(small_model: Path, precision: str) -> None:
    with on_one_thread():
        want = score(small_model, precision)
        with torch.autocast("cpu", torch.bfloat16):
            assert score(small_model, precision) == want


def test_a_default_device_is_not_used(small_model: Path, precision: str) -> None:
    with on_one_thread():
        want = score(small_model, precision)
        with torch.device("meta"):  # stands for a card
            assert score(small_model, precision) == want


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_precision_does_not_round_the_weights(small_model: Path, dtype: torch.dtype) -> None:
    want = score(small_model, "fp32")
    with default_precision(dtype):
        assert score(small_model, "fp32") == want


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_precision_does_not_hide_that_a_cpu_has_int8(dtype: torch.dtype) -> None:
    """It did, so that ``auto`` computed in another precision, and weights had other scales."""
    want, kernels = sum_bits(), torch.linspace(-1, 1, 36, dtype=torch.float32).view(4, 1, 3, 3)
    levels, scale = rounded(kernels, 32)
    with default_precision(dtype):
        sum_bits.cache_clear()
        assert sum_bits() == want
        found = rounded(kernels, 32)
    assert torch.equal(found[0], levels) and found[1].dtype == torch.float32 and torch.equal(found[1], scale)


@pytest.mark.parametrize("granularity", ["auto", "coarse"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_precision_changes_no_score_below_fine(granularity: str, dtype: torch.dtype) -> None:
    def found() -> Score:
        scorer = Scorer.load("mini", device="cpu", precision="fp32", granularity=granularity, granularity_check=1)
        (score,) = scorer([np.asarray(draw(0, 0.2))], PROMPT)
        return score

    want = found()
    with default_precision(dtype):
        assert found() == want


@pytest.mark.usefixtures("few_windows")
@pytest.mark.parametrize("around", [lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")])
def test_an_explanation_is_the_same_whatever_the_callers_settings(around: Any, small_model: Path) -> None:
    scorer, image = Scorer.load(small_model, device="cpu", precision="fp32"), draw(0, 0.2)
    want = explain(scorer, image, PROMPT).to_json()
    with around():
        assert explain(scorer, image, PROMPT).to_json() == want


@pytest.mark.parametrize("target", ["quality", "correspondence"])
def test_what_is_loaded_in_inference_mode_has_gradients_outside_it(
    small_model: Path, small_encoders: Path, target: str
) -> None:
    """As of a scorer that a validation step loads, or a node of ComfyUI."""
    with torch.inference_mode():
        metrics = [create_metric(small_model, as_loss=True, device="cpu", target=target)]
        scorer = Scorer.load(small_model, device="cpu", precision="fp32").to("cpu")
        pair = load_encoders(str(small_encoders), "cpu", "fp32")
    metrics.append(MSTClipIQAMetric(scorer, target))
    metrics.append(MSTClipIQAMetric(Scorer(scorer.model, ImageEncoder(pair)), target))
    for metric in metrics:
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        metric(images, PROMPT).sum().backward()
        assert images.grad is not None and images.grad.abs().sum() > 0


@pytest.mark.parametrize("target", ["quality", "correspondence"])
def test_a_loss_keeps_its_precision_and_its_device(small_model: Path, target: str) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = create_metric(small_model, as_loss=True, device="cpu", target=target)
    want = loss(images, PROMPT)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(images, PROMPT), want)
    with torch.device("meta"):
        assert torch.equal(loss(images, PROMPT), want)
        assert torch.equal(create_metric(small_model, as_loss=True, device="cpu", target=target)(images, PROMPT), want)
        assert loss([images[0]], PROMPT).device == torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has threads")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
def test_a_forked_process_can_load_and_explain() -> None:
    """It used to wait forever for threads of its parent; mini is large enough to need them."""
    scorer = Scorer.load("mini", device="cpu")
    image = np.asarray(draw(0, 0.2))
    context = multiprocessing.get_context("fork")
    with on_one_thread():
        torch.set_num_threads(2)
        want = scorer(image, PROMPT)
        torch.rand(1 << 20).isfinite().all()  # in parallel, so that there are threads to wait for
        with context.Pool(1) as pool:
            (found,) = pool.map_async(scorer, [image]).get(60)
            metric = pool.apply_async(MSTClipIQAMetric, [scorer]).get(60)
            explained = pool.apply_async(explain, [scorer, image]).get(60)
    assert found.quality == explained.score.quality == want.quality
    assert isinstance(metric, MSTClipIQAMetric)
