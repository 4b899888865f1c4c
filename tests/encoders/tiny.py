"""Tiny random models of every family, written by ``transformers``, with tiny tokenizers that read any script."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**VISION, "vocab_size": 400, "bos_token_id": 0, "eos_token_id": 2}
WORDS = ["a", "photo", "of", "red", "fox", "car", "with", "quality", "bad", "poor", "fair", "good", "perfect"]
WORDS += ["ein", "roter", "fuchs", "auto", "赤", "い", "狐", "лиса", "красная", "ثعلب", "أحمر", "लाल", "लोमड़ी"]
COARSE, FINE = 16, 8
"""Patch sizes; views have 32 pixels."""


def words_of_bytes(special: list[str], template: str, normalizer: Any = None) -> Tokenizer:
    """Return a tokenizer of words, with single bytes for what it does not know, so that any text can be spelt."""
    vocab = {token: i for i, token in enumerate(special)}
    for piece in [f"<0x{i:02X}>" for i in range(256)] + ["▁", *("▁" + word for word in WORDS)]:
        vocab.setdefault(piece, len(vocab))
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocab], unk_id=vocab["<unk>"], byte_fallback=True))
    tokenizer.normalizer = normalizer or normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    used = [(token, vocab[token]) for token in special if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    tokenizer.add_special_tokens(special)
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer, **settings: Any) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def xlm_r(folder: Path) -> None:
    save_tokenizer(folder, words_of_bytes(["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"), pad_token="<pad>")


def gemma(folder: Path) -> None:
    """Write what SigLIP 2 ships: no lower case in the file, and a flag for the end token that its template lacks."""
    tokenizer = words_of_bytes(["<pad>", "<eos>", "<bos>", "<unk>"], "$A")
    flags = {"add_bos_token": False, "add_eos_token": True}
    save_tokenizer(folder, tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", **flags)


def bert(folder: Path) -> None:
    pieces = [
        *"abcdefghijklmnopqrstuvwxyz0123456789",
        *WORDS,
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    ]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def save(folder: Path, config: Any, model: str, tokenizer: Callable[[Path], None] | None, **view: Any) -> Path:
    """Write a random model; weights are larger than at a usual start, so that every part of it counts."""
    torch.manual_seed(len(str(config)))
    made = getattr(transformers, model)(config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
            elif "bias" in name:
                torch.nn.init.normal_(weight, std=0.05)
    made.save_pretrained(folder)
    if tokenizer:
        tokenizer(folder)
    if view:
        (folder / "preprocessor_config.json").write_text(json.dumps(view))
    return folder


def metaclip_2(folder: Path, patch: int, dim: int = 16, **text: Any) -> Path:
    sizes = {"max_position_embeddings": 24, "projection_dim": dim, **text}
    vision = {**VISION, "image_size": 32, "patch_size": patch, "projection_dim": dim}
    config = transformers.MetaClip2Config(text_config={**TEXT, **sizes}, vision_config=vision, projection_dim=dim)
    return save(folder, config, "MetaClip2Model", xlm_r)


def altclip(folder: Path, patch: int) -> Path:
    text = {**TEXT, "max_position_embeddings": 40, "project_dim": 24, "pad_token_id": 1, "type_vocab_size": 1}
    vision = {**VISION, "image_size": 32, "patch_size": patch, "projection_dim": 16}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return save(folder, config, "AltCLIPModel", xlm_r)


def chinese_clip(folder: Path, patch: int) -> Path:
    text = {**TEXT, "max_position_embeddings": 40, "pad_token_id": 0}
    vision = {**VISION, "image_size": 32, "patch_size": patch, "projection_dim": 16}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return save(folder, config, "ChineseCLIPModel", bert, do_center_crop=False, size=32, resample=3)


def siglip(folder: Path, patch: int) -> Path:
    text = {**TEXT, "max_position_embeddings": 20, "projection_size": 32}
    config = transformers.SiglipConfig(
        text_config=text, vision_config={**VISION, "image_size": 32, "patch_size": patch}
    )
    size = {"height": 32, "width": 32}
    return save(folder, config, "SiglipModel", gemma, size=size, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def siglip2(folder: Path, patch: int) -> Path:
    text = {**TEXT, "max_position_embeddings": 20, "projection_size": 32}
    vision = {**VISION, "num_patches": (32 // patch) ** 2, "patch_size": patch}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    return save(folder, config, "Siglip2Model", gemma, max_num_patches=(32 // patch) ** 2, patch_size=patch, resample=2)


def dinov2(folder: Path, patch: int = FINE) -> Path:
    sizes = {key: value for key, value in VISION.items() if key != "intermediate_size"} | {"hidden_size": 40}
    config = transformers.Dinov2Config(**sizes, mlp_ratio=2, image_size=40, patch_size=patch)
    view = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    return save(folder, config, "Dinov2Model", None, **view, image_mean=[0.485, 0.456, 0.406], resample=3)


def dinov3_vit(folder: Path, patch: int = FINE) -> Path:
    config = transformers.DINOv3ViTConfig(**VISION, image_size=32, patch_size=patch, num_register_tokens=2)
    return save(folder, config, "DINOv3ViTModel", None, size={"height": 32, "width": 32}, resample=2)


WITH_TEXT: dict[str, Callable[[Path, int], Path]] = {
    "metaclip_2": metaclip_2,
    "altclip": altclip,
    "chinese_clip": chinese_clip,
    "siglip": siglip,
    "siglip2": siglip2,
}
IMAGES_ONLY: dict[str, Callable[[Path], Path]] = {"dinov2": dinov2, "dinov3_vit": dinov3_vit}


def sentence_tower(folder: Path, dim: int = 16, *, tanh: bool = False, older: bool = True) -> Path:
    """Write a multilingual DistilBERT with a dense layer, as sentence-transformers lays it out."""
    sizes = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": 400, "max_position_embeddings": 40}
    inner = folder if older else folder / "0_Transformer"
    save(inner, transformers.DistilBertConfig(**sizes, pad_token_id=1), "DistilBertModel", xlm_r)
    (inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    flags = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True} if older else {"pooling_mode": "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))
    (folder / "2_Dense").mkdir()
    activation = f"torch.nn.modules.{'activation.Tanh' if tanh else 'linear.Identity'}"
    settings = {"in_features": 32, "out_features": dim, "bias": False, "activation_function": activation}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    weight = {"linear.weight": torch.randn(dim, 32, generator=torch.Generator().manual_seed(3))}
    if older:
        torch.save(weight, folder / "2_Dense" / "pytorch_model.bin")
    else:
        save_file(weight, folder / "2_Dense" / "model.safetensors")
    paths = ["" if older else "0_Transformer", "1_Pooling", "2_Dense"]
    kinds = ["Transformer", "Pooling", "Dense"]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


TRANSLATED = {"▁red": "▁roter", "▁fox": "▁fuchs", "▁a": "▁ein"}


def make_bilingual(folder: Path, embedding: str) -> Path:
    """Give each German word the embedding of the English one, so that a prompt in both is the same to the tower."""
    pieces = [piece for piece, _ in json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]]
    weights = load_file(folder / "model.safetensors")
    table = weights[embedding].clone()
    for english, german in TRANSLATED.items():
        table[pieces.index(german)] = table[pieces.index(english)]
    save_file({**weights, embedding: table}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
