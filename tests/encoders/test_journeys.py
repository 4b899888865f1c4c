"""From a rated set to scores and explanations with encoders of other families, sizes and languages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mst_clipiqa import Scorer
from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.errors import ModelError
from mst_clipiqa.explain import explain
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import load_model
from mst_clipiqa.scoring.differentiable import DifferentiableTarget
from tests.commands import run
from tests.encoders import tiny
from tests.encoders.conftest import Folders
from tests.fakes import draw, rated_set
from tests.small_models import put_in_hub_cache

ENCODING = ["--set", "epochs=2", "--quiet", "--device", "cpu", "--precision", "fp32"]
QUICK = ["--no-leave-out", "--test-share", 0, "--validation-share", 0.3, *ENCODING]
PROMPTS = ["ein roter fuchs", "赤い 狐", "красная лиса", "लाल लोमड़ी"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rated")
    rated = rated_set(root, prompts=12, each=2)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "prompt", "mos_quality", "mos_align"])
        for i, one in enumerate(rated.records):
            prompt = f"{PROMPTS[i % 4]} {i // 2}"
            writer.writerow([one.name, prompt, one.targets["quality"], one.targets["correspondence"]])
    return root


@pytest.mark.parametrize("kind", ["siglip", "dinov2", "XLM-R"])
@pytest.mark.usefixtures("loaded_once")
def test_train_score_and_explain(kind: str, families: Folders, data: Path, tmp_path: Path) -> None:
    coarse, fine = families["metaclip_2" if kind == "XLM-R" else kind]
    out, text = tmp_path / "model", tiny.sentence_tower(tmp_path / "tower")
    target, head = ("correspondence", "prompt") if kind == "XLM-R" else ("quality", "template")
    flags = ["--encoders", f"{coarse},{fine}", *(["--text-encoder", text] if kind == "XLM-R" else [])]
    base = ["train", "--data", "csv", "--root", data, "--range", 0, 5, "-o", out, "--cache", tmp_path / "cache", *QUICK]
    run(*base, "--target", target, "--head", head, *flags)

    config = load_model(out).config.encoders
    assert config.source == ",".join(map(str, (coarse, fine, text) if kind == "XLM-R" else (coarse, fine)))
    assert (config.dim, config.dim_fine) == {"siglip": (32, None), "dinov2": (16, 40), "XLM-R": (16, None)}[kind]
    assert ("Text encoder" in (out / "README.md").read_text()) == (kind == "XLM-R")

    image = next(data.glob("*.png"))
    how = ["--model", out, "--json", "--quiet", "--device", "cpu", "--precision", "fp32"]
    row = json.loads(run("score", image, "--prompt", PROMPTS[0], *how).stdout)
    scorer = Scorer.load(out, device="cpu", precision="fp32")
    assert 0 <= row[target] <= 5 and scorer(image, PROMPTS[0]).targets[target] == pytest.approx(row[target], abs=1e-4)
    with Cache(tmp_path / "cache") as cache:
        cached = Scorer.load(out, device="cpu", precision="fp32", cache=cache)
        assert cached(image, PROMPTS[0]) == scorer(image, PROMPTS[0])
    found = explain(scorer, image, PROMPTS[0])
    maps = found.maps[target]
    assert maps.fine.shape == maps.coarse.shape == (8, 8) and maps.fine.std() > 0 and maps.coarse.std() > 0
    if kind == "XLM-R":
        words = found.words["correspondence"]
        assert [word.text for word in words] == PROMPTS[0].split()
        read, one = scorer.predictor.prompts.encode([PROMPTS[0]]), scorer.encode([image])[0]
        attention = scorer.predictor.output(target, one.f_c[None], one.f_f[None], read).attention
        assert attention is not None  # on <s>, the words and </s>
        assert sum(word.attention or 0 for word in words) == pytest.approx(attention[0, 1:-1].sum().item(), abs=1e-5)
        other = tiny.sentence_tower(tmp_path / "other", dim=config.dim, tanh=True)
        with pytest.raises(ModelError, match="Expected the encoders that model was trained on"):
            Scorer.load(out, device="cpu", text_encoder=str(other))


def test_benchmark_takes_features_of_two_sizes(families: Folders, data: Path, tmp_path: Path) -> None:
    pair = ",".join(map(str, families["dinov2"]))
    base = ["benchmark", "--data", "csv", "--root", data, "--range", 0, 5, "--encoders", pair, "-o", tmp_path / "out"]
    run(*base, "--splits", 1, "--heads", "template", "--processes", 1, *ENCODING)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["runs"]


def test_zero_shot_needs_features_of_one_size(families: Folders) -> None:
    with pytest.raises(ModelError, match=r"Expected features of size 16 .* got 16 and 40: train a model"):
        Scorer.load(f"zero-shot:{','.join(map(str, families['dinov2']))}", device="cpu")


def test_export_says_which_families_it_covers(families: Folders, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    name = f"zero-shot:{','.join(map(str, families['siglip']))}"
    result = run("export", name, "-o", tmp_path / "out", code=2)
    assert "Expected encoders of clip, metaclip_2, altclip, chinese_clip to export" in result.output


def test_an_encoder_without_a_text_tower_is_never_to_be_the_coarse_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by advice, and a cached one is refused for what it lacks, not for want of a network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    put_in_hub_cache(tmp_path / "hub", "org/dino", "d" * 40, tiny.dinov2(tmp_path / "dino", 16))
    text = tiny.metaclip_2(tmp_path / "clip", 8)
    with pytest.raises(ModelError, match="got 4 and 2: choose a fine encoder with more patches"):
        load_encoders(f"{text},org/dino", "cpu", "fp32")
    with pytest.raises(ModelError, match=r"shares a space with texts, got org/dino \(dinov2\): give it as the fine"):
        load_encoders(f"org/dino,{text}", "cpu", "fp32")


def test_streams_of_different_sizes_and_patches(tmp_path: Path) -> None:
    """As CLIP L/14 at 224 and at 336: one patch size, two sizes of view."""
    from transformers import MetaClip2Config

    def save(side: int) -> Path:
        vision = {**tiny.VISION, "image_size": side, "patch_size": 8, "projection_dim": 16}
        text = {**tiny.TEXT, "max_position_embeddings": 24, "projection_dim": 16}
        config = MetaClip2Config(text_config=text, vision_config=vision, projection_dim=16)
        return tiny.save(tmp_path / str(side), config, "MetaClip2Model", tiny.xlm_r)

    coarse, fine = save(32), save(48)
    scorer = Scorer.load(f"zero-shot:{coarse},{fine}", device="cpu", precision="fp32")
    view = scorer.encoder.encoders.view
    assert view.own is not None and (view.size, view.own.size) == (32, 48)
    images = [draw(i, 0.3, 80) for i in range(3)]
    together = scorer(images, "a red fox")
    assert [scorer(image, "a red fox") for image in images] == together
    with pytest.raises(ModelError, match="got 6 and 4: swap the two encoders"):
        load_encoders(f"{fine},{coarse}", "cpu", "fp32")
    differentiable = DifferentiableTarget(scorer, "quality")
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]) / 255
    with torch.no_grad():
        for name, features in zip(("f_c", "f_f"), differentiable.features(pixels), strict=True):
            want = torch.stack([getattr(one, name) for one in scorer.encode(images)])
            assert (features - want).norm() < 0.05 * want.norm()  # whose pixels are rounded
    smaller = ImageEncoder(scorer.encoder.encoders, batch_size=2).encode(images)
    assert torch.equal(smaller[2].f_f, scorer.encode(images)[2].f_f)
