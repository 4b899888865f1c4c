"""Tokenizers of text towers other than CLIP's, read by the ``tokenizers`` library from tokenizer.json or vocab.txt.

What ``transformers`` would add per class is left out on purpose: it depends on which packages are installed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from tokenizers import BertWordPieceTokenizer, Encoding, Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.encoders.text import padded_ids, tokenizable
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.shapes import TokenMask

_LEAST_READ = 0.5  # share of a prompt's tokens that must not be unknown


@dataclass(frozen=True)
class TextTokens:
    """A batch of prompts as token ids.

    Attributes:
        ids: int64 (batch, L).
        mask: bool (batch, L), True for real tokens.
        truncated: whether each prompt was cut to fit.
        in_vocabulary: whether at least half of each prompt's tokens are not the unknown one.
        unread: whether one of them is.
    """

    ids: Int64[Tensor, "batch L"]
    mask: TokenMask
    truncated: list[bool]
    in_vocabulary: list[bool]
    unread: list[bool]


@dataclass(frozen=True)
class TextTokenizer:
    """Prompts to token ids.

    Attributes:
        backend: the library's tokenizer, without padding or truncation of its own.
        length: tokens that the text tower reads.
        pad: id of the padding.
        full: whether every row is padded to ``length``, as SigLIP was trained.
        left: whether the padding comes first.
        lower: whether text is put in lower case first, as SigLIP was trained.
        bos, eos: token to remove from the start, or to add at the end, if the backend does otherwise; None for neither.
        unknown: id of the unknown token; None if any text can be spelt.
    """

    backend: Tokenizer
    length: int
    pad: int
    full: bool = False
    left: bool = False
    lower: bool = False
    bos: int | None = None
    eos: int | None = None
    unknown: int | None = None

    def __call__(self, prompts: list[str]) -> TextTokens:
        """Return the tokens of prompts; any text has some."""
        found = [self.encode(prompt) for prompt in prompts]
        rows = [row for row, _ in found]
        ids, mask, truncated = padded_ids(rows, prompts, self.length, pad=self.pad, keep_last=True)
        if self.full:
            missing = self.length - ids.shape[1]
            ids = torch.nn.functional.pad(ids, (0, missing), value=self.pad)
            mask = torch.nn.functional.pad(mask, (0, missing), value=False)
        if self.left:
            order = mask.to(torch.int8).argsort(dim=1, stable=True)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        words = [words for _, words in found]
        return TextTokens(
            ids, mask, truncated, list(map(self._is_read, words)), [self.unknown in some for some in words]
        )

    def encode(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt with its special tokens, and those of its words alone."""
        text = tokenizable(prompt)
        encoding: Encoding = self.backend.encode(text.lower() if self.lower else text)
        ids = encoding.ids
        words = [i for i, special in zip(ids, encoding.special_tokens_mask, strict=True) if not special]
        if self.bos is not None and ids[:1] == [self.bos]:
            ids = ids[1:]
        if self.eos is not None and ids[-1:] != [self.eos]:
            ids = [*ids, self.eos]
        return ids or [self.pad], words

    @property
    def start(self) -> int:
        """The number of tokens before the first word."""
        ids, words = self.encode("a")
        return ids.index(words[0]) if words and words[0] in ids else 0

    def described(self) -> list[Any]:
        """Return all that decides the ids, for a hash."""
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "backend"}
        return [self.backend.to_str(), settings]

    def _is_read(self, words: Sequence[int]) -> bool:
        unknown = sum(word == self.unknown for word in words)
        return not words or len(words) - unknown >= max(1, _LEAST_READ * len(words))


def read_tokenizer(folder: Path, *, length: int, words: int, pad: int | None, siglip: bool) -> TextTokenizer:
    """Return the tokenizer of a folder.

    Args:
        folder: holds tokenizer.json, or vocab.txt of a BERT; and tokenizer_config.json, if it has anything to say.
        length: tokens that the text tower can read; the folder may ask for fewer.
        words: size of the tower's vocabulary; no id may reach it.
        pad: id of the padding, which the text tower knows; None for the tokenizer's own.
        siglip: whether rows are lower case and padded to their full length.

    Raises:
        ModelError: a file is missing or broken, or has tokens that the tower lacks.
    """
    with expecting(f"a tokenizer in {folder}", "fetch its files again"):
        settings = _settings(folder / "tokenizer_config.json")
        backend = _backend(folder, settings)
        backend.no_padding()
        backend.no_truncation()
        own = _id(backend, settings.get("pad_token"))
        limit = settings.get("model_max_length")
        found = TextTokenizer(
            backend,
            min(length, limit) if type(limit) is int and limit > 1 else length,
            pad if pad is not None else own or 0,
            full=siglip,
            left=siglip and settings.get("padding_side") == "left",
            lower=siglip,
            bos=_id(backend, settings.get("bos_token")) if settings.get("add_bos_token") is False else None,
            eos=_id(backend, settings.get("eos_token")) if settings.get("add_eos_token") is True else None,
            unknown=_unknown(backend),
        )
        most = max([found.pad, *backend.get_vocab().values(), *found.encode("a \ue000")[0]])
    if most >= words:
        raise ModelError(f"Expected at most {words:,} tokens in {folder}, got {most + 1:,}: fetch its tokenizer again.")
    return found


def _backend(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.txt").is_file():
        lower = settings.get("do_lower_case", True) is not False
        return Tokenizer.from_str(BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lower).to_str())
    raise ModelError(
        f"Expected tokenizer.json (or vocab.txt of a BERT) in {folder}, got neither: save its tokenizer with "
        "transformers, which writes tokenizer.json."
    )


def _settings(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _id(backend: Tokenizer, token: Any) -> int | None:
    """Return the id of a token as tokenizer_config.json has it: text, or an object with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return backend.token_to_id(text) if isinstance(text, str) else None


def _unknown(backend: Tokenizer) -> int | None:
    model = json.loads(backend.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    return model["unk_id"] if type(model.get("unk_id")) is int else _id(backend, model.get("unk_token"))
