"""Small CLIPs and trained parts whose every weight a formula gives, so that anyone can build the same ones."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel

GOLDEN = Path(__file__).parent / "golden"
PROMPTS = [f"a photo of a red {animal}" for animal in ("fox", "car", "dog", "cat")]
MOS = [1.5, 2.25, 4.0, 3.1]


def golden() -> dict[str, Any]:
    """Return the recorded numbers; a missing file is a failure, not a skip."""
    return json.loads((GOLDEN / "golden.json").read_text())  # type: ignore[no-any-return]


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the closed-form float32 weights of the parameter with a canonical name."""
    if name == "head.temperature":
        return torch.tensor(20.0)
    if name == "head.alpha":
        return torch.tensor(0.5)
    n = int(np.prod(shape, dtype=np.int64))
    u = np.sin(12.9898 * np.arange(1, n + 1, dtype=np.float64) + zlib.crc32(name.encode()) % 1000 / 100) * 43758.5453
    v = 2 * (u - np.floor(u)) - 1
    module, _, last = name.rpartition(".")
    owner = module.rpartition(".")[2] + "." + last
    if ("norm" in owner or "layrnorm" in owner) and last == "weight":
        values = 1 + 0.1 * v
    elif len(shape) >= 2:
        values = v * np.sqrt(3 / np.prod(shape[1:]))
    else:
        values = 0.02 * v
    return torch.from_numpy(values.reshape(shape)).float()


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "") -> None:
    """Set every parameter of a module by its canonical name."""
    for name, parameter in module.named_parameters():
        parameter.copy_(formula(prefix + name, tuple(parameter.shape)))


@torch.no_grad()
def set_alpha(model: MSTCLIPIQA, alpha: float) -> None:
    """Set how much the prompt counts in a model with a prompt head."""
    assert isinstance(model.head, PromptHead)
    model.head.alpha.fill_(alpha)


def clip_config(patch: int, **changes: Any) -> dict[str, Any]:
    """Return the config of the closed-form CLIP with a patch size; ``changes`` go into the top level."""
    layers = {"num_hidden_layers": 2, "projection_dim": 512}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "image_size": 224}
    text = {"hidden_size": 512, "intermediate_size": 256, "num_attention_heads": 8, "vocab_size": 1024}
    ids = {"bos_token_id": 1022, "eos_token_id": 1023, "pad_token_id": 1, "max_position_embeddings": 77}
    return {
        "projection_dim": 512,
        "vision_config": {**vision, **layers, "patch_size": patch},
        "text_config": {**text, **layers, **ids},
        **changes,
    }


def save_clip(folder: Path, patch: int, **changes: Any) -> Path:
    """Write a closed-form CLIP in the Hugging Face layout and return its folder."""
    config = clip_config(patch, **changes)
    model = CLIPModel(CLIPConfig(**config))
    fill(model, f"{patch}:")
    model.save_pretrained(folder)
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)
    return folder


def pixels() -> torch.Tensor:
    """Return the recorded input: normalised pixels, float32 (4, 3, 224, 224)."""
    b = np.arange(4.0).reshape(4, 1, 1, 1)
    c = np.arange(3.0).reshape(1, 3, 1, 1)
    y = np.arange(224.0).reshape(1, 1, 224, 1)
    x = np.arange(224.0).reshape(1, 1, 1, 224)
    wave = np.sin((0.05 + 0.11 * b) * x + c) * np.cos((0.21 - 0.04 * b) * y)
    return torch.from_numpy(wave + 0.3 * b * np.sin(1.7 * x + 2.3 * y + c)).float()


def parameter_count(model: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def toy_model(pair: EncoderPair) -> TrainedModel:
    """Return a model of fake encoders: quality from templates, correspondence from the prompt."""
    targets = {"quality": Target("template", 0.0, 5.0, 0.5), "correspondence": Target("prompt", 0.0, 5.0)}
    parts = {"quality": MSTCLIPIQA(64, "template"), "correspondence": MSTCLIPIQA(64, "prompt")}
    for name, part in parts.items():
        fill(part, f"{name}.")
        part.eval().requires_grad_(False)
    set_alpha(parts["correspondence"], 0.5)
    return TrainedModel(ModelConfig("toy", EncoderRef("fake", pair.sha256, 64), targets), parts)
