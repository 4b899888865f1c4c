"""The paper's pair in its real sizes and files, with random weights: to try the whole path without the download.

    python -m speed.random_pair HUB_CACHE
    HF_HUB_CACHE=HUB_CACHE HF_HUB_OFFLINE=1 mst-clipiqa train --encoders openai ...

Writes openai/clip-vit-base-patch32 and openai/clip-vit-base-patch16 as the hub's cache lays them out (1.2 GB). The
tokenizer has single bytes only, for CLIP's word pieces come with its weights. Scores from such a pair mean nothing;
what they cost, and every message on the way, is real.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizerFast,
    CLIPVisionModelWithProjection,
)

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.model.mstfe import MSTFE
from mst_clipiqa.model.preprocess import ViewSpec

REVISION = "0" * 40


def byte_characters() -> list[str]:
    """Return the 256 characters by which byte-level tokenizers stand for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + i) for i in range(256 - len(printable))]
    return [chr(b) for b in printable] + others


def vocabulary(size: int) -> dict[str, int]:
    """Return a vocabulary of CLIP's size: bytes, bytes that end a word, fillers, and the two special tokens last."""
    units = byte_characters()
    tokens = units + [f"{unit}</w>" for unit in units]
    tokens += [f"<unused{i}>" for i in range(size - len(tokens) - 2)]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def write(hub: Path, patch: int) -> Path:
    """Write one model and return its snapshot."""
    home = hub / f"models--openai--clip-vit-base-patch{patch}"
    snapshot = home / "snapshots" / REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(REVISION)
    torch.manual_seed(patch)
    config = CLIPConfig(vision_config={"patch_size": patch}, text_config={"eos_token_id": 2})  # as on the hub
    CLIPModel(config).save_pretrained(snapshot)
    (snapshot / "vocab.json").write_text(json.dumps(vocabulary(config.text_config.vocab_size)))
    (snapshot / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (snapshot / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "pad_token": "<|endoftext|>"}))
    return snapshot


def random_pair() -> CLIPPair:
    """Return such a pair in memory; its text encoder is good for templates only."""
    torch.manual_seed(0)
    towers = []
    for patch in (32, 16):
        config = CLIPConfig(vision_config={"patch_size": patch})
        config.vision_config.projection_dim = config.projection_dim
        towers.append(VisionTower(CLIPVisionModelWithProjection(config.vision_config).eval()))
    text = CLIPTextModelWithProjection(CLIPConfig().text_config)
    letters = {chr(i): i for i in range(256)} | {"<|startoftext|>": 256, "<|endoftext|>": 257}
    text_side = CLIPText(text, CLIPTokenizerFast(vocab=letters, merges=[]))
    return CLIPPair(MSTFE(towers[0], towers[1], ViewSpec()), text_side, "random ViT-B", sha256="random")


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    for patch in (32, 16):
        print(write(Path(sys.argv[1]), patch))


if __name__ == "__main__":
    main()
