"""The embedded encoders: what ships loads, answers alone as in a batch, and knows what it does not know."""

from __future__ import annotations

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mst_clipiqa.encoders.mini import fused
from mst_clipiqa.encoders.mini.english import is_english
from mst_clipiqa.encoders.mini.folder import MINI, load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.fused import FusedTower
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniPair, MiniParts
from mst_clipiqa.encoders.mini.storage import SCALE, packed, unpacked
from mst_clipiqa.encoders.mini.text import TextBlock, TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import BLOCKS, FARTHEST, Tower, TowerConfig, pooled
from mst_clipiqa.encoders.packing import can_pack
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import load_model

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def pair() -> MiniPair:
    return load_mini_pair()


def some_views(pair: MiniPair, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    view = pair.view
    coarse = torch.randint(0, 256, (count, 3, view.size, view.size), dtype=torch.uint8, generator=rng)
    shape = (count, view.crops, 3, view.crop_size, view.crop_size)
    return coarse, torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_do_not_depend_on_the_batch(precision: str) -> None:
    pair = load_mini_pair().to("cpu", precision)
    coarse, fine = some_views(pair, 3)
    together = encode_views(pair, coarse, fine)
    for i in range(3):
        alone = encode_views(pair, coarse[i : i + 1], fine[i : i + 1])
        for whole, one in zip(together, alone, strict=True):
            assert whole.dtype == torch.float32
            assert torch.allclose(whole[i], one[0], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_is_encoded_to_the_same_bits_anywhere(precision: str) -> None:
    before = torch.get_num_threads()
    pair = load_mini_pair().to("cpu", precision)
    coarse, fine = some_views(pair, 5)  # a whole chunk and a part of one
    together = encode_views(pair, coarse, fine)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for order in ([4], [2, 1], [3, 3, 0, 1, 4]):
                moved = encode_views(pair, coarse[order], fine[order])
                assert all(torch.equal(whole[order], some) for whole, some in zip(together, moved, strict=True))
    finally:
        torch.set_num_threads(before)


def random_tower(blocks: int = BLOCKS) -> Tower:
    torch.manual_seed(0)
    tower = Tower(TowerConfig(dim=8, blocks=blocks))
    state = tower.state_dict()
    for name, weight in state.items():
        if name.endswith("weight"):
            fan_in = weight[0].numel()
            state[name] = torch.randn(weight.shape) * (2 / fan_in) ** 0.5
    tower.load_state_dict(state)
    return tower.eval().requires_grad_(False)


@pytest.mark.parametrize("has_operators", [True, False])
@pytest.mark.parametrize("blocks", [2, 7, BLOCKS])
def test_a_fused_tower_computes_what_the_tower_does(
    blocks: int, has_operators: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_operators:  # as on a torch or a CPU without them
        monkeypatch.setattr(fused, "_has_operators", lambda dtype: False)
    tower = random_tower(blocks)
    views = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, same = tower(views), FusedTower(tower, torch.float32)(views)
        halved = FusedTower(tower, torch.bfloat16)(views)
    assert torch.allclose(plain, same, atol=1e-3 * float(plain.abs().max()))
    assert torch.allclose(plain, halved, atol=0.1 * float(plain.abs().max()))


def test_a_view_is_described_by_standardised_numbers_and_outliers_are_cut_off() -> None:
    tower = random_tower()
    tower.mean = torch.full_like(tower.mean, 1e6)
    described = tower.describe(torch.zeros(1, 3, 64, 64))
    assert described.shape == (1, tower.config.inputs)
    assert described.unique().tolist() == [-FARTHEST]


def test_an_embedding_is_that_of_the_mean_over_views() -> None:
    tower = random_tower()
    crops = torch.randn(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([tower.describe(crops[:, i]) for i in range(3)]).mean(0)
    assert torch.allclose(tower(crops), tower.embed(mean), atol=1e-4)


def test_a_map_is_described_by_mean_and_deviation_over_positions() -> None:
    map_, last = (torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(2))
    numbers = pooled([map_], last)
    mean, deviation = map_.mean((2, 3)), map_.std((2, 3), correction=0)
    torch.testing.assert_close(numbers, torch.cat([mean, deviation, last.mean((2, 3))], 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        pooled([2 * map_ + 3], None), torch.cat([2 * mean + 3, 2 * deviation], 1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(pooled([map_.flip(2, 3)], last.flip(2, 3)), numbers)


def test_int8_keeps_each_row_within_half_a_level() -> None:
    matrix = torch.randn(300, 128, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 300).unsqueeze(1)
    stored = packed({"a.weight": matrix, "a.bias": torch.ones(3)})
    assert stored["a.weight"].dtype == torch.int8
    assert stored["a.bias"].dtype == torch.float16
    back = unpacked(stored)
    assert set(back) == {"a.weight", "a.bias"}
    level = matrix.abs().amax(1) / 127
    assert ((back["a.weight"] - matrix).abs().amax(1) <= 0.6 * level).all()


def test_a_scale_that_would_blow_a_matrix_up_is_refused() -> None:
    stored = packed({"a": torch.ones(1, 2**16)})
    stored[f"a{SCALE}"] = torch.ones(2**10, 1).half()
    with pytest.raises(ModelError, match="Expected one scale per row of a"):
        unpacked(stored)


def test_embeddings_of_words_stay_packed_and_are_the_same_bits(pair: MiniPair, tmp_path: Path) -> None:
    stored = safetensors.torch.load_file(MINI / "model.safetensors")
    whole = unpacked({key: stored[key] for key in stored if key.startswith("text.words.")})["text.words.weight"]
    ids = torch.tensor([[0, 101, 30521], [7, 7, 2000]])
    assert torch.equal(pair.text.words(ids), whole[ids])
    held = sum(one.numel() * one.element_size() for one in pair.text.words.buffers())
    assert held < 0.27 * 4 * whole.numel() and not list(pair.text.words.parameters())
    config = MiniConfig(pair.coarse.config, pair.fine.config, pair.text.config, pair.view)
    save_mini_pair(tmp_path, config, MiniParts(pair.coarse, pair.fine, pair.text, pair.tokenizer))
    again = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(again[key], stored[key]) for key in stored if key.startswith("text.words."))


def test_a_block_of_the_text_encoder_is_torchs_own_layer() -> None:
    config = TextConfig(words=9, dim=8, width=12, inner=20, layers=1, heads=3)
    ours = TextBlock(config).eval()
    torch.manual_seed(0)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", 1e-12, batch_first=True).eval()
    names = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "out.",
        "linear1.": "up.",
        "linear2.": "down.",
        "norm1.": "norm_1.",
        "norm2.": "norm_2.",
    }
    own = ours.state_dict()
    theirs.load_state_dict({a + end: own[b + end] for a, b in names.items() for end in ("weight", "bias")})
    x, mask = torch.randn(2, 5, 12), torch.arange(5) < torch.tensor([[5], [3]])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, mask)[mask], theirs(x, src_key_padding_mask=~mask)[mask])


def test_encoders_are_frozen(pair: MiniPair) -> None:
    for part in (pair.coarse, pair.fine, pair.text):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_prompts_do_not_depend_on_longer_ones(pair: MiniPair) -> None:
    short = "a red bus"
    alone = pair.encode_prompts([short])
    beside = pair.encode_prompts([short, "an old temple in the rain at night, soft lighting, baroque style"])
    length = int(alone.mask.sum())
    assert beside.mask[0].sum() == length
    assert torch.allclose(alone.tokens[0], beside.tokens[0, :length], atol=TOLERANCE)


PROMPTS = ("a red bus", "", "cat " * 200, "an old temple in the rain at night", "dog", "a blue bus", "red " * 40)


@pytest.mark.skipif(not can_pack(), reason="on this CPU each prompt is encoded alone")
def test_a_group_of_prompts_changes_no_bit_of_any(pair: MiniPair) -> None:
    alone = [pair.encode_prompts([prompt]) for prompt in PROMPTS]
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 4, 2, 0, 1, 3, 5], [1, 4], [5, 0, 5]):
        read = pair.encode_prompts([PROMPTS[i] for i in order])
        for i, tokens, mask in zip(order, read.tokens, read.mask, strict=True):
            assert torch.equal(tokens[mask], alone[i].tokens[0]), f"prompt {i} in {order}"


@pytest.mark.skipif(not can_pack(), reason="on this CPU each prompt is encoded alone")
def test_packed_weights_compute_what_the_text_encoder_does(pair: MiniPair, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pair.encode_prompts(list(PROMPTS))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pair.prompts_at_once == 1
    plain = pair.encode_prompts(list(PROMPTS))
    assert torch.equal(packed.mask, plain.mask)
    torch.testing.assert_close(packed.tokens[packed.mask], plain.tokens[plain.mask], atol=TOLERANCE, rtol=0)


@pytest.mark.skipif(not can_pack(), reason="on this CPU each prompt is encoded alone")
def test_packed_weights_are_the_same_bits_when_they_are_read_saved_moved_or_copied(tmp_path: Path) -> None:
    pair, plain = load_mini_pair(), load_mini_pair()
    templates = pair.encode_templates(list(TEMPLATES))
    with ThreadPoolExecutor(4) as pool:  # whose first prompts come together
        first, *more = pool.map(lambda _: pair.encode_prompts(list(PROMPTS)).tokens, range(8))
    assert all(torch.equal(first, one) for one in more)
    assert pair.text.project.weight.is_mkldnn
    assert torch.equal(pair.encode_templates(list(TEMPLATES)), templates)
    want, copied = plain.text.state_dict(), copy.deepcopy(pair)
    for text in (pair.text, copied.text):
        assert all(torch.equal(weight, want[name]) for name, weight in text.state_dict().items())
    assert torch.equal(copied.encode_prompts(list(PROMPTS)).tokens, first)
    config = MiniConfig(pair.coarse.config, pair.fine.config, pair.text.config, pair.view)
    parts = [MiniParts(one.coarse, one.fine, one.text, one.tokenizer) for one in (pair, plain)]
    for name, some in zip("ab", parts, strict=True):
        save_mini_pair(tmp_path / name, config, some)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert not pair.to("cpu").text.project.weight.is_mkldnn
    assert torch.equal(pair.encode_prompts(list(PROMPTS)).tokens, first)


def test_long_empty_and_odd_prompts_have_a_token(pair: MiniPair) -> None:
    read = pair.encode_prompts(["", "cat " * 500, "\0\ud800", "大きな猫"])
    assert read.truncated == [False, True, False, False]
    assert read.mask.any(dim=1).all()
    assert torch.isfinite(read.tokens[read.mask]).all()


def test_words_decide_whether_a_prompt_is_in_vocabulary(pair: MiniPair) -> None:
    read = pair.encode_prompts(["portrait of a woman", "zxqv brmpf glorptang", "", "the of and"])
    assert read.in_vocabulary == [True, False, False, False]
    assert pair.encode_prompts(["a giraffe in cyberpunk style", "大きな猫"]).in_vocabulary == [True, False]


@pytest.mark.parametrize(
    "prompt",
    [
        "ein Hund",
        "une voiture rouge",
        "大きな",
        "犬が走る",
        "ein roter Ball auf einem Holztisch",
        "une balle rouge sur une table en bois",
        "un perro en la nieve",
        "uma bola vermelha sobre uma mesa de madeira",
        "una palla rossa su un tavolo di legno",
        "een rode bal op een houten tafel",
        "en röd boll på ett träbord",
        "czerwona piłka na drewnianym stole",
        "ahşap masanın üzerinde kırmızı bir top",
        "một quả bóng đỏ trên bàn gỗ",
    ],
)
def test_other_languages_in_latin_letters_are_not_read(pair: MiniPair, prompt: str) -> None:
    assert pair.encode_prompts([prompt, "a red ball"]).in_vocabulary == [False, True]
    assert is_english(f"{prompt}, by the sea")


@pytest.mark.parametrize(
    "prompt",
    [
        "Mona Lisa, Leonardo da Vinci",
        "Salvador Dalí, Joan Miró",
        "portrait, Vincent van Gogh, de la Vega",
        "Café del Mar, los Angeles",
        "jalapeño piñata, café",
        "comic con, op art, 8k",
        "fjord, smörgåsbord",
        "🦊 8k",
        "red ball",
        "",
    ],
)
def test_names_and_loan_words_are_english(prompt: str) -> None:
    assert is_english(prompt)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("a zxqv woman", True), ("a zxqv brmpf woman", False), ("woman", True), ("a zxqv and the of in on", False)],
)
def test_half_of_the_content_words_are_enough(pair: MiniPair, prompt: str, found: bool) -> None:
    assert pair.encode_prompts([prompt]).in_vocabulary == [found]


def test_a_sentence_does_not_depend_on_longer_ones(pair: MiniPair) -> None:
    short, long = "a red bus", "an old temple in the rain at night, soft lighting, baroque style"
    alone, beside = pair.encode_templates([short]), pair.encode_templates([short, long])
    torch.testing.assert_close(beside[0], alone[0], atol=TOLERANCE, rtol=0)
    mean = pair.encode_prompts([short]).tokens[0].mean(dim=0)  # not one is padding
    torch.testing.assert_close(alone[0], torch.nn.functional.normalize(mean, dim=0), atol=TOLERANCE, rtol=0)


def test_templates_are_five_different_unit_vectors(pair: MiniPair) -> None:
    t = pair.encode_templates(list(TEMPLATES))
    assert torch.allclose(t.norm(dim=-1), torch.ones(5), atol=1e-5)
    assert len({tuple(row) for row in t.round(decimals=4).tolist()}) == 5


def test_the_shipped_folder_is_of_one_piece(pair: MiniPair) -> None:
    model = load_model(MINI.parent)
    assert model.config.encoders.sha256 == pair.sha256
    assert model.config.encoders.source == "mini"
    assert model.config.view == pair.view
    assert set(model.config.targets) == {"quality", "correspondence"}
    assert all(target.interval for target in model.config.targets.values())
    assert model.trained_on.images
    size = sum(path.stat().st_size for path in MINI.parent.rglob("*") if path.is_file())
    assert size <= 40e6


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    config = json.loads((MINI / "config.json").read_text())
    small = TowerConfig(dim=8, blocks=2)
    pair = load_mini_pair()
    text_config = TextConfig(pair.text.config.words, dim=8, width=8, inner=8, layers=1, heads=2)
    parts = MiniParts(random_tower(2), random_tower(2), TextEncoder(text_config), pair.tokenizer)
    save_mini_pair(tmp_path, MiniConfig(small, small, text_config, pair.view), parts)
    first, second = load_mini_pair(tmp_path, "here"), load_mini_pair(tmp_path, "here")
    coarse, fine = some_views(first, 1)
    assert torch.equal(encode_views(first, coarse, fine)[0], encode_views(second, coarse, fine)[0])
    assert first.sha256 == second.sha256 != pair.sha256
    assert json.loads((tmp_path / "config.json").read_text())["format"] == config["format"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "Expected small encoders with config.json"),
        ("config.json", b"{}", "format None"),
        ("config.json", b'{"format": 3}', "Expected small encoders of format 4"),
        ("model.safetensors", b"nonsense", "Expected safetensors"),
        ("tokenizer.json", b"{}", "Expected a tokenizer"),
    ],
)
def test_a_broken_folder_is_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    shutil.copytree(MINI, tmp_path / "e")
    if content is None:
        (tmp_path / "e" / file).unlink()
    else:
        (tmp_path / "e" / file).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_mini_pair(tmp_path / "e")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"text": {"length": 0}}, "Expected sizes that make small encoders"),
        ("config.json", {"text": {"heads": 7}}, "Expected sizes that make small encoders"),
        ("config.json", {"coarse": {"dim": 128}}, "Expected sizes that make small encoders"),
        ("config.json", {"fine": {"blocks": 17}}, "Expected sizes that make small encoders"),
        ("config.json", {"fine": {"blocks": 15}}, "config.json and model.safetensors are not of one model"),
        ("config.json", {"view": {"gap": 0.5}}, "a gap of at least 1"),
        ("config.json", {"view": {"std": [0, 0, 0]}}, "Expected deviations above 0"),
        ("config.json", {"view": {"crop_size": 8}}, "Expected views of 16 pixels or more"),
        ("config.json", {"view": {"size": 65536}}, "Expected views of at most"),
        (
            "tokenizer.json",
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"X": {"id": "X", "ids": [999999], "tokens": ["X"]}},
                }
            },
            r"tokens in .*tokenizer\.json.*, got 1,000,000",
        ),
    ],
)
def test_a_folder_that_would_fail_later_is_refused(
    tmp_path: Path, name: str, change: dict[str, object], message: str
) -> None:
    path = shutil.copytree(MINI, tmp_path / "e") / name
    data = json.loads(path.read_text())
    for key, value in change.items():
        data[key] = data[key] | value if isinstance(data[key], dict) and isinstance(value, dict) else value
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match=message):
        load_mini_pair(tmp_path / "e")


def test_a_tokenizer_that_asks_for_endless_padding_gets_none(tmp_path: Path, pair: MiniPair) -> None:
    path = shutil.copytree(MINI, tmp_path / "e") / "tokenizer.json"
    data = json.loads(path.read_text())
    padding = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    path.write_text(json.dumps(data | {"padding": padding | {"strategy": {"Fixed": 100_000}}}))
    assert load_mini_pair(tmp_path / "e").tokenize(["a ball"])[0].shape == pair.tokenize(["a ball"])[0].shape
