"""Prompts to token states: from memory, else from the cache on disk, else from the text encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from threading import Lock

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.features.cache import CacheSpace, EncodedPrompt

_IN_MEMORY = 512  # prompts; the oldest go first
_CHUNK = 64  # prompts encoded together


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
        self._lock = Lock()  # tokenizers are for one thread at a time

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
        embeddings = self.encoders.encode_templates(prompts).cpu()
        return {p: dataclasses.replace(found[p], embedding=e) for p, e in zip(prompts, embeddings, strict=True)}

    def _compute(self, prompts: list[str]) -> dict[str, EncodedPrompt]:
        batch = self.encoders.encode_prompts(prompts)
        return {
            prompt: EncodedPrompt(batch.tokens[i][batch.mask[i]].cpu(), batch.truncated[i], batch.in_vocabulary[i])
            for i, prompt in enumerate(prompts)
        }
