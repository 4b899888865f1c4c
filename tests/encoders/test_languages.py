"""Text encoders that are named apart, in any language: what they compute, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mst_clipiqa import Scorer
from mst_clipiqa.encoders import load_encoders, with_text_encoder
from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.threads import map_on_single_cores
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.model.templates import TEMPLATES
from tests.encoders import tiny
from tests.encoders.conftest import Folders
from tests.encoders.test_clip import hub_cache
from tests.fakes import draw

SCRIPTS = {
    "Latin": ["a red fox", "ein roter Fuchs", "un zorro rojo", "kırmızı bir tilki", "một con cáo đỏ"],
    "Cyrillic": ["красная лиса", "червона лисиця", "црвена лисица", "улаан үнэг", "лиса 🦊"],
    "Greek": ["μια κόκκινη αλεπού", "ΑΛΕΠΟΎ", "αλεπού;", "η αλεπού του δάσους", "Ω"],
    "Arabic": ["ثعلب أحمر", "روباه قرمز", "سرخ لومڑی", "ثَعْلَبٌ", "﷽"],
    "Hebrew": ["שועל אדום", "שׁוּעָל", "שועל 🦊 ביער", "א", "שועל, יער ושמש"],
    "Devanagari": ["लाल लोमड़ी", "रातो फ्याउरो", "लोमड़ी।", "क्ष", "जंगल में लोमड़ी"],
    "Han and kana": ["红色的狐狸", "赤い狐", "きつね", "狐狸🦊在森林里", "キツネ　と　雪"],
    "Hangul and emoji": ["빨간 여우", "여우가 숲에 있다", "🦊", "👩‍👩‍👧‍👦🏳️‍🌈", "\u202eevil\u200d\ufeff"],
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentences")
    return tiny.make_bilingual(tiny.sentence_tower(folder / "tower"), "embeddings.word_embeddings.weight")


def named(*folders: Path) -> str:
    return ",".join(map(str, folders))


def loaded(*folders: Path) -> CLIPPair:
    found = load_encoders(named(*folders), "cpu", "fp32")
    assert isinstance(found, CLIPPair)
    return found


def test_there_are_forty_prompts_in_eight_scripts() -> None:
    assert (len(SCRIPTS), sum(map(len, SCRIPTS.values()))) == (8, 40)


@pytest.mark.parametrize("name", [*tiny.WITH_TEXT, "sentences"])
def test_every_script_is_read_without_a_crash(name: str, families: Folders, sentences: Path) -> None:
    pair = loaded(*families["metaclip_2"], sentences) if name == "sentences" else loaded(*families[name])
    prompts = [prompt for some in SCRIPTS.values() for prompt in some] + ["", " ", "\0", "\ud800", "x" * 100_000]
    for prompt in prompts:
        one = pair.encode_prompts([prompt])
        assert torch.isfinite(one.tokens).all() and one.mask.any()
    together = pair.encode_templates(prompts)
    assert torch.isfinite(together).all() and together.shape == (45, pair.dim)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(45))
    if name != "chinese_clip":  # its vocabulary has no bytes to spell other scripts with
        assert all(pair.encode_prompts(prompts[:40]).in_vocabulary)
        assert len({tuple(row) for row in together[:40].tolist()}) > 35


def test_words_without_a_token_are_not_read(families: Folders) -> None:
    read = loaded(*families["chinese_clip"]).encode_prompts(["a red fox", "שועל אדום", "a fox שועל"])
    assert read.in_vocabulary == [True, False, True]
    assert read.unread == [False, True, True]


@pytest.mark.parametrize("older", [True, False])
def test_the_layout_of_sentence_transformers(older: bool, families: Folders, tmp_path: Path) -> None:
    folder = tiny.sentence_tower(tmp_path / "tower", tanh=not older, older=older)
    pair = loaded(*families["metaclip_2"], folder)
    text: Any = pair.text
    texts = ["a red fox", "赤い 狐", "a fox " * 40]
    read = text.tokenizer(texts)
    assert read.ids.shape[1] == 24 and read.truncated == [False, False, True]
    body = transformers.DistilBertModel.from_pretrained(folder if older else folder / "0_Transformer").eval()
    weight = text.project[0].weight
    with torch.no_grad():
        states = body(read.ids, attention_mask=read.mask.long()).last_hidden_state
        mask = read.mask.unsqueeze(-1)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
    activation = torch.tanh if not older else (lambda x: x)
    want = torch.nn.functional.normalize(activation(mean @ weight.T), dim=-1)
    torch.testing.assert_close(pair.encode_templates(texts), want, atol=1e-5, rtol=1e-5)
    tokens = pair.encode_prompts(texts).tokens
    torch.testing.assert_close(tokens, activation(states @ weight.T), atol=1e-5, rtol=1e-5)
    assert loaded(*families["metaclip_2"]).sha256 != pair.sha256 == loaded(*families["metaclip_2"], folder).sha256


@pytest.mark.parametrize(("body", "unused"), [("DistilBert", 0), ("XLMRoberta", 2)])
def test_a_text_encoder_reads_as_many_tokens_as_it_has_positions(
    body: str, unused: int, families: Folders, tmp_path: Path
) -> None:
    folder = tiny.sentence_tower(tmp_path / "tower")
    (folder / "sentence_bert_config.json").unlink()
    if body == "XLMRoberta":
        sizes = {key: value for key, value in tiny.TEXT.items() if not key.endswith("_id")}
        config = transformers.XLMRobertaConfig(**sizes, max_position_embeddings=40, pad_token_id=1, type_vocab_size=1)
        tiny.save(folder, config, "XLMRobertaModel", tiny.xlm_r)
    pair = loaded(*families["metaclip_2"], folder)
    for words, truncated in ((100, True), (5, False)):
        read = pair.encode_prompts([" ".join(["fox"] * words)])
        assert read.truncated == [truncated]
        assert torch.isfinite(read.tokens).all()
        # RoBERTa counts positions from the padding's id on.
        assert int(read.mask.sum()) == (40 - unused if truncated else words + 2)


@pytest.mark.parametrize("kind", ["sentences", "metaclip_2"])
def test_a_prompt_in_two_languages_has_one_score(kind: str, families: Folders, sentences: Path, tmp_path: Path) -> None:
    if kind == "sentences":
        pair = named(*families["metaclip_2"], sentences)
    else:
        copy = shutil.copytree(families["metaclip_2"][0], tmp_path / "bilingual")
        table = "text_model.embeddings.token_embedding.weight"
        pair = named(tiny.make_bilingual(copy, table), families["metaclip_2"][1])
    scorer = Scorer.load(f"zero-shot:{pair}", device="cpu", precision="fp32")
    english, german, other = scorer(draw(1, 0.2), ["a red fox", "ein roter fuchs", "a red car"])
    assert english.correspondence == german.correspondence != other.correspondence
    assert english.quality == german.quality
    assert english.reason == ""


def test_the_flag_names_the_third_encoder(families: Folders, sentences: Path) -> None:
    coarse, fine = families["metaclip_2"]
    assert with_text_encoder(named(coarse, fine), str(sentences)) == named(coarse, fine, sentences)
    assert with_text_encoder(named(coarse, fine, fine), str(sentences)) == named(coarse, fine, sentences)
    assert with_text_encoder("openai", "org/tower") == (
        "openai/clip-vit-base-patch32,openai/clip-vit-base-patch16,org/tower"
    )
    assert with_text_encoder("mini", None) == "mini"
    with pytest.raises(UsageError, match="Expected --text-encoder with one folder or hub id beside encoders openai"):
        with_text_encoder("mini", "org/tower")
    pair = load_encoders(named(coarse, fine, sentences), "cpu", "fp32")
    scorer = Scorer.load(f"zero-shot:{named(coarse, fine)}", device="cpu", text_encoder=str(sentences))
    assert (scorer.encoder.encoders.source, scorer.encoder.encoders.sha256) == (pair.source, pair.sha256)
    # More cores may round otherwise.
    (templates,) = map_on_single_cores(pair.device, pair.encode_templates, [list(TEMPLATES)])
    assert torch.equal(scorer.predictor.templates, templates)


def test_text_of_another_space_is_refused_in_one_sentence(families: Folders, sentences: Path, tmp_path: Path) -> None:
    coarse, fine = families["metaclip_2"]

    def refused(text: Path) -> str:
        with pytest.raises(ModelError) as error:
            loaded(coarse, fine, text)
        return str(error.value)

    assert "belongs to an image encoder of its own" in refused(families["altclip"][0])
    assert "belongs to an image encoder of its own" in refused(fine)
    assert "Expected text embeddings of size 16" in refused(tiny.sentence_tower(tmp_path / "wide", dim=24))
    assert "Expected an encoder with a text tower" in refused(families["dinov2"][1])
    same = tiny.metaclip_2(tmp_path / "same", 16)  # other random texts beside the very same images
    state, images = (load_file(folder / "model.safetensors") for folder in (same, coarse))
    state |= {name: value for name, value in images.items() if name.startswith("vision_model") or "visual" in name}
    save_file(state, same / "model.safetensors", metadata={"format": "pt"})
    assert loaded(coarse, fine, same).dim == 16


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "Expected a list of modules"),
        (
            "modules.json",
            '[{"path": "", "type": "x.Transformer"}]',
            "Expected a Transformer, a Pooling and Dense layers",
        ),
        ("modules.json", '[{"path": "../..", "type": "x.Transformer"}]', "Expected modules inside"),
        ("config.json", '{"model_type": "gpt2"}', "Expected a model_type of distilbert"),
        ("1_Pooling/config.json", '{"pooling_mode": "max"}', "Expected the pooling mean or cls"),
        (
            "2_Dense/config.json",
            '{"in_features": 32, "out_features": 16, "activation_function": "os.system"}',
            "activation",
        ),
        (
            "2_Dense/config.json",
            '{"in_features": 16, "out_features": 16, "activation_function": "x.Identity"}',
            "weights",
        ),
        ("tokenizer.json", "{}", "Expected a tokenizer in"),
    ],
)
def test_broken_text_encoders_are_named(
    file: str, content: str, message: str, families: Folders, sentences: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(sentences, tmp_path / "broken")
    (broken / file).write_text(content)
    with pytest.raises(ModelError, match=message):
        loaded(*families["metaclip_2"], broken)


def test_mini_names_the_language_that_it_reads(tmp_path: Path) -> None:
    scorer = Scorer.load("mini", device="cpu")
    image = draw(3, 0.1, 256)
    foreign, partly, english = scorer(image, ["大きな猫", "a red ball beside a qxzvkjw", "a red ball"])
    assert foreign.correspondence is None and "correspondence is not scored (it reads English)" in foreign.reason
    assert partly.correspondence is not None
    assert (
        "some of the prompt's words lie outside what the text encoder was trained on (it reads English)"
        in partly.reason
    )
    assert "reads" not in english.reason


def test_a_language_survives_the_cache(tmp_path: Path) -> None:
    from mst_clipiqa.features.cache import Cache

    prompts = ["a red ball beside a qxzvkjw", "a red ball"]
    pair = load_encoders("mini", "cpu", "fp32")
    from mst_clipiqa.features.prompt_encoder import PromptEncoder

    with Cache(tmp_path) as cache:
        first = PromptEncoder(pair, cache.space(pair)).encode(prompts)
        again = PromptEncoder(pair, cache.space(pair)).encode(prompts)
    assert [one.unread for one in first] == [one.unread for one in again] == [True, False]


def test_files_of_tokenizers_that_ask_too_much_are_refused(families: Folders, tmp_path: Path) -> None:
    copy = shutil.copytree(families["metaclip_2"][0], tmp_path / "large")
    found = json.loads((copy / "tokenizer.json").read_text())
    found["model"]["vocab"] += [[f"x{i}", -1.0] for i in range(200)]
    (copy / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match="Expected at most 400 tokens"):
        loaded(copy, families["metaclip_2"][1])


def test_text_encoders_are_found_in_the_hubs_cache(
    families: Folders, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    coarse, fine = families["metaclip_2"]
    hub_cache(tmp_path, "org/tower", sentences)
    hub_cache(tmp_path, "org/images", coarse)
    hub_cache(tmp_path, "org/dino", families["dinov2"][1])
    assert load_encoders(f"org/images,{fine},org/tower", "cpu", "fp32").sha256 == loaded(coarse, fine, sentences).sha256
    pair = load_encoders("org/images,org/dino,org/images", "cpu", "fp32")
    assert (pair.dim, pair.dim_fine) == (16, 40)
    with pytest.raises(ModelError, match="Expected org/none in the local hub cache or a network"):
        load_encoders(f"{coarse},{fine},org/none", "cpu", "fp32")
