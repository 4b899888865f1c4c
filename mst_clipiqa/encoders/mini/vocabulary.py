"""Whether a prompt is made of words that the embedded text encoder knows."""

from __future__ import annotations

from tokenizers import Encoding

IN_VOCABULARY_SHARE = 0.5
"""A prompt is in vocabulary if at least this share of its content words is."""

PIECE = 2.0
"""A word is in vocabulary if the pieces that the tokenizer cuts it into have at least this many letters on average."""

_LIST = """
a an and are as at be by for from has have her his in into is it its of off on onto or out over that the their this to
under up was with
"""
_FUNCTION_WORDS = frozenset(_LIST.split())


def is_in_vocabulary(prompt: Encoding) -> bool:
    """Return whether at least half of a prompt's content words are in the vocabulary, and at least one is.

    WordPiece can spell any word, in the end letter by letter. A word that is cut into such small pieces says nothing to
    the encoder.

    Args:
        prompt: as the tokenizer reads it.
    """
    content = _content(prompt)
    found = sum(map(_is_word, content))
    return found >= max(1, IN_VOCABULARY_SHARE * len(content))


def has_unread_word(prompt: Encoding) -> bool:
    """Return whether one of a prompt's content words, as the tokenizer reads it, is not in the vocabulary."""
    return not all(map(_is_word, _content(prompt)))


def _content(prompt: Encoding) -> list[list[str]]:
    """Return the pieces of each content word."""
    words: dict[int, list[str]] = {}
    for word, piece in zip(prompt.word_ids, prompt.tokens, strict=True):
        if word is not None:
            words.setdefault(word, []).append(piece)
    return [pieces for pieces in words.values() if _is_content(pieces)]


def _is_content(pieces: list[str]) -> bool:
    first = pieces[0]
    return len(pieces) > 1 or first == "[UNK]" or (first.isalnum() and first not in _FUNCTION_WORDS)


def _is_word(pieces: list[str]) -> bool:
    letters = sum(len(piece.removeprefix("##")) for piece in pieces)
    return "[UNK]" not in pieces and (len(pieces) == 1 or letters >= PIECE * len(pieces))
