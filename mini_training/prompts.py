"""MiniLM's states of every prompt, as the product will compute them."""

from __future__ import annotations

import torch

from mini_training.data import Rated
from mini_training.learner import Prompts
from mini_training.pretrained import minilm
from mini_training.scenes import scenes
from mst_clipiqa.encoders.mini.storage import packed, unpacked
from mst_clipiqa.encoders.mini.text import TextEncoder
from mst_clipiqa.encoders.text import padded
from mst_clipiqa.model.templates import TEMPLATES


def rounded_text(dim: int) -> TextEncoder:
    """Return MiniLM with its weights rounded as they are stored."""
    text, _ = minilm(dim)
    text.load_state_dict(unpacked(packed(text.state_dict())))
    return text


def read_prompts(rated: Rated, dim: int) -> tuple[Prompts, list[str]]:
    """Return the states of all prompts of a set, and the prompts in this order."""
    texts = sorted(set(rated.prompts))
    return _states(texts, dim), texts


def read_captions(dim: int) -> Prompts:
    """Return the states of the captions of all drawn scenes, scene after scene, each the best first."""
    return _states([caption for scene in scenes() for caption in scene.captions], dim)


@torch.no_grad()
def _states(texts: list[str], dim: int) -> Prompts:
    text, (_, tokenizer) = rounded_text(dim), minilm(dim)

    def states(some: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask, _ = padded([tokenizer.encode(t).ids for t in some], some, text.config.length, pad=0, keep_last=True)
        return text.states(ids, mask), mask

    tokens, mask = states(texts)
    templates, used = states(list(TEMPLATES))
    means = (templates * used.unsqueeze(-1)).sum(1) / used.sum(1, keepdim=True)
    return Prompts(tokens, mask, means)
