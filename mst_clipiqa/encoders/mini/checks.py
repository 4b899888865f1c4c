"""Checks that a config fits its weights, before any memory is allocated for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.checks import check_shapes, expecting
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import BLOCKS, Tower, TowerConfig
from mst_clipiqa.errors import ModelError

_MOST = 256  # layers or heads


def checked_parts(
    coarse: TowerConfig, fine: TowerConfig, text: TextConfig, weights: Mapping[str, Tensor], folder: Path
) -> tuple[Tower, Tower, TextEncoder]:
    """Return the three encoders without memory for their weights; the caller assigns those of the folder.

    Raises:
        ModelError: the sizes are impossible, or do not fit the weights.
    """
    path = folder / "config.json"
    fits = 1 <= text.heads <= _MOST and text.width % text.heads == 0 and 0 <= text.layers <= _MOST and text.length >= 2
    fits = fits and all(1 <= tower.blocks <= BLOCKS for tower in (coarse, fine))
    if not fits or len({coarse.dim, fine.dim, text.dim}) > 1:
        raise ModelError(f"Expected sizes that make small encoders in {path}, got others: fetch the file again.")
    with expecting(f"sizes that make small encoders in {path}"), torch.device("meta"):  # shapes without memory
        parts = Tower(coarse), Tower(fine), TextEncoder(text)
    for name, part in zip(("coarse", "fine", "text"), parts, strict=True):
        check_shapes(part, name, weights, folder)
    return parts


def check_tokenizer(tokenizer: Tokenizer, words: int, folder: Path) -> None:
    """Raise a ModelError if a tokenizer has tokens that the text encoder lacks, or no token for unknown words."""
    path = folder / "tokenizer.json"
    with expecting(f"a tokenizer in {path}"):
        ids = tokenizer.encode("a \ue000 photo").ids  # a character that no vocabulary has; encoding adds special tokens
    most = max([0, *tokenizer.get_vocab().values(), *ids])
    if most >= words:
        raise ModelError(f"Expected at most {words:,} tokens in {path}, got {most + 1:,}: fetch it again.")
