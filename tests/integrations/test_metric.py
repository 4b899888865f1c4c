"""``create_metric`` as users of pyiqa call it: scores as ``Scorer``'s, gradients where they are asked for."""

from __future__ import annotations

import copy
import json
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import mst_clipiqa
from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.errors import ImageError, PromptError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.integrations.metric import MSTClipIQAMetric, create_metric, list_models
from mst_clipiqa.integrations.pyiqa import register
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.scoring.differentiable import DifferentiableTarget
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import fill, save_clip
from tests.fakes import FakePair, draw

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPTS = ["a red fox", "a photo with quality"]


def some_images(count: int = 2, size: tuple[int, int] = (100, 120)) -> Tensor:
    """Return smooth noise with whole bytes, float32 (count, 3, height, width) in 0.1..0.9."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1) * 0.8 + 0.1
    return (large * 255).round() / 255


@pytest.fixture(scope="module")
def scorer(small_model: Path) -> Scorer:
    return Scorer.load(small_model, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def clip_scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    """Return a scorer with both heads over a pair of small CLIPs."""
    root = tmp_path_factory.mktemp("clip")
    pair = load_clip_pair(str(save_clip(root / "32", 32)), str(save_clip(root / "16", 16)), "closed form")
    targets = {"quality": Target("template", 0.0, 5.0), "correspondence": Target("prompt", 0.0, 5.0)}
    parts = {"quality": MSTCLIPIQA(pair.dim, "template"), "correspondence": MSTCLIPIQA(pair.dim, "prompt")}
    for name, part in parts.items():
        fill(part, f"{name}.")
        part.eval().requires_grad_(False)
    config = ModelConfig("clips", EncoderRef("closed form", pair.sha256, pair.dim), targets, pair.view)
    return Scorer(TrainedModel(config, parts), ImageEncoder(pair))


def test_what_a_metric_says_of_itself(small_model: Path) -> None:
    metric = mst_clipiqa.create_metric(small_model, device="cpu")
    assert isinstance(metric, torch.nn.Module)
    assert (metric.metric_name, metric.metric_mode, metric.lower_better) == ("small", "NR", False)
    assert (metric.target, metric.score_range) == ("quality", "0, 5")
    assert not metric.training
    assert "quality (0, 5), Scorer('small'" in repr(metric)
    assert mst_clipiqa.list_models() == ["mini", "zero-shot:openai"]
    assert list_models("NR", "*mini*") == ["mini"]
    assert list_models("FR") == []
    with pytest.raises(UsageError, match=r"Expected a target of quality, correspondence, got 'qualty' \(did you mean"):
        create_metric(small_model, target="qualty")


def test_nothing_heavy_is_imported_for_the_names() -> None:
    code = (
        "import sys, mst_clipiqa; dir(mst_clipiqa); print('torch' in sys.modules, 'create_metric' in dir(mst_clipiqa))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("target", ["quality", "correspondence"])
def test_without_gradients_a_score_is_the_scorers(scorer: Scorer, target: str, tmp_path: Path) -> None:
    metric, images = MSTClipIQAMetric(scorer, target), some_images()
    want = [score.targets[target] for score in scorer(images, PROMPTS)]
    got = metric(images, PROMPTS)
    assert got.shape == (2, 1) and got.dtype == torch.float32
    assert got.flatten().tolist() == pytest.approx(want, abs=0)
    with torch.no_grad():
        assert torch.equal(metric(images.clone().requires_grad_(), PROMPTS), got)
    assert torch.equal(metric(images[0], PROMPTS[0]), got[:1])
    draw(3, 0.2, size=80).save(tmp_path / "1.png")
    one = scorer(tmp_path / "1.png", "a red fox").targets[target]
    assert metric(str(tmp_path / "1.png"), "a red fox").tolist() == [[one]]
    assert metric([tmp_path / "1.png", draw(4, 0.1)], "a red fox").shape == (2, 1)
    grey = images[:, :1]
    assert torch.equal(metric(grey, PROMPTS), metric(grey.repeat(1, 3, 1, 1), PROMPTS))


def test_what_cannot_be_scored(scorer: Scorer, tmp_path: Path) -> None:
    quality, correspondence = MSTClipIQAMetric(scorer), MSTClipIQAMetric(scorer, "correspondence")
    images = some_images()
    assert torch.isnan(correspondence(images, ["a red fox", "zzz yyy"])[:, 0]).tolist() == [False, True]
    for prompt in (None, " "):
        with pytest.raises(PromptError, match=r"^Expected a prompt for correspondence, got none: give it\.$"):
            correspondence(images, prompt)
        with pytest.raises(PromptError, match=r"^Expected a prompt for correspondence, got none: give it\.$"):
            correspondence(images.clone().requires_grad_(), prompt)
    with pytest.raises(PromptError, match="The prompt's words lie outside"):
        correspondence(images.clone().requires_grad_(), "zzz yyy")
    with pytest.raises(ImageError):
        quality(tmp_path / "none.png")
    with pytest.raises(UsageError, match=r"Expected one prompt or one per image \(2\), got 3"):
        quality(images, ["a", "b", "c"])
    for wrong in (torch.zeros(2, 4, 8, 8), torch.zeros(8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(UsageError, match="Expected float images"):
            quality(wrong)


@pytest.mark.parametrize("as_loss", [True, False])
@pytest.mark.parametrize("target", ["quality", "correspondence"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 3, 32, 32), torch.nan), r"Expected values in \[0, 1\], got NaN or infinity"),
        (torch.full((2, 3, 32, 32), torch.inf), "got NaN or infinity"),
        (torch.full((2, 3, 32, 32), 200.0), "got values from 200 to 200: divide it by 255"),
        (torch.full((2, 3, 32, 32), -0.5), "got values from -0.5 to -0.5: scale or clamp it"),
        (torch.rand(2, 3, 0, 8), r"\(3, 0, 8\)|\(2, 3, 0, 8\)"),
        (torch.rand(2, 3, 8, 8).to_sparse(), "Expected a dense tensor"),
    ],
)
def test_a_tensor_that_is_no_image_is_refused_as_a_loss_too(
    scorer: Scorer, images: Tensor, message: str, target: str, as_loss: bool
) -> None:
    metric = MSTClipIQAMetric(scorer, target, as_loss=as_loss)
    with pytest.raises(ImageError, match=message):
        metric(images, "a red fox")


@pytest.mark.parametrize("target", ["quality", "correspondence"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_loss_takes_every_precision_and_gives_gradients_in_it(
    scorer: Scorer, target: str, dtype: torch.dtype
) -> None:
    metric = MSTClipIQAMetric(scorer, target, as_loss=True)
    images = some_images().to(dtype).requires_grad_()
    scores = metric(images, PROMPTS)
    torch.testing.assert_close(scores, metric(images.detach().float(), PROMPTS), rtol=0, atol=0)
    scores.sum().backward()
    assert images.grad is not None and images.grad.dtype == dtype
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_no_images_have_no_scores(scorer: Scorer) -> None:
    for target in ("quality", "correspondence"):
        images = torch.rand(0, 3, 32, 32, requires_grad=True)
        scores = MSTClipIQAMetric(scorer, target, as_loss=True)(images, [])
        assert scores.shape == (0, 1)
        scores.sum().backward()


@pytest.mark.parametrize("target", ["quality", "correspondence"])
@pytest.mark.parametrize("pair", ["small", "clip"])
def test_scores_with_gradients_are_the_scorers_within_a_hundredth(
    pair: str, target: str, request: pytest.FixtureRequest
) -> None:
    scorer: Scorer = request.getfixturevalue("scorer" if pair == "small" else "clip_scorer")
    images = some_images().requires_grad_()
    scores = MSTClipIQAMetric(scorer, target)(images, PROMPTS)
    assert scores.shape == (2, 1)
    low, high = scorer.ranges[target]
    want = [score.targets[target] for score in scorer(images.detach(), PROMPTS)]
    assert scores.detach().clamp(low, high).flatten().tolist() == pytest.approx(want, abs=0.01)
    scores.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert torch.isfinite(images.grad).all()
    if pair == "small":  # two images of one batch do not touch each other
        alone = images.detach()[:1].clone().requires_grad_()
        MSTClipIQAMetric(scorer, target)(alone, PROMPTS[:1]).sum().backward()
        torch.testing.assert_close(alone.grad, images.grad[:1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("target", ["quality", "correspondence"])
@pytest.mark.parametrize("pair", ["small", "clip"])
def test_gradients_are_those_of_the_score(
    pair: str, target: str, small_model: Path, request: pytest.FixtureRequest
) -> None:
    if pair == "small":
        scorer = Scorer.load(small_model, device="cpu", precision="fp32")  # not shared: its encoders become float64
        encoders = scorer.encoder.encoders
        assert isinstance(encoders, MiniPair)
        modules: list[torch.nn.Module] = [encoders.coarse, encoders.fine]
        single = torch.float32
    else:
        scorer = request.getfixturevalue("clip_scorer")
        encoders = scorer.encoder.encoders
        assert isinstance(encoders, CLIPPair)
        modules = [encoders.mstfe]
        single = torch.float32
    differentiable = DifferentiableTarget(scorer, target).double()
    try:
        for module in modules:
            module.double()
        images = some_images(1, (50, 58)).double().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x: differentiable(x, ["a red fox"]), images, eps=1e-7, atol=1e-5, rtol=1e-3, fast_mode=True
        )
    finally:
        for module in modules:
            module.to(single)


def test_a_few_steps_along_the_gradient_raise_the_score_of_a_noisy_image() -> None:
    metric = create_metric("mini", as_loss=True, device="cpu")
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    noisy = (some_images(1, (128, 128)) + 0.15 * noise).clamp(0, 1)
    image = noisy.clone().requires_grad_()
    for _ in range(2):
        (gradient,) = torch.autograd.grad(metric(image).sum(), image)
        image = (image + 0.02 * gradient.sign()).clamp(0, 1).detach().requires_grad_()
    before, after = (metric.scorer(one.detach()[0]).quality or 0 for one in (noisy, image))
    assert after > before + 0.1  # after rounding to bytes, too


def test_exported_or_unknown_encoders_have_no_gradients() -> None:
    pair = FakePair()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    with pytest.raises(UsageError, match="Expected encoders that torch computes, got exported ones"):
        MSTClipIQAMetric(scorer)
    assert MSTClipIQAMetric(scorer, as_loss=False)(some_images()).shape == (2, 1)


def test_zero_shot_correspondence_has_gradients(clip_scorer: Scorer) -> None:
    pair = clip_scorer.encoder.encoders
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    metric = MSTClipIQAMetric(scorer, "correspondence")
    images = some_images()
    torch.testing.assert_close(
        metric(images.clone().requires_grad_(), PROMPTS), metric(images, PROMPTS), atol=1e-3, rtol=0
    )


def test_a_metric_moves_with_its_encoders(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = create_metric(small_model, device="cpu")
    moved: list[torch.device] = []
    monkeypatch.setattr(metric.scorer, "to", moved.append)
    metric.to("meta")
    assert moved == [torch.device("meta")]


class StandIn(dict[str, Any]):
    """A registry with the calls of pyiqa 0.1.16's, and its way from a name to a score."""

    def register(self, obj: Any) -> Any:
        assert obj.__name__ not in self, "pyiqa refuses a name that it has"
        self[obj.__name__] = obj
        return obj

    def create(self, configs: dict[str, Any], name: str, as_loss: bool, **kw: Any) -> Callable[..., Tensor]:
        options = {**configs[name]["metric_opts"], **kw}
        net = self[options.pop("type")](**options).to(torch.device("cpu"))
        net.eval()

        def infer(target: Tensor, **named: Any) -> Tensor:
            assert configs[name]["metric_mode"] == "NR"
            with torch.set_grad_enabled(as_loss):
                output: Tensor = net(target, **named)
            return output.mean() if as_loss else output

        return infer


def test_the_class_that_pyiqa_registers(small_model: Path, scorer: Scorer) -> None:
    registry, configs = StandIn(), dict[str, Any]()
    assert register(registry, configs, model=str(small_model)) == "mst_clipiqa"
    register(registry, configs, "mst_clipiqa_correspondence", str(small_model), "correspondence")
    assert configs["mst_clipiqa"]["lower_better"] is False
    images = some_images()
    want = [score.quality for score in scorer(images, PROMPTS)]
    assert registry.create(configs, "mst_clipiqa", False)(images).flatten().tolist() == pytest.approx(want)
    images.requires_grad_()
    loss = registry.create(configs, "mst_clipiqa_correspondence", True)(images, prompt=PROMPTS)
    loss.backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_the_example_script_raises_a_score_and_says_how_far_from_the_clean_image_that_leads(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[2] / "examples" / "raise_score.py"
    script = runpy.run_path(str(path))
    draw(2, 0.1, size=96).save(tmp_path / "1.png")
    words = ["--model", str(small_model), "--steps", "8", "--side", "64", "-o", str(tmp_path / "raised.png")]
    script["main"]([str(tmp_path / "1.png"), *words])
    found = json.loads(capsys.readouterr().out)
    assert found["score"]["raised"] > found["score"]["noisy"]
    assert found["largest_change"] <= 8 / 255 + 1e-6
    assert 19 < found["psnr_to_clean"]["noisy"] < 22  # noise of 0.1, cut off at black and white
    with Image.open(tmp_path / "raised.png") as raised:
        assert raised.size == (64, 64)
    plain = Scorer.load(small_model, device="cpu", precision="fp32")
    assert plain(tmp_path / "raised.png").quality == pytest.approx(found["score"]["raised"])


def pickled(metric: MSTClipIQAMetric) -> MSTClipIQAMetric:
    found = pickle.loads(pickle.dumps(metric))  # noqa: S301 - made a moment ago
    assert isinstance(found, MSTClipIQAMetric)
    return found


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_a_metric_can_be_copied_and_sent_after_use(again: Callable[[MSTClipIQAMetric], MSTClipIQAMetric]) -> None:
    metric = create_metric("mini", as_loss=True, device="cpu", target="correspondence")
    images = some_images(1)
    metric(EXAMPLES / "cat.jpg", "a cat"), metric(images, "a cat")  # the encoders prepare what cannot be copied
    other = again(metric)
    assert other is not metric and other.scorer is not metric.scorer
    assert (other.target, other.as_loss, other.score_range) == ("correspondence", True, "0, 5")
    assert torch.equal(other(images, "a cat"), metric(images, "a cat"))


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
def test_converting_a_module_that_holds_the_metric_leaves_its_precision(scorer: Scorer, convert: str) -> None:
    metric = MSTClipIQAMetric(scorer, as_loss=True)
    want = metric(some_images())
    getattr(torch.nn.ModuleList([metric]), convert)()
    assert torch.equal(metric(some_images()), want)


def test_a_list_of_tensors_has_gradients_too(scorer: Scorer) -> None:
    images = [some_images(1)[0].requires_grad_(), some_images(1, (64, 80))[0].requires_grad_()]
    metric = MSTClipIQAMetric(scorer, "correspondence")
    scores = metric(images, PROMPTS)
    scores.sum().backward()
    each = torch.cat([metric(image, prompt) for image, prompt in zip(images, PROMPTS, strict=True)])
    assert scores.shape == (2, 1) and torch.equal(scores, each)
    assert all(image.grad is not None and image.grad.abs().max() > 0 for image in images)
    assert not MSTClipIQAMetric(scorer, as_loss=False)(images).requires_grad


def test_what_is_not_text_is_no_prompt_of_a_loss_either(scorer: Scorer) -> None:
    for as_loss in (False, True):
        with pytest.raises(PromptError, match="Expected the prompt as text, got int"):
            MSTClipIQAMetric(scorer, as_loss=as_loss)(some_images(), [1, 2])
