"""The embedded model's encoders as an ``EncoderPair``; ``folder.py`` reads them from files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mst_clipiqa.encoders.int8_weights import sum_bits
from mst_clipiqa.encoders.mini.english import is_english
from mst_clipiqa.encoders.mini.fused import FusedTower
from mst_clipiqa.encoders.mini.int8 import RANGES_FILE, BlockRanges, Int8Tower
from mst_clipiqa.encoders.mini.packed_text import linear_layers, packed_states
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import Tower, TowerConfig
from mst_clipiqa.encoders.mini.vocabulary import has_unread_word, is_in_vocabulary
from mst_clipiqa.encoders.packing import PROMPTS_AT_ONCE, can_pack
from mst_clipiqa.encoders.pair import Chunking, PromptTokens
from mst_clipiqa.encoders.precision import DTYPES, INT8, Precision
from mst_clipiqa.encoders.text import padded_ids, tokenizable
from mst_clipiqa.errors import UsageError
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, normalised

FORMAT = 4

_GROUP = 4  # images per chunk
_INT8_GROUP = 8  # each operator takes 30 to 60 microseconds to start; twice as many leave the caches


@dataclass(frozen=True)
class MiniConfig:
    """``config.json`` of an encoder folder."""

    coarse: TowerConfig
    fine: TowerConfig
    text: TextConfig
    view: ViewSpec
    format: int = FORMAT


@dataclass(frozen=True)
class MiniParts:
    """The three encoders and the tokenizer."""

    coarse: Tower
    fine: Tower
    text: TextEncoder
    tokenizer: Tokenizer


class MiniPair:
    """Two EfficientNet-Lite towers and MiniLM as an ``EncoderPair``."""

    def __init__(
        self, config: MiniConfig, parts: MiniParts, source: str, sha256: str = "", ranges: BlockRanges | None = None
    ) -> None:
        """Take the parts ready built; ``load_mini_pair`` is the way from files."""
        self.coarse, self.fine = (tower.eval().requires_grad_(False) for tower in (parts.coarse, parts.fine))
        self.text = parts.text.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer
        self.view = config.view
        self.dim = self.dim_fine = self.text_dim = config.text.dim
        self.start_tokens = 1
        self.language: str | None = "English"
        self.source = source
        self.sha256 = sha256
        self.ranges = ranges
        self.to("cpu")

    def to(self, device: torch.device | str, precision: str = "fp32") -> MiniPair:
        """Move to a device and compute convolutions in fp32, bf16 or int8; returns itself.

        For fp16 it computes in bf16, whose range is that of fp32: what blocks add up to has no upper bound.

        Args:
            device: where to.
            precision: fp32, bf16, fp16, int8, or the ``precision`` of a pair.

        Raises:
            UsageError: int8, and the device is not a CPU that has it, or the folder lacks the ranges of blocks.
        """
        can_int8 = torch.device(device).type == "cpu" and self.has_int8
        asked = Precision.parse(precision)
        if asked == Precision(INT8) and not can_int8:
            raise UsageError(
                f"Expected a CPU with AVX2 and {RANGES_FILE} beside the encoders for precision int8, got none: "
                "choose auto."
            )
        for layer in linear_layers(self.text):
            layer.release()
        for part in (self.coarse, self.fine, self.text):
            part.to(device=device)
        self._precision = Precision("fp32" if asked.format == "fp32" else "bf16")
        self._dtype = DTYPES[self._precision.format]
        bits = sum_bits()
        if asked.format == INT8 and can_int8 and self.ranges and bits:  # asked for, or as it was before
            self._precision = Precision(INT8, ranges=self.ranges.digest, in_pairs=bits == 16)
        self._fast: dict[Stream, FusedTower | Int8Tower] = {}
        return self

    @property
    def precision(self) -> str:
        """What the image encoders compute in: the text of a ``Precision``, part of every cache key."""
        return str(self._precision)

    @property
    def has_int8(self) -> bool:
        """Whether the image encoders can compute in int8 on this CPU."""
        return self.ranges is not None and sum_bits() is not None

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return self.text.positions.device

    @property
    def chunking(self) -> Chunking:
        """On a CPU a few images per core.

        An image is too small a task to be split across threads. Chunks of one size, each on one core, so that neither
        an image's batch nor the number of cores changes its rounding; integers are not rounded.
        """
        if self.device.type != "cpu":
            return Chunking(32, True, 1)
        return Chunking(_INT8_GROUP, False, None) if self._is_int8 else Chunking(_GROUP, True, None)

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        """Return f_c or f_f, float32 (n, D), of uint8 views (n, 3, S, S) or native crops (n, K, 3, C, C).

        Coarse views are encoded together; the crops of an image by themselves, as there are enough of them.
        """
        if self._is_int8:
            embedding: Tensor = self._fast_tower(stream)(views.unsqueeze(1) if views.ndim == 4 else views)
            return embedding
        if views.ndim == 4:
            return self._encode(stream, views.unsqueeze(1))
        return torch.cat([self._encode(stream, crops) for crops in views.split(1 if self.device.type == "cpu" else 32)])

    def embed(self, stream: Stream, pixels: Tensor) -> Tensor:
        """Return f_c or f_f of normalised pixels, float (n, K, 3, S, S), with gradients to them; always in fp32."""
        embedding: Tensor = self._tower(stream)(pixels)
        return embedding

    @property
    def prompts_at_once(self) -> int:
        """How many prompts can be encoded at once without changing each other's states; only on x86 more than one."""
        return PROMPTS_AT_ONCE if self.device.type == "cpu" and can_pack() else 1

    @property
    def _is_int8(self) -> bool:
        return self._precision.format == INT8

    def _encode(self, stream: Stream, views: Tensor) -> Tensor:
        pixels = normalised(views.flatten(0, 1), self.view, self._dtype).unflatten(0, views.shape[:2])
        if self.device.type != "cpu":
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                embedding: Tensor = self._tower(stream)(pixels).float()
            return embedding
        return self._fast_tower(stream)(pixels)

    def _tower(self, stream: Stream) -> Tower:
        return self.coarse if stream == "coarse" else self.fine

    def _fast_tower(self, stream: Stream) -> FusedTower | Int8Tower:
        if stream not in self._fast:
            tower, bits = self._tower(stream), sum_bits()
            if self._is_int8 and self.ranges is not None and bits is not None:
                ranges = self.ranges.coarse if stream == "coarse" else self.ranges.fine
                self._fast[stream] = Int8Tower(tower, ranges, self.view, bits)
            else:
                self._fast[stream] = FusedTower(tower, self._dtype)
        return self._fast[stream]

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; a prompt is in vocabulary if at least half of its content words are, and it is English."""
        ids, mask, truncated = self.tokenize(prompts)
        if self.prompts_at_once == 1:
            tokens = self.text(ids, mask)
        else:
            states = packed_states(self.text, [row[real] for row, real in zip(ids, mask, strict=True)])
            tokens = nn.utils.rnn.pad_sequence(states, batch_first=True)
        read = [self.tokenizer.encode(tokenizable(prompt)) for prompt in prompts]
        known = [is_in_vocabulary(one) and is_english(prompt) for one, prompt in zip(read, prompts, strict=True)]
        return PromptTokens(tokens, mask, truncated, known, list(map(has_unread_word, read)))

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Tensor:
        """Return sentence embeddings of unit length, float32 (texts, D)."""
        ids, mask, _ = self.tokenize(texts)
        return self.text.sentence(self.text(ids, mask), mask)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor, list[bool]]:
        """Return ids int64 (batch, L), mask bool (batch, L), and which prompts were cut to fit."""
        rows = [self.tokenizer.encode(tokenizable(prompt)).ids for prompt in prompts]
        ids, mask, truncated = padded_ids(rows, prompts, self.text.config.length, pad=0, keep_last=True)
        return ids.to(self.device), mask.to(self.device), truncated
