"""The prompt, word by word: the head's attention on it, and how the score changes without it.

    effect(word) = q(image, prompt) - q(image, prompt without the word)

Attention is where information may come from, the effect is what it changed. The two need not agree, so both are
reported. Words are separated by spaces. A word's tokens are found by counting the tokens of the prompt up to the word,
which uses only what scoring uses of the text encoder.
"""

from __future__ import annotations

import string

import torch
from torch import Tensor

from mst_clipiqa.explain.results import Word
from mst_clipiqa.features.encoded import Encoded, EncodedPrompt
from mst_clipiqa.model.mst_clipiqa import to_native
from mst_clipiqa.scoring.predictor import Predictor

MAX_WORDS = 77
"""Largest number of words examined, from the first on: CLIP's text encoder reads no more."""
_PROMPT_BATCH = 32  # prompts per batch


@torch.inference_mode()
def word_effects(predictor: Predictor, name: str, encoded: Encoded, prompt: str) -> tuple[Word, ...]:
    """Return attention and effect of each word, in the order of the prompt.

    Args:
        predictor: the heads.
        name: a target whose head reads prompts.
        encoded: the image.
        prompt: at least one word.
    """
    all_words = prompt.split()
    words = all_words[:MAX_WORDS]
    whole = predictor.prompts.encode([prompt])[0]
    without = _read(predictor, [" ".join(all_words[:i] + all_words[i + 1 :]) for i in range(len(words))])
    target = predictor.config.targets[name]
    scores, attention = _ask(predictor, name, encoded, [whole, *without])
    native = to_native(scores, target.low, target.high)
    effects = (native[0] - native[1:]).tolist()
    if attention is None:
        return tuple(Word(_bare(word), None, effect) for word, effect in zip(words, effects, strict=True))
    shares = _merged(attention, predictor.encoders.start_tokens, _ends(predictor, words, len(whole.tokens)))
    return tuple(Word(_bare(word), share, gap) for word, share, gap in zip(words, shares, effects, strict=True))


def _bare(word: str) -> str:
    """Return a word without punctuation around it, or as it is if there is nothing else."""
    return word.strip(string.punctuation) or word


def _read(predictor: Predictor, prompts: list[str]) -> list[EncodedPrompt]:
    starts = range(0, len(prompts), _PROMPT_BATCH)
    return [one for i in starts for one in predictor.prompts.encode(prompts[i : i + _PROMPT_BATCH], keep=False)]


def _ask(
    predictor: Predictor, name: str, encoded: Encoded, prompts: list[EncodedPrompt]
) -> tuple[Tensor, Tensor | None]:
    """Return q of one image for each prompt, and the attention over the first prompt's tokens."""
    rows = len(prompts)
    out = predictor.output(name, encoded.f_c.expand(rows, -1), encoded.f_f.expand(rows, -1), prompts)
    return out.q, None if out.attention is None else out.attention[0, : len(prompts[0].tokens)]


def _ends(predictor: Predictor, words: list[str], length: int) -> list[int]:
    """Return, for each word, the index after its last token, at most ``length`` less the tokens that end a prompt."""
    first = [" ".join(words[: i + 1]) for i in range(len(words))]
    empty, *counts = [len(one.tokens) for one in _read(predictor, ["", *first])]
    last = empty - predictor.encoders.start_tokens  # tokens that close every prompt
    return [min(count, length) - last for count in counts]


def _merged(attention: Tensor, first: int, ends: list[int]) -> list[float]:
    """Return the attention on each word, the sum over its tokens, of which the prompt's first word has the first."""
    starts = [first, *ends[:-1]]
    return [attention[start:end].sum().item() for start, end in zip(starts, ends, strict=True)]
