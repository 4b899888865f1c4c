"""Adaptation: what moves, what the gate lets pass, and what is written."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mst_clipiqa.adapt.build import adapt_model, build_adapted
from mst_clipiqa.adapt.fit import AdaptRecipe, Guides, adapt
from mst_clipiqa.adapt.gate import LadderGain, NotBetter, RatingGain, Verdict, right_order
from mst_clipiqa.adapt.job import AdaptJob, moving_of, split
from mst_clipiqa.adapt.ladders import LadderPlan, make_ladders, version_of
from mst_clipiqa.adapt.losses import fidelity_loss, ladder_loss
from mst_clipiqa.adapt.moving import Material, MovingEncoders, MovingFusion, parse_train
from mst_clipiqa.adapt.signal import Signal, parse_signal
from mst_clipiqa.cli import group
from mst_clipiqa.data import RatedSet
from mst_clipiqa.encoders.adapter import Adapter, adapter_files, merge_adapter, new_adapter, read_adapter, towers
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.mini.folder import MINI, load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniPair, MiniParts
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import Tower, TowerConfig
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.evaluate import Interval
from mst_clipiqa.images.distort import DISTORTIONS
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text
from mst_clipiqa.model.mstfe import MSTFE
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, load_model, save_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import draw, rated_set

DIM = 8
VIEW = ViewSpec(size=32, fine="native", crops=4, crop_size=16, native_side=32)
PLAN = LadderPlan(each=1, kinds=("noise",), strengths=(0.3, 1.0))
QUICK = AdaptRecipe(steps=60, batch_size=16, learning_rate=1e-2, anchor=0.1)


def random_(module: torch.nn.Module) -> Any:
    """Give a module random weights of a size that keeps numbers near 1."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with tiny encoders like mini's and a random fusion."""
    out = tmp_path_factory.mktemp("model")
    tower = TowerConfig(dim=DIM, blocks=2)
    text = TextConfig(words=30522, dim=DIM, width=8, inner=8, layers=1, heads=2, length=16)
    config = MiniConfig(tower, tower, text, VIEW)
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    parts = MiniParts(random_(Tower(tower)), random_(Tower(tower)), random_(TextEncoder(text)), tokenizer)
    save_mini_pair(out / "encoders", config, parts)
    pair = load_mini_pair(out / "encoders", str(out / "encoders"))
    targets = {"quality": Target("template", 0.0, 5.0, interval=1.0, growth=0.5)}
    reference = EncoderRef(pair.source, pair.sha256, DIM)
    torch.manual_seed(0)
    part = random_(MSTCLIPIQA(DIM, "template"))
    part.gff.W_h.bias.data.fill_(3.0)  # no dead units
    part.head.temperature.data.fill_(5.0)
    save_model(TrainedModel(ModelConfig("base", reference, targets, VIEW), {"quality": part}), out, "# base\n")
    return out


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer.load(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def poor(scorer: Scorer) -> Scorer:
    """Return a scorer that orders ladders the wrong way round."""
    part = copy.deepcopy(scorer.model.parts["quality"])
    for layer in (part.gff.W_c, part.gff.W_f):
        layer.weight.neg_()
    return Scorer(dataclasses.replace(scorer.model, parts={"quality": part}), scorer.encoder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("images")
    for i in range(24):
        draw(i, 0.05, size=40).save(out / f"{i}.png")
    return sorted(out.iterdir())


def job(scorer: Scorer, images: list[Path], out: Path, **changes: Any) -> AdaptJob:
    return dataclasses.replace(AdaptJob(scorer, images, out, recipe=QUICK, plan=PLAN), **changes)


def moving(scorer: Scorer, kind: str) -> MovingFusion | MovingEncoders:
    pair, part = scorer.encoder.encoders, scorer.model.parts["quality"]
    text = Text(templates=scorer.predictor.templates.clone())
    if kind == "fusion":
        return MovingFusion(pair, part, text)
    return MovingEncoders(pair, part, text, new_adapter(pair, kind, 2))  # type: ignore[arg-type]


KINDS_OF_MOVING = ["fusion", "norm", "lora"]


@pytest.mark.parametrize("kind", KINDS_OF_MOVING)
def test_without_a_step_it_is_the_base_model_bit_for_bit(
    scorer: Scorer, folder: Path, images: list[Path], kind: str
) -> None:
    model = moving(scorer, kind)
    ladders = make_ladders(scorer.encoder, images[:3], PLAN, model.prepare)
    adapt(model, ladders, dataclasses.replace(QUICK, steps=0), Guides())
    base, changed = (load_mini_pair(folder / "encoders") for _ in range(2))
    if isinstance(model, MovingEncoders):  # the B of lora is 0
        merge_adapter(changed, model.final(), "a" * 64)
        assert changed.sha256 != base.sha256
    for before, after in zip(features(base), features(changed), strict=True):
        assert torch.equal(before, after)
    parts = scorer.model.parts["quality"].state_dict(), model.final_part().state_dict()
    assert all(torch.equal(tensor, parts[1][name]) for name, tensor in parts[0].items())


class TinyClip:
    """Two CLIP towers without a text encoder, as far as adapters need a pair."""

    def __init__(self) -> None:
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        torch.manual_seed(0)
        both = [
            VisionTower(
                CLIPVisionModelWithProjection(
                    CLIPVisionConfig(**sizes, image_size=32, patch_size=patch, projection_dim=DIM)
                ).eval()
            )
            for patch in (16, 8)
        ]
        self.view = ViewSpec(size=32)
        self.mstfe = MSTFE(both[0], both[1], self.view)
        self.source, self.sha256, self.device, self.precision = "tiny", "0" * 64, torch.device("cpu"), "fp32"


def filled(adapter: Adapter) -> Adapter:
    generator = torch.Generator().manual_seed(1)
    weights = {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in adapter.weights.items()}
    return dataclasses.replace(adapter, weights=weights)


def beside(pair: Any, adapter: Adapter) -> None:
    """Compute x A^T B^T beside each layer, with hooks: what LoRA is before it is merged."""
    for name, layer in towers(pair).named_modules():
        if f"{name}.lora_A" in adapter.weights:
            a, b = adapter.weights[f"{name}.lora_A"], adapter.weights[f"{name}.lora_B"]

            def add(_: Any, x: Any, y: torch.Tensor, a: Any = a, b: Any = b) -> torch.Tensor:
                return y + adapter.alpha / adapter.rank * F.linear(F.linear(x[0], a), b)

            layer.register_forward_hook(add)


def features(pair: Any) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    if isinstance(pair, MiniPair):
        views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
        crops = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=generator)
        return encode_views(pair, views, crops)
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        return tuple(pair.mstfe(stream, views) for stream in ("coarse", "fine"))


@pytest.mark.parametrize("family", ["mini", "clip"])
def test_merged_equals_unmerged(folder: Path, family: str) -> None:
    pairs = [load_mini_pair(folder / "encoders") if family == "mini" else TinyClip() for _ in range(3)]
    adapter = filled(new_adapter(pairs[0], "lora", 2))  # type: ignore[arg-type]
    plain = features(pairs[0])
    beside(pairs[1], adapter)
    merge_adapter(pairs[2], adapter, "a" * 64)  # type: ignore[arg-type]
    for before, hooked, merged in zip(plain, features(pairs[1]), features(pairs[2]), strict=True):
        assert torch.allclose(hooked, merged, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(before, merged, atol=1e-3)


@pytest.mark.parametrize("kind", ["norm", "lora"])
def test_what_moves_beside_clip_is_what_is_merged(kind: Any) -> None:
    pair = TinyClip()
    adapter = filled(new_adapter(pair, kind, 2))  # type: ignore[arg-type]
    model = MovingEncoders(pair, MSTCLIPIQA(DIM, "template"), Text(), adapter)  # type: ignore[arg-type]
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    unmerged = model.features(Material(views, views))
    merged = TinyClip()
    merge_adapter(merged, model.final(), "a" * 64)  # type: ignore[arg-type]
    for one, other in zip(unmerged, features(merged), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS_OF_MOVING)
def test_only_what_moves_receives_gradients(scorer: Scorer, images: list[Path], kind: str) -> None:
    model = moving(scorer, kind)
    before = {name: tensor.clone() for name, tensor in towers(scorer.encoder.encoders).state_dict().items()}
    ladders = make_ladders(scorer.encoder, images[:6], PLAN, model.prepare)
    named = {name: tensor.detach().clone() for name, tensor in model.parameters().items()}
    adapt(model, ladders, dataclasses.replace(QUICK, steps=2), Guides())
    assert all(name.startswith("gff.") for name in named) == (kind == "fusion")
    assert [name for name, tensor in model.parameters().items() if torch.equal(tensor, named[name])] == []
    frozen = [p for p in model.part.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
    assert len(frozen) == (1 if kind == "fusion" else len(list(model.part.parameters())))
    after = towers(scorer.encoder.encoders).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("train", ["fusion", "norm", "lora:2"])
def test_a_better_model_is_written_as_it_was_measured(
    poor: Scorer, images: list[Path], tmp_path: Path, train: str
) -> None:
    out = tmp_path / "out"
    found = build_adapted(job(poor, images, out, train=train))
    again, model = adapt_model(job(poor, images, out, train=train))
    assert found.verdict.ladders.after > found.verdict.ladders.before
    assert again.verdict == found.verdict
    adapted = Scorer.load(out, device="cpu", precision="fp32")
    config, part = adapted.model.config, model.final_part().state_dict()
    saved = adapted.model.parts["quality"].state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in part.items())  # same seed, same bits
    assert config.targets["quality"].interval is None
    assert (config.encoders.sha256 == poor.model.config.encoders.sha256) == (train == "fusion")
    if isinstance(model, MovingEncoders):
        kept = read_adapter(out, config.encoders.adapter)
        assert all(torch.equal(kept.weights[name], tensor) for name, tensor in model.final().weights.items())
    f_c, f_f = model.features(make_ladders(poor.encoder, images[:1], PLAN, model.prepare).material[torch.tensor(0)])
    (encoded,) = adapted.encode([images[0]])
    assert torch.allclose(encoded.f_c, f_c[0], atol=1e-4) and torch.allclose(encoded.f_f, f_f[0], atol=1e-4)
    assert "There are no intervals" in (out / "README.md").read_text()
    report = json.loads((out / "adapt.json").read_text())
    assert (report["train"], report["without_intervals"]) == (train, ["quality"])
    assert poor(images[0]).intervals and not adapted(images[0]).intervals
    adapted.save_pretrained(tmp_path / "copy")
    shutil.rmtree(out)  # the copy needs nothing of it
    copied = Scorer.load(tmp_path / "copy", device="cpu", precision="fp32")
    assert copied.model.config.encoders.adapter == config.encoders.adapter
    assert copied(images[0]).targets == adapted(images[0]).targets


def test_lora_has_pefts_names(scorer: Scorer) -> None:
    import safetensors.torch

    files = adapter_files(new_adapter(scorer.encoder.encoders, "lora", 4), "mini")
    config = json.loads(files["adapter_config.json"])
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    assert config["target_modules"] == ["coarse.project", "fine.project"]
    names = set(safetensors.torch.load(files["adapter_model.safetensors"]))
    wanted = {f"base_model.model.{s}.project.lora_{f}.weight" for s in ("coarse", "fine") for f in "AB"}
    assert names == wanted


def test_another_adapter_than_the_folders_is_refused(poor: Scorer, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_adapted(job(poor, images, out, train="lora:2"))
    with pytest.raises(
        UsageError,
        match=r"^Expected a model with the encoders it was trained on, got out, whose .*: adapt the model that it came",
    ):
        build_adapted(job(Scorer.load(out, device="cpu"), images, tmp_path / "twice"))
    content = bytearray((out / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "adapter_model.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"Expected the adapter that config.json names"):
        Scorer.load(out)
    (out / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"Expected adapter_model\.safetensors beside config.json"):
        Scorer.load(out)


def test_an_adapter_of_other_encoders_is_refused(folder: Path) -> None:
    adapter = new_adapter(TinyClip(), "lora", 2)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"Expected an adapter for .*, got one with .*q_proj"):
        merge_adapter(load_mini_pair(folder / "encoders"), adapter, "a" * 64)


def test_shuffled_ladders_are_refused_and_nothing_is_written(
    scorer: Scorer, images: list[Path], tmp_path: Path
) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    shuffled = dataclasses.replace(QUICK, shuffle=True)
    said = r"the share of held-out rungs in the right order went from .* Nothing"
    with pytest.raises(NotBetter, match=said) as refused:
        build_adapted(job(scorer, [*images, broken], out, recipe=shuffled))
    assert not out.exists()
    assert [Path(name).name for name in refused.value.skipped] == ["broken.png"]


def gain(low: float, high: float = 0.2) -> LadderGain:
    return LadderGain(8, 16, 0.8, 0.9, Interval(0.1, low, high, 0.95, 1000, 8), {})


def rated(after: float, low: float = -0.1) -> dict[str, RatingGain]:
    return {"quality": RatingGain(20, 0.5, after, low, 0.3)}


def test_the_gate_says_why_it_refuses() -> None:
    assert Verdict(gain(0.01), rated(0.5)).refusal() == ""
    assert "0.800 to 0.900" in Verdict(gain(-0.01)).refusal()
    assert "0.800 to 0.900" in Verdict(gain(float("nan"), float("nan"))).refusal()
    assert Verdict(gain(0.01), rated(0.49)).refusal() == "SRCC of quality with the ratings fell from 0.5000 to 0.4900"
    assert Verdict(gain(0.01), rated(float("nan"), float("nan"))).refusal()


def test_ratings_can_show_that_a_model_is_better() -> None:
    assert Verdict(gain(-0.01), rated(0.6, low=0.02)).refusal() == ""
    both = Verdict(gain(-0.01), rated(0.6)).refusal()
    assert "0.800 to 0.900" in both and "SRCC of quality with the ratings from 0.5000 to 0.6000" in both
    worse = Verdict(gain(-0.3, high=-0.1), rated(0.6, low=0.02)).refusal()
    assert worse.startswith("the share of held-out rungs") and "SRCC" not in worse
    assert Verdict(gain(float("nan"), float("nan")), rated(0.6, low=0.02)).refusal()


def test_ratings_decide_and_labels_train(scorer: Scorer, images: list[Path], tmp_path: Path) -> None:
    rated: RatedSet = rated_set(tmp_path / "rated", prompts=6, each=2)
    found, _ = adapt_model(job(scorer, images, tmp_path / "out", check=rated, labels=0.5))
    assert found.verdict.ratings["quality"].images == 6  # three of six prompts train
    assert found.verdict.ratings["quality"].before != found.verdict.ratings["quality"].after


def test_teachers_teach_where_they_agree(scorer: Scorer, folder: Path, images: list[Path], tmp_path: Path) -> None:
    from mst_clipiqa.adapt.signal import taught_by

    taught = taught_by(Signal((str(folder), str(folder))), images[:4], scorer, "quality")
    scores = torch.tensor([one.quality for one in scorer.many(images[:4])])
    assert taught is not None
    assert torch.allclose(taught, 1 + scores / 5 * 4, atol=0.05)  # teachers compute in bf16 where they can
    assert parse_signal("teacher:a,b") == Signal(("a", "b"))
    assert parse_signal("ladders").teachers == ()


def test_images_that_cannot_be_read_are_left_out(scorer: Scorer, images: list[Path], tmp_path: Path) -> None:
    broken = [tmp_path / f"broken {i}.png" for i in range(6)]
    for path in broken:
        path.write_bytes(b"none")
    found, _ = adapt_model(job(scorer, [*images, *broken], tmp_path / "out"))
    assert all(set(broken) & set(part) for part in split([*images, *broken]))  # some of those that are held out, too
    assert sorted(found.skipped) == [str(path) for path in broken]
    with pytest.raises(UsageError, match=r"Expected at least 24 images to adapt to, got 5 that can be read"):
        adapt_model(job(scorer, images[:5], tmp_path / "out"))


def test_an_image_that_is_gone_is_left_out_of_what_is_written(poor: Scorer, images: list[Path], tmp_path: Path) -> None:
    gone = tmp_path / "gone.png"
    found = build_adapted(job(poor, [*images, gone], tmp_path / "out"))
    assert list(found.skipped) == [str(gone)]
    assert len(load_model(tmp_path / "out").trained_on.images) == len(images)


def test_ladders_get_worse_rung_by_rung_and_are_the_same_again() -> None:
    plan = LadderPlan()
    image = draw(3, 0.1, size=96)
    found = [version_of(image, "a.png", i, plan) for i in range(plan.versions)]
    again = [version_of(image, "a.png", i, plan) for i in range(plan.versions)]
    assert [one.tobytes() for one in found] == [one.tobytes() for one in again]
    clean = torch.tensor(bytearray(image.tobytes())).float()
    for ladder in plan.rungs().tolist():
        errors = [(torch.tensor(bytearray(found[i].tobytes())).float() - clean).abs().mean() for i in ladder]
        assert errors[0] == 0 and errors == sorted(errors)
    assert found[1].size == found[2].size == (82, 82)
    assert len(DISTORTIONS) >= plan.each


def test_the_loss_ranks_inside_a_ladder_only() -> None:
    plan = LadderPlan(each=1, strengths=(0.5, 1.0))
    right = torch.tensor([[4.0, 9, 9, 3, 2], [2.0, 9, 9, 1.5, 1]])
    rungs = plan.rungs().expand(2, -1, -1)
    assert ladder_loss(right, rungs) < 0.05 < ladder_loss(right.flip(1), rungs)
    assert torch.equal(ladder_loss(right, rungs), ladder_loss(right + torch.tensor([[0.0], [5.0]]), rungs))
    assert float(fidelity_loss(torch.zeros(1), torch.zeros(1))) == pytest.approx(1 - 0.5**0.5, abs=1e-4)


def test_a_tie_is_in_no_order(scorer: Scorer, images: list[Path]) -> None:
    model = moving(scorer, "fusion")
    ladders = make_ladders(scorer.encoder, images[:1], PLAN, model.prepare)
    assert right_order(torch.zeros(1, ladders.plan.versions), ladders).tolist() == [[0.0]]
    falling = -torch.arange(ladders.plan.versions).float()[None]
    assert right_order(falling, ladders).tolist() == [[1.0]]


def test_a_third_is_held_out_whatever_the_order(images: list[Path]) -> None:
    training, held = split(images)
    assert (len(training), len(held)) == (16, 8)
    assert set(split(images[::-1])[1]) == set(held)


@pytest.mark.parametrize("train", ["lora:0", "lora:x", "all", "fusion:2", "lora:999"])
def test_what_cannot_move_is_said(train: str) -> None:
    with pytest.raises(UsageError, match="Expected --train fusion, norm or lora:R"):
        parse_train(train)


def test_a_head_that_reads_prompts_is_not_adapted(scorer: Scorer, images: list[Path], tmp_path: Path) -> None:
    model = scorer.model
    reads = {"correspondence": Target("prompt", 0.0, 5.0)}
    parts = model.parts | {"correspondence": MSTCLIPIQA(DIM, "prompt")}

    def asked(target: str, targets: dict[str, Target]) -> str:
        config = dataclasses.replace(model.config, targets=targets)
        both = Scorer(dataclasses.replace(model, config=config, parts=parts), scorer.encoder)
        with pytest.raises(UsageError) as found:
            moving_of(job(both, images, tmp_path / "out", target=target))
        return str(found.value)

    two = model.config.targets | reads
    needs = "Expected a target that needs no prompt, as adaptation has none, got"
    prompt = f"{needs} 'correspondence', whose head reads the prompt"
    assert asked("correspondence", two) == f"{prompt}: choose --target quality."
    assert asked("overall", two) == f"{needs} 'overall', which base does not score: choose --target quality."
    assert asked("correspondence", reads) == f"{prompt}: choose another model."


@pytest.mark.parametrize("labels", [-0.1, 0.91, math.nan])
def test_labels_are_a_share(scorer: Scorer, images: list[Path], tmp_path: Path, labels: float) -> None:
    with pytest.raises(UsageError, match=r"^Expected labels to be a number from 0 to 0\.9, got"):
        job(scorer, images, tmp_path, labels=labels)


def test_what_can_move_is_read() -> None:
    assert [parse_train(one) for one in ("fusion", "norm", "lora", "lora:8")] == [
        ("fusion", 0),
        ("norm", 0),
        ("lora", 4),
        ("lora", 8),
    ]


def test_the_command_writes_a_model_or_exits_with_3(folder: Path, images: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["adapt", str(folder), "--images", str(images[0].parent), "-o", str(out), "--precision", "fp32", "--quiet"]
    none = CliRunner().invoke(group, [*asked, "--steps", "0"])
    assert (none.exit_code, out.exists()) == (3, False)
    assert "Nothing was written." in none.stderr
    assert CliRunner().invoke(group, [*asked, "--labels", "0.1"]).exit_code == 2
    for bad in (["--train", "x"], ["--signal", "x"], ["--target", "none"]):
        assert CliRunner().invoke(group, [*asked, *bad]).exit_code == 2
    out.mkdir()
    (out / "config.json").write_text((folder / "config.json").read_text())
    assert "holds a model: choose another" in CliRunner().invoke(group, asked).stderr
    assert load_model(folder).config.encoders.adapter == ""
