"""Prompts to token states: from memory, else from the cache on disk, else from the text encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor, nn

from mst_clipiqa.encoders.pair import EncoderPair, PromptTokens
from mst_clipiqa.encoders.threads import map_on_single_cores
from mst_clipiqa.features.cache import CacheSpace
from mst_clipiqa.features.encoded import EncodedPrompt

_IN_MEMORY = 512  # prompts; the oldest go first
_CHUNK = 64  # prompts looked up and written together


def padded_states(prompts: Sequence[EncodedPrompt]) -> tuple[Tensor, Tensor]:
    """Return token states, float32 (prompts, L, D), padded with zeros, and their mask, True for real tokens."""
    tokens = nn.utils.rnn.pad_sequence([prompt.tokens for prompt in prompts], batch_first=True)
    lengths = torch.tensor([len(prompt.tokens) for prompt in prompts])
    return tokens, torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)


class PromptEncoder:
    """Encodes each prompt once; safe to share between threads.

    Args:
        encoders: the pair whose text encoder is used.
        cache: where token states are kept between runs, if anywhere.
        embeddings: whether to compute ``EncodedPrompt.embedding`` as well.
    """

    def __init__(self, encoders: EncoderPair, cache: CacheSpace | None = None, *, embeddings: bool = False) -> None:
        self.encoders = encoders
        self.cache = cache
        self.embeddings = embeddings
        self._memory: dict[str, EncodedPrompt] = {}
        self._lock = Lock()  # of the memory

    def encode(self, prompts: Sequence[str], *, keep: bool = True) -> list[EncodedPrompt]:
        """Return the encoded prompts, in order.

        Args:
            prompts: in any number; one that occurs twice is encoded once.
            keep: whether to write new ones to the cache on disk.
        """
        wanted = list(dict.fromkeys(prompts))
        with self._lock:
            missing = [prompt for prompt in wanted if prompt not in self._memory]
            for start in range(0, len(missing), _CHUNK):
                self._memory |= self._read(missing[start : start + _CHUNK], keep)
            found = {prompt: self._memory[prompt] for prompt in wanted}
            for prompt in list(self._memory)[: max(0, len(self._memory) - _IN_MEMORY)]:
                del self._memory[prompt]
        return [found[prompt] for prompt in prompts]

    def _read(self, prompts: list[str], keep: bool) -> dict[str, EncodedPrompt]:
        """Return prompts from the cache on disk or, if they are not there, from the text encoder."""
        stored = {prompt: self.cache.get_prompt(prompt) for prompt in prompts} if self.cache else {}
        found = {prompt: one for prompt, one in stored.items() if one is not None}
        new = [prompt for prompt in prompts if prompt not in found]
        if new:
            computed = self._compute(new)
            if self.cache is not None and keep:
                self.cache.put_prompts(computed)
            found |= computed
        if not self.embeddings:
            return found
        embeddings = map_on_single_cores(self.encoders.device, self._embedding, prompts)
        return {p: dataclasses.replace(found[p], embedding=e) for p, e in zip(prompts, embeddings, strict=True)}

    def _embedding(self, prompt: str) -> Tensor:
        """Return ``EncodedPrompt.embedding``, on the CPU."""
        return self.encoders.encode_templates([prompt])[0].cpu()

    def _compute(self, prompts: list[str]) -> dict[str, EncodedPrompt]:
        """Return the prompts encoded, in groups so small that no prompt changes another's states."""
        most, cores = self.encoders.prompts_at_once, torch.get_num_threads()
        size = min(most, -(-len(prompts) // cores))
        groups = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        found: dict[str, EncodedPrompt] = {}
        encoded = map_on_single_cores(self.encoders.device, self.encoders.encode_prompts, groups)
        for group, tokens in zip(groups, encoded, strict=True):
            found |= zip(group, _each(tokens), strict=True)
        return found


def _each(read: PromptTokens) -> list[EncodedPrompt]:
    """Return each prompt of a group by itself, without padding, on the CPU."""
    unread = read.unread or [False] * len(read.truncated)
    rows = zip(read.tokens.cpu(), read.mask.cpu(), read.truncated, read.in_vocabulary, unread, strict=True)
    return [EncodedPrompt(tokens[mask], cut, known, unread=some) for tokens, mask, cut, known, some in rows]
