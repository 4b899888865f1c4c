"""Fused blocks of CLIP's image encoder: nearer to float32 than plain ones, and their weights come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from mst_clipiqa.encoders import load_encoders, precision
from mst_clipiqa.encoders.adapter import merge_adapter, new_adapter
from mst_clipiqa.encoders.clip import CHUNK_FUSED, CLIPPair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.fused_block import can_fuse
from mst_clipiqa.encoders.pair import Chunking, encode_views
from mst_clipiqa.errors import UsageError
from tests.closed_form import clip_config, pixels, save_clip


def tower(folder: Path) -> VisionTower:
    return VisionTower(CLIPVisionModelWithProjection.from_pretrained(folder).eval())


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    vision = {**clip_config(16)["vision_config"], "num_hidden_layers": 6, "hidden_act": request.param}
    path = save_clip(tmp_path_factory.mktemp("fused") / "16", 16, vision_config=vision)
    if not can_fuse(tower(path).clip.vision_model.encoder.layers[0], torch.bfloat16):
        pytest.skip("this CPU or this torch has no fused bf16 products")
    return path


@torch.inference_mode()
def test_a_fused_tower_is_as_near_to_float32_as_a_plain_one(folder: Path) -> None:
    want, plain = tower(folder)(pixels()), tower(folder).compute_in(torch.bfloat16)
    fused = tower(folder).compute_in(torch.bfloat16).fuse()
    assert len(fused.fused) == 5  # all blocks but the last
    errors = [float((one(pixels()) - want).norm() / want.norm()) for one in (plain, fused)]
    assert errors[1] < 1.3 * errors[0] < 0.03


@torch.inference_mode()
def test_merged_tokens_are_fused_too(folder: Path) -> None:
    plain = tower(folder).compute_in(torch.bfloat16).merge_tokens(8)
    fused = tower(folder).compute_in(torch.bfloat16).fuse().merge_tokens(8)
    whole = fused(pixels())
    torch.testing.assert_close(whole, plain(pixels()), atol=0.05, rtol=0.05)
    assert not torch.equal(whole, fused.merge_tokens(0)(pixels()))


def test_released_weights_are_the_same_bits(folder: Path) -> None:
    plain, fused = (tower(folder).compute_in(torch.bfloat16) for _ in range(2))
    state = fused.fuse().compute_in(torch.bfloat16).state_dict()
    assert not fused.fused
    assert all(torch.equal(state[name], weight) for name, weight in plain.state_dict().items())
    assert not fused.fuse().to("cpu").fused  # what moves is released as well
    assert not tower(folder).fuse().fused  # float32 has nothing to fuse


def fused_in_fp32(path: Path) -> VisionTower:
    found = tower(path)
    found.fuses_fp32 = True
    if not found.fuse().fused:
        pytest.skip("this CPU or this torch has no faster fused products in float32")
    return found


@torch.inference_mode()
def test_float32_is_fused_if_asked_and_gives_the_same_features(folder: Path) -> None:
    fused = fused_in_fp32(folder)
    torch.testing.assert_close(fused(pixels()), tower(folder)(pixels()), atol=2e-6, rtol=2e-6)
    merged = fused.merge_tokens(8)(pixels())
    torch.testing.assert_close(merged, tower(folder).merge_tokens(8)(pixels()), atol=2e-6, rtol=2e-6)


@torch.inference_mode()
def test_no_image_changes_another_in_fused_float32(folder: Path) -> None:
    fused = fused_in_fp32(folder)
    images = torch.cat([pixels(), pixels().flip(-1), pixels().flip(-2)])
    for count in (0, 8):
        whole = fused.merge_tokens(count)(images)
        for some in (slice(1), slice(1, 2), slice(2, 4), slice(1, None)):
            assert torch.equal(fused(images[some]), whole[some])


def test_auto_fuses_float32_where_bf16_gains_nothing_and_gradients_ask_for_fp32(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_gains_from_bf16", lambda: False)
    pair = load_encoders(",".join(map(str, folders)), "cpu")
    assert isinstance(pair, CLIPPair)
    tower = pair.towers[0]
    assert isinstance(tower, VisionTower)
    if not can_fuse(tower.clip.vision_model.encoder.layers[-1], torch.float32):
        assert pair.precision == "fp32"
        return
    assert pair.precision == "fp32-fused"
    assert pair.chunking == Chunking(CHUNK_FUSED, False, None)
    with pytest.raises(UsageError, match="Expected encoders in fp32 for gradients, got fp32-fused: load them in fp32"):
        pair.embed("coarse", torch.zeros(1, 1, 3, 224, 224))
    assert pair.to("cpu", pair.precision).precision == "fp32-fused"  # as it moves
    pixels = torch.zeros(1, 1, 3, 224, 224, requires_grad=True)
    pair.to("cpu", "fp32").embed("coarse", pixels).sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0


def test_what_gains_nothing_or_is_of_the_cpu_becomes_plain_float32(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = load_encoders(",".join(map(str, folders)), "cpu")
    assert isinstance(pair, CLIPPair)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert pair.to("cpu", "fp32-fused").precision == "fp32"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert pair.to("meta", "fp32-fused").precision == "fp32"  # as on a card
    assert pair.to("meta", "int8-pairs").precision == "fp32"  # as it was on a CPU


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("clip")
    return save_clip(root / "32", 32), save_clip(root / "16", 16)


@pytest.mark.parametrize("kind", ["lora", "norm"])
def test_an_adapter_is_merged_into_fused_weights(folders: tuple[Path, Path], kind: Any) -> None:
    views = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    before, after = (load_encoders(",".join(map(str, folders)), "cpu", "bf16") for _ in range(2))
    adapter = new_adapter(after, kind)
    for weight in adapter.weights.values():
        weight.add_(0.05)
    merge_adapter(after, adapter, "some")
    assert isinstance(after, CLIPPair)
    fused = encode_views(after, views)
    for one in (after.mstfe.encoder_coarse, after.mstfe.encoder_fine):
        assert isinstance(one, VisionTower)
        one.release()
    for plain, ours, old in zip(encode_views(after, views), fused, encode_views(before, views), strict=True):
        torch.testing.assert_close(ours, plain, atol=0.02, rtol=0.02)
        assert (ours - old).norm() > 5 * (ours - plain).norm()
