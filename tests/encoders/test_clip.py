"""The frozen towers: what they compute, what they refuse, and that a batch changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from mst_clipiqa.encoders import files, hub, load_encoders
from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.fused_block import can_fuse
from mst_clipiqa.encoders.packing import PROMPTS_AT_ONCE, can_pack
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import normalise
from tests.closed_form import clip_config, pixels, save_clip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("clip")
    return save_clip(root / "32", 32), save_clip(root / "16", 16)


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> CLIPPair:
    return load_clip_pair(str(folders[0]), str(folders[1]), "closed form")


def text_of(pair: CLIPPair) -> CLIPText:
    assert isinstance(pair.text, CLIPText)
    return pair.text


def uint8_views(rows: int) -> torch.Tensor:
    return torch.randint(0, 256, (rows, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def test_the_shorter_last_block_changes_nothing(folders: tuple[Path, Path], pair: CLIPPair) -> None:
    plain = CLIPModel.from_pretrained(folders[1]).eval()
    with torch.no_grad():
        want = plain.visual_projection(plain.vision_model(pixels()).pooler_output)
    torch.testing.assert_close(pair.mstfe.encoder_fine(pixels()), want, atol=2e-5, rtol=1e-5)


TEXTS = ("a fox", "", "a photo of a very long red fox", "red " * 200, "fox")


@pytest.mark.skipif(not can_pack(), reason="on this CPU each prompt is encoded alone")
def test_a_group_of_prompts_has_transformers_own_states(folders: tuple[Path, Path]) -> None:
    pair = load_clip_pair(str(folders[0]), str(folders[1]), "closed form")
    text, weights = text_of(pair), CLIPTextModelWithProjection.from_pretrained(folders[0]).eval().state_dict()
    with torch.inference_mode():
        want = [text.model.text_model(input_ids=text.tokenize([one])[0]).last_hidden_state[0] for one in TEXTS]
    with ThreadPoolExecutor(4) as pool:  # whose first prompts come together
        read, *others = pool.map(lambda _: pair.encode_prompts(list(TEXTS)), range(8))
    assert all(torch.equal(read.tokens, one.tokens) for one in others)
    for tokens, mask, states in zip(read.tokens, read.mask, want, strict=True):
        torch.testing.assert_close(tokens[mask], states, atol=2e-5, rtol=1e-5)
    kept = text.to("cpu").model.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in weights.items())
    assert torch.equal(pair.encode_prompts(list(TEXTS)).tokens, read.tokens)
    assert all(layer.mlp.fc2.weight.is_mkldnn for layer in text.model.text_model.encoder.layers)  # reordered again


def test_a_text_encoder_that_cannot_be_fused_encodes_prompts_alone(folders: tuple[Path, Path]) -> None:
    text = text_of(load_clip_pair(str(folders[0]), str(folders[1]), "closed form"))
    assert text.prompts_at_once == (PROMPTS_AT_ONCE if can_pack() else 1)
    assert CLIPText(text.model.to("meta"), text.tokenizer).prompts_at_once == 1  # as on a card
    text.model.to_empty(device="cpu").config.hidden_act = "gelu_new"
    assert text.prompts_at_once == 1


def test_a_torch_without_the_operators_packs_and_fuses_nothing(pair: CLIPPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    block = text_of(pair).model.text_model.encoder.layers[0]
    assert not can_pack()
    assert not any(can_fuse(block, dtype) for dtype in (torch.float32, torch.bfloat16))


@pytest.mark.parametrize(("act", "capability"), [("relu", "AVX512"), ("gelu", "AVX2")])
def test_what_gains_nothing_is_not_fused_in_float32(act: str, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not can_fuse(SimpleNamespace(mlp=SimpleNamespace(config=SimpleNamespace(hidden_act=act))), torch.float32)


def test_half_precision_is_not_fused(pair: CLIPPair, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**dict.fromkeys(names, lambda: True)))
    block = text_of(pair).model.text_model.encoder.layers[0]
    assert [can_fuse(block, dtype) for dtype in (torch.float16, torch.bfloat16)] == [False, True]


def test_a_pair_that_merges_tokens_says_so_wherever_it_goes(folders: tuple[Path, Path]) -> None:
    pair = load_clip_pair(str(folders[0]), str(folders[1]), "closed form").merge_tokens(8)
    assert pair.to("cpu").precision == pair.to("cpu", "fp32-merge2").precision == "fp32-merge8"
    assert pair.merge_tokens(0).to("cpu").precision == "fp32"


def test_prompts_whose_states_are_projected_are_encoded_alone(tmp_path: Path) -> None:
    wide = {**clip_config(32)["text_config"], "hidden_size": 96, "num_attention_heads": 4}
    folders = [save_clip(tmp_path / str(patch), patch, text_config=wide) for patch in (32, 16)]
    pair = load_clip_pair(str(folders[0]), str(folders[1]), "closed form")
    assert pair.prompts_at_once == 1
    assert pair.encode_prompts(["a fox"]).tokens.shape[2] == pair.dim


def test_templates_equal_transformers_own_text_embedding(folders: tuple[Path, Path], pair: CLIPPair) -> None:
    plain = CLIPModel.from_pretrained(folders[0]).eval()
    texts = ["a photo of a fox", "a fox", "a photo of a very long red fox"]
    ids, mask, _ = text_of(pair).tokenize(texts)
    with torch.no_grad():
        want = plain.text_projection(plain.text_model(input_ids=ids, attention_mask=mask.long()).pooler_output)
    torch.testing.assert_close(pair.encode_templates(texts), torch.nn.functional.normalize(want, dim=-1))


def test_a_legacy_end_id_in_the_config_changes_nothing(
    tmp_path: Path, pair: CLIPPair, folders: tuple[Path, Path]
) -> None:
    text = {**clip_config(32)["text_config"], "eos_token_id": 2}
    legacy = load_clip_pair(str(save_clip(tmp_path / "32", 32, text_config=text)), str(folders[1]), "legacy")
    assert text_of(legacy).model.config.eos_token_id == 2
    texts = ["a photo of a fox", "a fox"]
    torch.testing.assert_close(legacy.encode_templates(texts), pair.encode_templates(texts))


def test_long_prompts_keep_their_end_and_their_difference(pair: CLIPPair) -> None:
    long = ["fox " * 100, "car " * 100]
    ids, mask, truncated = text_of(pair).tokenize([*long, "a fox"])
    assert ids.shape == (3, 77)
    assert ids[:2, -1].tolist() == [1023, 1023]
    assert mask.sum(dim=1).tolist()[:2] == [77, 77]
    assert truncated == [True, True, False]
    a, b = pair.encode_templates(long)
    assert (a - b).abs().max() > 0.01


@pytest.mark.parametrize("prompt", ["", "\ud800 lone", "nul\0byte", "狐狸 🦊 ﷽", "x" * 100_000, " \n\t "])
def test_any_text_can_be_encoded(pair: CLIPPair, prompt: str) -> None:
    encoded = pair.encode_prompts([prompt, "a fox"])
    assert torch.isfinite(encoded.tokens).all()
    assert encoded.mask.any(dim=1).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_do_not_depend_on_the_batch(folders: tuple[Path, Path], precision: str) -> None:
    encoders = load_encoders(",".join(map(str, folders)), "cpu", precision)
    images = uint8_views(37)
    together = encode_views(encoders, images)
    for i in (0, 17, 36):
        for alone, all_rows in zip(encode_views(encoders, images[i : i + 1]), together, strict=True):
            torch.testing.assert_close(alone[0], all_rows[i], atol=1e-5, rtol=1e-5)
    backwards = encode_views(encoders, images.flip(0))
    torch.testing.assert_close(backwards[0].flip(0), together[0], atol=1e-5, rtol=1e-5)


def test_each_stream_sees_through_its_own_encoder(pair: CLIPPair) -> None:
    views = uint8_views(2)
    pixels = normalise(views, pair.view)
    with torch.no_grad():
        want = pair.mstfe.encoder_coarse(pixels), pair.mstfe.encoder_fine(pixels)
    for found, wanted in zip(encode_views(pair, views), want, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
    assert (want[0] - want[1]).abs().max() > 0.1


@pytest.mark.parametrize("stream", ["coarse", "fine"])
def test_a_feature_is_the_mean_over_all_crops(pair: CLIPPair, stream: Stream) -> None:
    crops = uint8_views(3)
    together = pair.mstfe(stream, crops.unsqueeze(0))
    alone = torch.cat([pair.mstfe(stream, crops[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together[0], alone.mean(dim=0), atol=2e-5, rtol=1e-5)


def test_in_bf16_the_residual_stream_stays_float32(folders: tuple[Path, Path]) -> None:
    encoders = load_encoders(",".join(map(str, folders)), "cpu", "bf16")
    assert isinstance(encoders, CLIPPair)
    tower: Any = encoders.mstfe.encoder_fine
    tower.release()  # a fused block changes the stream in place
    vision = tower.clip.vision_model
    layers = vision.encoder.layers
    norms = [vision.pre_layrnorm, *(n for one in layers for n in (one.layer_norm1, one.layer_norm2))]
    summed = [*norms[1:], vision.post_layernorm]  # what these read is a sum of the stream and a block's product
    seen: list[torch.Tensor] = []
    hooks = [norm.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for norm in summed]
    encode_views(encoders, uint8_views(1))
    for hook in hooks:
        hook.remove()
    assert len(seen) >= len(summed)
    for stream in seen:
        assert stream.dtype == torch.float32
        assert not torch.equal(stream, stream.bfloat16().float())


def test_precision_is_what_was_asked_for(folders: tuple[Path, Path]) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        encoders = load_encoders(",".join(map(str, folders)), "cpu", precision)
        assert isinstance(encoders, CLIPPair)
        assert encoders.mstfe.dtype == dtype
        assert encode_views(encoders, uint8_views(1))[0].dtype == torch.float32
    with pytest.raises(
        UsageError, match=r"Expected precision auto, fp32, bf16, fp16 or int8, got 'bf61' \(did you mean 'bf16'"
    ):
        load_encoders(",".join(map(str, folders)), "cpu", "bf61")
    with pytest.raises(UsageError, match="Expected a device"):
        load_encoders(",".join(map(str, folders)), "gpu")


def test_the_hash_knows_the_weights(folders: tuple[Path, Path], pair: CLIPPair, tmp_path: Path) -> None:
    assert load_clip_pair(str(folders[0]), str(folders[1]), "again").sha256 == pair.sha256
    other = shutil.copytree(folders[0], tmp_path / "other")
    edit(other / "model.safetensors", offset=-1)
    assert load_clip_pair(str(other), str(folders[1]), "other").sha256 != pair.sha256


def edit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def change(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        (config[part] if inner else config)[inner or part] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_config__patch_size": 16},
            "fewer patches along a side of its view than the fine one, got 14 and 14",
        ),
        (
            {"vision_config__image_size": 336},
            r"Expected CLIP weights in .* of the sizes in config.json, got .*position_embedding.* of \(\d+, \d+\) for",
        ),
        ({"vision_config__hidden_act": "gelu"}, "Expected one activation in both towers"),
        (
            {
                "_name_or_path": "openai/clip-vit-base-patch32",
                "vision_config__hidden_act": "gelu",
                "text_config__hidden_act": "gelu",
            },
            "Expected hidden_act 'quick_gelu' for OpenAI's weights",
        ),
        ({"model_type": "blip"}, "Expected a model_type of clip, metaclip_2, altclip"),
        ({"vision_config__patch_size": "32"}, "Expected a whole number for patch_size in config.json of .*got '32'"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bad = change(shutil.copytree(folders[0], tmp_path / "bad"), **changes)
    with pytest.raises(ModelError, match=message):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_swapped_encoders_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="got 14 and 7: swap the two encoders"):
        load_encoders(f"{folders[1]},{folders[0]}", "cpu", "fp32")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json"])
def test_missing_files_are_named(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    bad = shutil.copytree(folders[0], tmp_path / "bad")
    (bad / name).unlink()
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_broken_and_unfinished_weights_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    bad = shutil.copytree(folders[0], tmp_path / "bad")
    weights = (bad / "model.safetensors").read_bytes()
    (bad / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"Expected CLIP weights in .*fetch the file again"):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_nan_weights_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = CLIPModel.from_pretrained(folders[0])
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = float("nan")
    bad = shutil.copytree(folders[0], tmp_path / "bad")
    model.save_pretrained(bad)
    with pytest.raises(ModelError, match=r"NaN or infinity in visual_projection\.weight"):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_a_missing_weight_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bad = shutil.copytree(folders[0], tmp_path / "bad")
    state = load_file(bad / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"Expected visual_projection\.weight in .* lacks it"):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected encoders 'mini', 'openai', .* or 'COARSE,FINE', got 'opanai'"):
        load_encoders("opanai")
    with pytest.raises(ModelError, match="Expected a folder or a hub id"):
        load_encoders(f"{tmp_path}/no,{tmp_path}/where")


def hub_cache(root: Path, repo: str, folder: Path) -> None:
    """Lay a model out as the hub's cache does."""
    home = root / ("models--" + repo.replace("/", "--"))
    snapshot = home / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(snapshot.name)


def test_openai_means_the_papers_pair_from_the_hub_cache(
    folders: tuple[Path, Path], pair: CLIPPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="Expected openai/clip-vit-base-patch32 in the local hub cache or a network"):
        load_encoders("openai")
    for patch, folder in zip((32, 16), folders, strict=True):
        hub_cache(tmp_path, f"openai/clip-vit-base-patch{patch}", folder)
    assert load_encoders("openai", "cpu", "fp32").sha256 == pair.sha256


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_pickled_weights_are_read_without_running_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    bad = shutil.copytree(folders[0], tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    torch.save({"a": print}, bad / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"Expected plain tensors in .*pytorch_model\.bin"):
        load_clip_pair(str(bad), str(folders[1]), "bad")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "Expected CLIP's tokenizer in"),
        ("preprocessor_config.json", '{"image_mean": [0.5]}', "Expected JSON with three numbers each for image_mean"),
        ("preprocessor_config.json", '{"image_mean', "Expected JSON with three numbers each for image_mean"),
        ("config.json", "[" * 100_000, "Expected JSON in"),
    ],
)
@pytest.mark.usefixtures("no_collection")
def test_broken_files_beside_the_weights_are_named(
    folders: tuple[Path, Path], tmp_path: Path, name: str, content: str, message: str
) -> None:
    bad = shutil.copytree(folders[0], tmp_path / "bad")
    (bad / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        load_clip_pair(str(bad), str(folders[1]), "bad")


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    import huggingface_hub.constants as constants

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args: asked.append(args))
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        for endpoint in (f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:9"):
            monkeypatch.setattr(constants, "ENDPOINT", endpoint)
            with pytest.raises(ModelError, match="Expected some/model in the local hub cache or a network to fetch it"):
                files.find("some/model")
    assert asked == []


def test_a_name_that_no_hub_would_have_is_refused() -> None:
    with pytest.raises(ModelError, match="Expected a folder or a hub id, got 'models/clip--32'"):
        load_clip_pair("models/clip--32", "models/clip--16", "bad")


def test_reduced_precision_rounds_products_and_not_the_sum_that_runs_through_the_blocks(tmp_path: Path) -> None:
    deep = {**clip_config(16)["vision_config"], "num_hidden_layers": 12}
    fine = save_clip(tmp_path / "16", 16, vision_config=deep)
    plain = CLIPModel.from_pretrained(fine).eval()
    tower = VisionTower(CLIPVisionModelWithProjection.from_pretrained(fine).eval()).compute_in(torch.bfloat16)

    def embedded() -> torch.Tensor:
        seen = plain.vision_model(pixels().to(plain.visual_projection.weight.dtype)).pooler_output
        projected: torch.Tensor = plain.visual_projection(seen).float()
        return projected

    with torch.no_grad():
        want, ours = embedded(), tower(pixels())
        plain.to(torch.bfloat16)
        everything = embedded()
    assert tower.dtype == torch.bfloat16 and ours.dtype == torch.float32
    assert (ours - want).norm() < 0.7 * (everything - want).norm()
    torch.testing.assert_close(ours, want, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_either_activation_is_computed_as_transformers_does(tmp_path: Path, act: str) -> None:
    folder = save_clip(tmp_path / "16", 16, vision_config={**clip_config(16)["vision_config"], "hidden_act": act})
    clip = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(VisionTower(clip)(pixels()), clip(pixels()).image_embeds, atol=2e-5, rtol=1e-5)


def test_the_hash_does_not_know_which_copies_of_the_tokenizer_there_are(
    folders: tuple[Path, Path], pair: CLIPPair, tmp_path: Path
) -> None:
    coarse, fine = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    text_of(pair).tokenizer.save_pretrained(coarse)  # adds tokenizer.json, as the hub has it beside vocab and merges
    assert load_clip_pair(str(coarse), str(fine), "more").sha256 == pair.sha256
    for name in ("vocab.json", "merges.txt"):
        (coarse / name).unlink(missing_ok=True)
    assert load_clip_pair(str(coarse), str(fine), "fewer").sha256 == pair.sha256
    for file in fine.glob("*token*"):  # the fine model's texts are never read
        file.write_text(file.read_text() + " ")
    config = json.loads((coarse / "config.json").read_text())
    (coarse / "config.json").write_text(json.dumps({**config, "transformers_version": "1.2.3", "_name_or_path": "x"}))
    assert load_clip_pair(str(coarse), str(fine), "notes").sha256 == pair.sha256


def test_the_hash_knows_the_tokenizer(folders: tuple[Path, Path], pair: CLIPPair, tmp_path: Path) -> None:
    other = shutil.copytree(folders[0], tmp_path / "other")
    merges = (other / "merges.txt").read_text().splitlines()
    (other / "merges.txt").write_text("\n".join(merges[:-1]) + "\n")
    assert load_clip_pair(str(other), str(folders[1]), "other").sha256 != pair.sha256
