"""An image has one score: the same bits alone, at any place of any batch, and with any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw
from torch import Tensor

from mst_clipiqa.cli import group
from mst_clipiqa.cli.commands import score as command
from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.encoders.packing import can_pack
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.prompt_encoder import PromptEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import fill, save_clip, set_alpha

THREADS = (1, 2, 4)
PROMPTS = ["a fox", None, "a photo of a very long red fox", "a red car", "a photo of a red dog and a cat and a fox"]


def fractal(side: int) -> Image.Image:
    """Return the Mandelbrot set: flat areas, and edges of every direction."""
    y, x = np.mgrid[0:side, 0:side] / side
    c = 3 * x - 2 + 1j * (3 * y - 1.5)
    z, steps = c.copy(), np.zeros((side, side), int)
    for _ in range(50):
        inside = abs(z) < 2
        z = np.where(inside, z * z + c, z)
        steps += inside
    return Image.fromarray(np.dstack([x * 76, steps * 5, y * 76]).astype(np.uint8))


def gradient(side: int) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side]
    return Image.fromarray(np.dstack([x, y, (x + y) // 2]).astype(np.uint8))


def screenshot(side: int) -> Image.Image:
    """Return boxes and text with exact horizontal and vertical edges."""
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, side, 24), fill=(50, 90, 160))
    for row in range(40, side, 16):
        draw.text((8, row), "File Edit View Help " * 3, fill=(20, 20, 20))
        draw.line((0, row, side, row), fill=(200, 200, 200))
    return image


def images() -> list[Image.Image]:
    """Return images whose values lie on the boundaries of whatever is counted or compared."""
    flat = Image.new("RGB", (240, 240), (128, 128, 128))
    one_colour = Image.new("RGB", (300, 224), (255, 0, 0))
    return [flat, gradient(250), fractal(260), screenshot(320), one_colour]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIPPair:
    root = tmp_path_factory.mktemp("clip")
    return load_clip_pair(str(save_clip(root / "32", 32)), str(save_clip(root / "16", 16)), "closed form")


def trained(pair: EncoderPair) -> TrainedModel:
    targets = {"quality": Target("template", 0.0, 5.0), "correspondence": Target("prompt", 0.0, 5.0)}
    parts = {"quality": MSTCLIPIQA(pair.dim, "template"), "correspondence": MSTCLIPIQA(pair.dim, "prompt")}
    for name, part in parts.items():
        fill(part, f"{name}.")
        part.eval().requires_grad_(False)
    set_alpha(parts["correspondence"], 0.5)
    return TrainedModel(ModelConfig("toy", EncoderRef(pair.source, pair.sha256, pair.dim), targets, pair.view), parts)


def check(model: TrainedModel, pair: EncoderPair, set_threads: Callable[[int], None]) -> None:
    """Score every image alone, then in batches of 2, 3 and 7 and in three orders, with each number of threads.

    Every size meets every order, and both meet every number of threads.
    """
    set_threads(1)
    pairs = list(zip(images(), PROMPTS, strict=True))
    scorer = Scorer(model, ImageEncoder(pair))
    alone = [next(scorer.many([one])) for one in pairs]
    assert len({score.quality for score in alone}) == len(alone)
    orders = [0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 0, 4, 1, 3, 2]
    for turn, count in enumerate(THREADS):
        set_threads(count)
        for size, order in zip((2, 3, 7), orders[turn:] + orders[:turn], strict=True):
            scores = list(Scorer(model, ImageEncoder(pair, batch_size=size)).many([pairs[i] for i in order]))
            for i, score in zip(order, scores, strict=True):
                assert score == alone[i], f"image {i}, batches of {size} in the order {order}, {count} threads"


@pytest.mark.parametrize("kind", [trained, zero_shot_model])
def test_clip_in_fp32(
    clip: CLIPPair, threads: Callable[[int], None], kind: Callable[[EncoderPair], TrainedModel]
) -> None:
    check(kind(clip), clip, threads)


def test_clip_in_fused_fp32(clip: CLIPPair, threads: Callable[[int], None]) -> None:
    try:
        check(trained(clip), clip.to("cpu", "fp32-fused"), threads)
    finally:
        clip.to("cpu", "fp32")


def test_clip_in_bf16(clip: CLIPPair, threads: Callable[[int], None]) -> None:
    try:
        check(trained(clip), clip.to("cpu", "bf16"), threads)
    finally:
        clip.to("cpu", "fp32")


def test_mini(threads: Callable[[int], None]) -> None:
    scorer = Scorer.load("mini", precision="fp32")
    check(scorer.model, scorer.encoder.encoders, threads)


def test_a_prompt_is_encoded_as_if_it_were_alone(clip: CLIPPair, threads: Callable[[int], None]) -> None:
    threads(1)
    words = [prompt for prompt in PROMPTS if prompt]
    alone = [PromptEncoder(clip, embeddings=True).encode([prompt])[0] for prompt in words]
    for count in THREADS:
        threads(count)
        for one, want in zip(PromptEncoder(clip, embeddings=True).encode(words), alone, strict=True):
            assert torch.equal(one.tokens, want.tokens)
            assert one.embedding is not None and want.embedding is not None
            assert torch.equal(one.embedding, want.embedding)


@pytest.mark.skipif(not can_pack(), reason="on this CPU each prompt is encoded alone")
@pytest.mark.parametrize("kind", ["mini", "clip"])
def test_prompts_in_groups_are_encoded_as_if_they_were_alone(
    kind: str, clip: CLIPPair, threads: Callable[[int], None]
) -> None:
    pair: EncoderPair = clip if kind == "clip" else Scorer.load("mini").encoder.encoders
    assert pair.prompts_at_once > 1
    threads(1)
    words = [f"{prompt} {i}" for i in range(9) for prompt in PROMPTS if prompt]
    alone = [PromptEncoder(pair).encode([prompt])[0] for prompt in words]
    for count in THREADS:
        threads(count)
        for order in (words, words[::-1]):
            found = dict(zip(order, PromptEncoder(pair).encode(order), strict=True))
            for prompt, want in zip(words, alone, strict=True):
                assert torch.equal(found[prompt].tokens, want.tokens)
                assert (found[prompt].truncated, found[prompt].unread) == (want.truncated, want.unread)


@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_resumed_table_equals_an_undisturbed_one(
    clip: CLIPPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    lines = ["file_name,prompt"]
    for i in range(10):
        images()[i % 5].save(folder / f"{i}.png")
        lines.append(f"{i}.png,{PROMPTS[i * 3 % 5] or 'a cat'}{' and a dog' * i}")
    (folder / "metadata.csv").write_text("\n".join(lines))

    def scored(name: str, *flags: str) -> Result:
        scorer = Scorer(trained(clip), ImageEncoder(clip, batch_size=3))
        monkeypatch.setattr(command, "load_scorer", lambda _: scorer)
        return CliRunner().invoke(group, ["score", str(folder), "-o", str(tmp_path / name), "--quiet", *flags])

    assert scored("whole.csv").exit_code == 0
    encode, left = clip.encode_chunk, stop

    def killed(stream: Stream, views: Tensor) -> Tensor:
        nonlocal left
        left -= stream == "coarse"
        if left < 0:
            raise MemoryError
        return encode(stream, views)

    with monkeypatch.context() as patch:
        patch.setattr(clip, "encode_chunk", killed)
        assert isinstance(scored("stopped.csv").exception, MemoryError)
    assert scored("stopped.csv", "--resume").exit_code == 0
    assert (tmp_path / "stopped.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
