"""Whether a prompt speaks of what the embedded text encoder was trained on."""

from __future__ import annotations

from tokenizers import Encoding
from torch import Tensor

IN_VOCABULARY_SHARE = 0.5
"""A prompt is in vocabulary if at least this share of its content words is."""

_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "have",
        "her",
        "his",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "off",
        "on",
        "onto",
        "or",
        "out",
        "over",
        "that",
        "the",
        "their",
        "this",
        "to",
        "under",
        "up",
        "was",
        "with",
    ]
)


def is_in_vocabulary(prompt: Encoding, in_vocabulary: Tensor) -> bool:
    """Return whether at least half of a prompt's content words are in the vocabulary, and at least one is.

    Args:
        prompt: as the tokenizer reads it.
        in_vocabulary: bool (words,): which tokens stand for words seen in training or close to one.
    """
    words: dict[int, list[tuple[int, str]]] = {}
    for word, token, text in zip(prompt.word_ids, prompt.ids, prompt.tokens, strict=True):
        if word is not None:
            words.setdefault(word, []).append((token, text))
    content = [pieces for pieces in words.values() if _is_content(pieces)]
    found = sum(len(pieces) == 1 and bool(in_vocabulary[pieces[0][0]]) for pieces in content)
    return found >= max(1, IN_VOCABULARY_SHARE * len(content))


def _is_content(pieces: list[tuple[int, str]]) -> bool:
    first = pieces[0][1]
    return len(pieces) > 1 or first == "[UNK]" or (first.isalnum() and first not in _FUNCTION_WORDS)
