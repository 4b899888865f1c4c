"""Every family computes what ``transformers`` computes, alone as in a batch, and wrong pairs are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.families import FAMILIES, PAIRS, Family
from mst_clipiqa.encoders.pair import encode_stream, encode_views
from mst_clipiqa.encoders.pooled_vision import PooledTower
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, normalise, views
from tests.encoders import tiny
from tests.encoders.conftest import Folders

NAMES = [*tiny.WITH_TEXT, *tiny.IMAGES_ONLY]
TEXTS = ["a photo of a red fox", "a fox", "赤い 狐 🦊", "a photo of a fox " * 12]


def pair_of(folders: tuple[Path, Path], precision: str = "fp32") -> CLIPPair:
    found = load_encoders(",".join(map(str, folders)), "cpu", precision)
    assert isinstance(found, CLIPPair)
    return found


@pytest.fixture(scope="module")
def pairs(families: Folders) -> dict[str, CLIPPair]:
    return {name: pair_of(folders) for name, folders in families.items()}


def test_float32_of_other_families_is_never_fused(pairs: dict[str, CLIPPair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    others = [pair for pair in pairs.values() if not pair.is_clip_like]
    assert others
    assert {pair.to("cpu", "fp32-fused").precision for pair in others} == {"fp32"}


def test_encoders_of_two_families_may_see_as_many_patches(tmp_path: Path) -> None:
    assert pair_of((tiny.siglip(tmp_path / "coarse", tiny.FINE), tiny.dinov2(tmp_path / "fine"))).dim


def drawn(side: int, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    coarse = torch.randint(0, 256, (rows, 3, 4, 4), dtype=torch.uint8, generator=generator).float()
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)


def theirs(folder: Path) -> Any:
    name = json.loads((folder / "config.json").read_text())["model_type"]
    return getattr(transformers, FAMILIES[name].model).from_pretrained(folder).eval()


@torch.no_grad()
def their_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return ``get_image_features``, or a DINO's pooled output."""
    if not hasattr(model, "get_image_features"):
        return model(pixels).pooler_output  # type: ignore[no-any-return]
    if model.config.model_type == "siglip2":
        from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

        patch = model.config.vision_config.patch_size
        patches = torch.from_numpy(np.stack([convert_image_to_patches(one.numpy(), patch) for one in pixels]))
        shapes = torch.full((len(pixels), 2), pixels.shape[-1] // patch)
        mask = torch.ones(patches.shape[:2], dtype=torch.int64)
        found = model.get_image_features(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    else:
        found = model.get_image_features(pixels)
    return pooled(found)


def pooled(found: Any) -> torch.Tensor:
    """Return the features, which some versions of transformers wrap."""
    return getattr(found, "pooler_output", found)  # type: ignore[no-any-return]


def wanted(folder: Path, pixels: torch.Tensor, view: ViewSpec) -> torch.Tensor:
    return their_features(theirs(folder), normalise(pixels, view))


@pytest.mark.parametrize("name", NAMES)
def test_image_features_are_those_of_transformers(name: str, families: Folders, pairs: dict[str, CLIPPair]) -> None:
    pair, streams = pairs[name], (("coarse", 0), ("fine", 1))
    for stream, which in streams:
        view = pair.view.own if stream == "fine" and pair.view.own else pair.view
        pixels = drawn(view.size, 3)
        given = pixels.unsqueeze(1) if stream == "fine" and pair.view.own else pixels
        found = encode_stream(pair, stream, given)  # type: ignore[arg-type]
        assert found.shape == (3, pair.dim if stream == "coarse" else pair.dim_fine)
        torch.testing.assert_close(found, wanted(families[name][which], pixels, view), atol=1e-5, rtol=1e-5)
        assert found.std() > 0.01


@pytest.mark.parametrize("name", tiny.WITH_TEXT)
def test_text_features_are_those_of_transformers(name: str, families: Folders, pairs: dict[str, CLIPPair]) -> None:
    text: Any = pairs[name].text
    read = text.tokenizer(TEXTS)
    mask = None if name.startswith("siglip") else read.mask.long()
    with torch.no_grad():
        found = theirs(families[name][0]).get_text_features(read.ids, attention_mask=mask)
    want = torch.nn.functional.normalize(pooled(found), dim=-1)
    torch.testing.assert_close(text.encode_templates(TEXTS), want, atol=1e-5, rtol=1e-5)
    assert (want @ want.T - torch.eye(len(TEXTS))).max() < 0.999
    assert read.truncated == [False, False, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_order_and_padding_change_nothing(name: str, pairs: dict[str, CLIPPair]) -> None:
    pair = pairs[name]
    pixels = drawn(pair.view.size, 5)
    fine = drawn(pair.view.own.size, 5).unsqueeze(1) if pair.view.own else None
    together = encode_views(pair, pixels, fine)
    for i in (4, 1):
        alone = encode_views(pair, pixels[i : i + 1], None if fine is None else fine[i : i + 1])
        assert all(torch.equal(one[0], some[i]) for one, some in zip(alone, together, strict=True))
    encoded, embedded = pair.encode_prompts(TEXTS), pair.encode_templates(TEXTS)
    for i, text in enumerate(TEXTS):
        own = pair.encode_prompts([text])
        theirs = encoded.tokens[i][encoded.mask[i]]
        torch.testing.assert_close(own.tokens[0][own.mask[0]], theirs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pair.encode_templates([text])[0], embedded[i], atol=1e-5, rtol=1e-5)
        assert theirs.shape == (len(theirs), pair.text_dim) and pair.text_dim == pair.dim


BF16 = 0.02
"""The stated tolerance of bf16: the largest difference of a feature, as a share of the features' norm."""


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_within_the_stated_tolerance(name: str, families: Folders, pairs: dict[str, CLIPPair]) -> None:
    exact, rough = pairs[name], pair_of(families[name], "bf16")
    streams: tuple[Stream, Stream] = ("coarse", "fine")
    for stream in streams:
        pixels = drawn(exact.view.of(stream).size, 3)
        given = pixels.unsqueeze(1) if stream == "fine" and exact.view.own else pixels
        a, b = (encode_stream(pair, stream, given) for pair in (exact, rough))
        assert 0 < (a - b).abs().max() < BF16 * a.norm(dim=1).min()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_read_again_gives_the_same_bits(
    name: str, families: Folders, pairs: dict[str, CLIPPair], tmp_path: Path
) -> None:
    copies = [shutil.copytree(folder, tmp_path / f"{i}") for i, folder in enumerate(families[name])]
    again = pair_of((copies[0], copies[1]))
    assert (again.sha256, again.view) == (pairs[name].sha256, pairs[name].view)
    assert torch.equal(again.encode_templates(TEXTS), pairs[name].encode_templates(TEXTS))
    pixels = drawn(again.view.size, 1)
    assert torch.equal(encode_stream(again, "coarse", pixels), encode_stream(pairs[name], "coarse", pixels))


def test_the_hash_knows_what_changes_numbers(families: Folders, pairs: dict[str, CLIPPair], tmp_path: Path) -> None:
    coarse, fine = families["siglip"]

    def changed(file: str, old: str, new: str) -> CLIPPair:
        copy = shutil.copytree(coarse, tmp_path / str(len(list(tmp_path.iterdir()))))
        text = (copy / file).read_text()
        assert old in text
        (copy / file).write_text(text.replace(old, new))
        return pair_of((copy, fine))

    assert changed("tokenizer.json", "▁fox", "▁fax").sha256 != pairs["siglip"].sha256
    assert changed("tokenizer_config.json", '"add_eos_token": true', '"add_eos_token": false').sha256 != (
        pairs["siglip"].sha256
    )
    assert changed("config.json", '"layer_norm_eps": 1e-06', '"layer_norm_eps": 1e-05').sha256 != pairs["siglip"].sha256
    other = changed("preprocessor_config.json", '"resample": 2', '"resample": 3')
    assert (other.sha256, other.view.resample) == (
        pairs["siglip"].sha256,
        "bicubic",
    ) and other.view.own  # the fine one's
    notes = changed("config.json", '"model_type": "siglip"', '"x_note": 1, "model_type": "siglip"')
    assert notes.sha256 == pairs["siglip"].sha256


def test_views_are_cropped_or_squashed_as_each_family_was_trained(pairs: dict[str, CLIPPair]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8))
    bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR

    def coarse(name: str) -> np.ndarray:
        return views(image, pairs[name].view).coarse.movedim(0, -1).numpy()

    cropped = image.resize((32, 48), bicubic).crop((0, 8, 32, 40))
    for name in ("metaclip_2", "altclip"):
        np.testing.assert_array_equal(coarse(name), np.asarray(cropped))
    np.testing.assert_array_equal(coarse("chinese_clip"), np.asarray(image.resize((32, 32), bicubic)))
    for name in ("siglip", "siglip2"):
        np.testing.assert_array_equal(coarse(name), np.asarray(image.resize((32, 32), bilinear)))
        assert pairs[name].view.mean == (0.5, 0.5, 0.5)
    fine = views(image, pairs["dinov2"].view).fine
    assert fine is not None
    smaller = image.resize((36, 54), bicubic).crop((2, 11, 34, 43))
    np.testing.assert_array_equal(fine[0].movedim(0, -1).numpy(), np.asarray(smaller))


def test_siglip_is_padded_ended_and_put_in_lower_case(pairs: dict[str, CLIPPair]) -> None:
    text: Any = pairs["siglip"].text
    read = text.tokenizer(["A Red FOX", "a red fox"])
    assert read.ids.shape == (2, 20) and torch.equal(read.ids[0], read.ids[1])
    assert read.ids[0, :5].tolist()[3:] == [1, 0] and read.mask.sum(dim=1).tolist() == [4, 4]
    assert (pairs["siglip"].start_tokens, pairs["metaclip_2"].start_tokens) == (0, 1)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_patch_size_that_a_file_leaves_out_is_the_familys(family: Family) -> None:
    config: Any = getattr(transformers, family.model).config_class()
    assert family.patch == getattr(config, "vision_config", config).patch_size


def test_short_names_have_hub_ids_and_licences() -> None:
    assert set(PAIRS) == {"openai", "siglip2", "metaclip2"}
    assert all(pair.licence and "/" in pair.coarse and "/" in pair.fine for pair in PAIRS.values())
    with pytest.raises(
        ModelError, match=r"Expected encoders 'mini', 'openai', .* got 'siglp2' \(did you mean 'siglip2'"
    ):
        load_encoders("siglp2")


def refused(coarse: Path, fine: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_encoders(f"{coarse},{fine}", "cpu", "fp32")
    return str(error.value)


def test_wrong_pairs_are_refused_in_one_sentence(families: Folders, tmp_path: Path) -> None:
    dino, (coarse, fine) = families["dinov2"][1], families["metaclip_2"]
    assert "Expected a coarse encoder that shares a space with texts" in refused(dino, fine)
    assert "fewer patches along a side of its view than the fine one, got 4 and 2: swap" in refused(fine, coarse)
    assert "got 4 and 4" in refused(fine, fine)
    other = shutil.copytree(coarse, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "blip"}))
    assert refused(other, fine).startswith("Expected a model_type of clip, metaclip_2, altclip")
    (other / "config.json").write_text(json.dumps(config))
    (other / "preprocessor_config.json").write_text('{"size": 64, "crop_size": 64}')
    assert "Expected views of 32 pixels" in refused(other, fine)
    (other / "preprocessor_config.json").unlink()
    (other / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in refused(other, fine)


def test_products_alone_are_reduced(families: Folders) -> None:
    tower = pair_of(families["siglip"], "bf16").mstfe.encoder_fine
    assert isinstance(tower, PooledTower)
    assert {weight.dtype for weight in tower.parameters()} == {torch.float32}
