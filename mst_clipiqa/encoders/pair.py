"""What a pair of encoders is, and how a batch goes through one.

A pair computes one chunk of one stream and nothing more. ``encode_views`` and ``encode_stream`` cut a batch into the
chunks that the pair asks for, encode them in parallel and put the features together again.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mst_clipiqa.encoders.precision import without_tf32
from mst_clipiqa.encoders.threads import map_in_parallel
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model.shapes import (
    CoarseEmbeddings,
    CropBatch,
    Embeddings,
    FineEmbeddings,
    TokenMask,
    TokenStates,
    ViewBatch,
)


@dataclass(frozen=True)
class PromptTokens:
    """What the prompt head sees of a batch of prompts.

    Attributes:
        tokens: T, float32 (batch, L, text_dim): last hidden states of the text encoder.
        mask: m, bool (batch, L): True for real tokens, False for padding.
        truncated: whether each prompt was longer than the encoder reads.
        in_vocabulary: whether the text encoder was trained on the words of each prompt, or on at least half of them.
        unread: for each prompt, whether it was not trained on some of the words; empty if that is not known.
    """

    tokens: TokenStates
    mask: TokenMask
    truncated: list[bool]
    in_vocabulary: list[bool]
    unread: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Chunking:
    """How a pair wants its batches divided.

    Attributes:
        size: images per chunk, at most.
        fixed: whether every chunk has ``size`` images, the last one filled up. Some kernels round differently for
            different batch shapes; with one fixed shape an image's features are the same alone, in any batch and in
            any order. If not, chunks are smaller where some cores would otherwise get none.
        threads: how many chunks of a stream are encoded at once, at most; they share the cores of a CPU. None: each
            chunk is encoded on one core, and there are as many threads as cores.
    """

    size: int
    fixed: bool
    threads: int | None


@runtime_checkable
class EncoderPair(Protocol):
    """Two frozen image encoders and a text encoder that share one embedding space."""

    @property
    def view(self) -> ViewSpec:
        """How images become pixels for this pair."""

    @property
    def dim(self) -> int:
        """D, the size of f_c and of text embeddings."""

    @property
    def dim_fine(self) -> int:
        """D_f, the size of f_f; D in the paper."""

    @property
    def text_dim(self) -> int:
        """The width of T; the prompt head needs it to equal D."""

    @property
    def start_tokens(self) -> int:
        """The number of tokens before a prompt's first word."""

    @property
    def language(self) -> str | None:
        """The only language that the text encoder reads, in English; None if it reads several, or that is not known."""

    @property
    def source(self) -> str:
        """The name or folders that load this pair again."""

    @property
    def sha256(self) -> str:
        """The hash of everything that decides the features of the pair, such as weights and tokenizer, hexadecimal."""

    @property
    def device(self) -> torch.device:
        """Where views must be to be encoded."""

    @property
    def precision(self) -> str:
        """What the image encoders compute in, such as "fp32" or "onnx-int8"; part of every cache key."""

    @property
    def chunking(self) -> Chunking:
        """How batches are divided before ``encode_chunk`` gets them."""

    def encode_chunk(self, stream: Stream, views: ViewBatch | CropBatch) -> Embeddings:
        """Return the features of one chunk; called from several threads at once, in inference mode.

        Args:
            stream: which of the two image encoders to use.
            views: uint8 on ``device``, (n, 3, S, S); the fine stream's native crops or own view, (n, K, 3, C, C).

        Returns:
            f_c or f_f, float32 (n, D) or (n, D_f).
        """

    @property
    def prompts_at_once(self) -> int:
        """How many prompts ``encode_prompts`` can take at once without changing a bit of each other's states."""

    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return the token states of prompts; any text can be encoded."""

    def encode_templates(self, texts: list[str]) -> Embeddings:
        """Return projected text embeddings of unit length, float32 (texts, D)."""


def encode_views(
    pair: EncoderPair, coarse: ViewBatch, fine: CropBatch | None = None
) -> tuple[CoarseEmbeddings, FineEmbeddings]:
    """Return the features of a batch of views.

    Args:
        pair: the encoders.
        coarse: uint8 on the pair's device, (batch, 3, S, S).
        fine: native crops or own views, uint8 (batch, K, 3, C, C); None if the fine stream sees the coarse views.

    Returns:
        f_c, f_f: float32 (batch, D) and (batch, D_f), on the pair's device.
    """
    # Crops first: they take longest, and cores that are done with them share the rest.
    f_f, f_c = encode_batches(pair, ("fine", coarse if fine is None else fine), ("coarse", coarse))
    return f_c, f_f


def encode_stream(pair: EncoderPair, stream: Stream, views: ViewBatch | CropBatch) -> Embeddings:
    """Return the features of one stream, float32 (batch, D): what ``encode_views`` returns for it."""
    return encode_batches(pair, (stream, views))[0]


@torch.inference_mode()
def encode_batches(pair: EncoderPair, *streams: tuple[Stream, Tensor]) -> list[Embeddings]:
    """Return the features of several batches, each of one stream; at least one batch, and an image in each.

    Each batch has a shape that ``encode_chunk`` takes; batches may differ in their number of images and of crops.

    All chunks share one pool, because threads that share a chunk wait for each other at every product.
    """
    chunking = pair.chunking
    chunks = [_chunks(views, chunking) for _, views in streams]
    tasks = [(stream, chunk) for (stream, _), own in zip(streams, chunks, strict=True) for chunk in own]
    most = min(chunking.threads, len(tasks) // len(streams)) if chunking.threads else torch.get_num_threads()
    exact = pair.device.type == "cuda" and pair.precision.startswith("fp32")
    with without_tf32() if exact else nullcontext():
        features = iter(map_in_parallel(pair.device, lambda task: pair.encode_chunk(*task), tasks, most))
    rows = [torch.cat([next(features) for _ in own]) for own in chunks]
    return [f[: len(views)] for f, (_, views) in zip(rows, streams, strict=True)]


def _chunks(views: ViewBatch | CropBatch, chunking: Chunking) -> list[Tensor]:
    each = math.ceil(len(views) / (chunking.threads or torch.get_num_threads()))
    *whole, last = torch.split(views, chunking.size if chunking.fixed else min(chunking.size, each))
    missing = chunking.size - len(last) if chunking.fixed else 0
    return [*whole, torch.cat([last, last[:1].expand(missing, *last.shape[1:])]) if missing else last]
