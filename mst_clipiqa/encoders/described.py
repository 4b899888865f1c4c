"""What decides the features of a pair beside its weights, as text that goes into the pair's sha256."""

from __future__ import annotations

import json
from typing import Any

from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.encoders.files import EncoderFiles
from mst_clipiqa.encoders.load import ImageSide, TextSide
from mst_clipiqa.encoders.text_tower import TextTower

_DECISIVE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim", "hidden_act"),
    *("image_size", "patch_size", "layer_norm_eps", "vocab_size", "max_position_embeddings"),
)
"""Keys of config.json that decide what a CLIP model computes."""
_MORE_DECISIVE = (
    *_DECISIVE,
    *("project_dim", "pad_token_id", "type_vocab_size", "num_patches", "mlp_ratio", "qkv_bias", "use_swiglu_ffn"),
    *("rope_theta", "num_register_tokens", "use_gated_mlp", "query_bias", "key_bias", "value_bias", "proj_bias"),
    *("mlp_bias", "activation", "dim", "hidden_dim", "n_heads", "n_layers", "model_type"),
)
"""The same for the other families."""


def described(files: tuple[EncoderFiles, EncoderFiles], sides: tuple[ImageSide, ImageSide], text: TextSide) -> str:
    """Return what decides the features beside the weights: sizes and activations of the models, and the tokenizer.

    Files are not enough: a tokenizer is the same whichever of its files are there, and config.json holds notes too.
    The views are not part of it: they are compared by themselves.
    """
    configs = [side.config for side in sides]
    if isinstance(text, TextTower) or not all(file.family.name == "clip" for file in files):
        families = [file.family.name for file in files]
        if isinstance(text, CLIPText):
            parts = _clip_text(text)
        else:
            parts = [_kept(text.body.config, _MORE_DECISIVE), *text.described()]
        return json.dumps([families, [_kept(config, _MORE_DECISIVE) for config in configs], parts], sort_keys=True)
    sizes, parts = [_kept(config, _DECISIVE) for config in configs], _clip_text(text)
    return json.dumps([[*sizes, parts[0]], *parts[1:]], sort_keys=True)


def _clip_text(text: CLIPText) -> list[Any]:
    """Return sizes, vocabulary and special tokens of a CLIP text encoder."""
    tokenizer = json.loads(text.tokenizer.backend_tokenizer.to_str())
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    words = [tokenizer["model"]["vocab"], merges, tokenizer["normalizer"], tokenizer["pre_tokenizer"]]
    ends = [text.tokenizer.bos_token_id, text.tokenizer.eos_token_id]
    return [_kept(text.model.config, _DECISIVE), words, ends]


def _kept(config: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key in keys}
