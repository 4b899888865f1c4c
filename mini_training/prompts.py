"""MiniLM's states of every prompt, as the product will compute them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mini_training.data import Rated
from mini_training.learner import Prompts
from mini_training.pretrained import minilm
from mini_training.scenes import scenes
from mst_clipiqa.encoders.mini.storage import packed, unpacked
from mst_clipiqa.encoders.mini.text import TextEncoder
from mst_clipiqa.encoders.text import padded_ids
from mst_clipiqa.model.templates import TEMPLATES


@dataclass(frozen=True)
class Captions:
    """What is said of drawn scenes.

    Attributes:
        prompts: the states of all captions, each once.
        rows: int, (scenes, captions): which of them are said of each scene: right, without a colour, wrong ones.
    """

    prompts: Prompts
    rows: np.ndarray


def rounded_text(dim: int) -> TextEncoder:
    """Return MiniLM with its weights rounded as they are stored."""
    text, _ = minilm(dim)
    text.load_state_dict(unpacked(packed(text.state_dict())))
    return text


def read_prompts(rated: Rated, dim: int) -> tuple[Prompts, list[str]]:
    """Return the states of all prompts of a set, and the prompts in this order."""
    texts = sorted(set(rated.prompts))
    return _states(texts, dim), texts


def read_captions(dim: int) -> Captions:
    """Return the states of the captions of all drawn scenes."""
    said = [scene.captions for scene in scenes()]
    row = {text: i for i, text in enumerate(sorted({text for captions in said for text in captions}))}
    return Captions(_states(list(row), dim), np.array([[row[text] for text in captions] for captions in said]))


@torch.no_grad()
def _states(texts: list[str], dim: int) -> Prompts:
    text, (_, tokenizer) = rounded_text(dim), minilm(dim)

    def states(some: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [tokenizer.encode(prompt).ids for prompt in some]
        ids, mask, _ = padded_ids(rows, some, text.config.length, pad=0, keep_last=True)
        return text.states(ids, mask), mask

    tokens, mask = states(texts)
    templates, used = states(list(TEMPLATES))
    means = (templates * used.unsqueeze(-1)).sum(1) / used.sum(1, keepdim=True)
    return Prompts(tokens, mask, means)
