"""A model folder over small encoders like mini's, a hundred times smaller, and its place in the hub's cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

from mst_clipiqa.encoders.mini.folder import load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniParts
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import Tower, TowerConfig
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, save_model
from tests.closed_form import fill, set_alpha

WORDS = ("[UNK]", "[PAD]", "a", "photo", "with", "bad", "poor", "fair", "good", "perfect", "quality", "red", "fox")
VIEW = ViewSpec(size=48, fine="native", crops=4, crop_size=32, native_side=80, gap=1.0)
DIM = 8


def _filled(module: nn.Module, prefix: str) -> nn.Module:
    fill(module, prefix)
    return module.eval().requires_grad_(False)


def save_small_encoders(folder: Path) -> Path:
    """Write encoders of two blocks and one layer; return their folder."""
    tower, text = TowerConfig(DIM, blocks=2), TextConfig(len(WORDS), DIM, width=8, inner=8, layers=1, heads=2)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    coarse, fine, encoder = Tower(tower), Tower(tower), TextEncoder(text)
    for name, module in (("coarse.", coarse), ("fine.", fine), ("text.", encoder)):
        _filled(module, name)
    save_mini_pair(folder, MiniConfig(tower, tower, text, VIEW), MiniParts(coarse, fine, encoder, tokenizer))
    return folder


def save_small_model(folder: Path, encoders: Path, weights: str = "") -> Path:
    """Write a model with both heads over small encoders; ``weights`` chooses other ones."""
    targets = {"quality": Target("template", 0.0, 5.0, 0.5), "correspondence": Target("prompt", 0.0, 5.0)}
    parts = {"quality": MSTCLIPIQA(DIM, "template"), "correspondence": MSTCLIPIQA(DIM, "prompt")}
    for name, part in parts.items():
        _filled(part, f"{weights}{name}.")
    head = parts["correspondence"].head
    assert isinstance(head, PromptHead)
    set_alpha(parts["correspondence"], 0.5)
    with torch.no_grad():
        head.w_o.bias.fill_(3.0)  # so that scores are within the scale
    pair = load_mini_pair(encoders)
    config = ModelConfig("small", EncoderRef(str(encoders), pair.sha256, DIM), targets, pair.view)
    save_model(TrainedModel(config, parts), folder, "# small\n")
    return folder


def put_in_hub_cache(cache: Path, repo: str, commit: str, folder: Path, branch: str = "main") -> Path:
    """Lay a folder out as the hub's cache does, and let a branch point to it; return the snapshot."""
    home = cache / ("models--" + repo.replace("/", "--"))
    snapshot = home / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / branch).write_text(commit)
    return snapshot
