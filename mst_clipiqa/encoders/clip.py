"""Two image encoders and a text encoder in the style of CLIP as one frozen pair.

The towers are loaded by ``load.py``; ``families.py`` lists what they may be. In the paper both are CLIP models, and the
text encoder is the coarse (patch-32) model's. Source: section 3.1; CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch import Tensor, nn

from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.described import described
from mst_clipiqa.encoders.files import EncoderFiles, find, sha256
from mst_clipiqa.encoders.fused_block import can_fuse
from mst_clipiqa.encoders.int8_weights import SumBits, sum_bits
from mst_clipiqa.encoders.load import TextSide, load_image_side, load_text_side
from mst_clipiqa.encoders.pair import Chunking
from mst_clipiqa.encoders.precision import DTYPES, INT8, Precision, resolve_precision
from mst_clipiqa.encoders.text_source import check_space, load_separate_text
from mst_clipiqa.encoders.threads import ENCODERS
from mst_clipiqa.encoders.views import grid_of, read_view
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.model.mstfe import MSTFE, Stream
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model.shapes import CropBatch, Embeddings, ViewBatch

CHUNK = 16
"""Images per chunk."""
CHUNK_CUDA = 64
"""The same on a CUDA card, which smaller chunks would leave partly idle."""
CHUNK_FUSED = 4
"""The same in fused float32."""
CHUNK_INT8 = 4
"""The same in int8: the weights of a block are read once for four images, whose own numbers stay in the caches."""


class CLIPPair:
    """Two image encoders and a text encoder as an ``EncoderPair``."""

    def __init__(self, mstfe: MSTFE, text: TextSide, source: str, sha256: str, dim_fine: int | None = None) -> None:
        """Take built parts; ``load_clip_pair`` builds them from files."""
        self.mstfe = mstfe
        self.text = text
        self.source = source
        self.sha256 = sha256
        self._precision = Precision("fp32")
        self.view = mstfe.view
        self.dim = text.dim
        self.dim_fine = dim_fine or text.dim
        self.text_dim = text.text_dim
        self.start_tokens = text.start_tokens
        self.language: str | None = None
        self.encode_prompts = text.encode_prompts
        self.encode_templates = text.encode_templates

    def to(self, device: torch.device | str, precision: str = "fp32") -> CLIPPair:
        """Move all encoders to a device, the image encoders in a precision; returns itself.

        Args:
            device: where to.
            precision: fp32, bf16, fp16, int8, auto, or the ``precision`` of a pair. On a CPU that is not faster in
                bf16, auto is float32, in fused blocks if that is faster. A pair in int8 that moves to a
                device without int8 computes as auto does there. How many tokens are merged stays as it is.

        Raises:
            UsageError: int8 for a pair in another precision, and the device is not a CPU that has it, or an encoder is
                not CLIP-like.
        """
        asked = replace(Precision.parse(precision), merged=self._precision.merged)
        where = torch.device(device)
        bits = sum_bits() if asked.format == INT8 and where.type == "cpu" else None
        if asked.format == INT8 and not asked.in_pairs and asked != self._precision:  # which only moves
            if bits is None:
                raise UsageError("Expected a CPU with AVX2 for precision int8, got none: choose auto.")
            if not self.is_clip_like:
                raise UsageError(f"Expected CLIP-like encoders for int8, got {self.source}: choose auto.")
        self._precision = self._nearest(asked, where, bits)
        self.mstfe.to(where).compute_in(DTYPES.get(self._precision.format, torch.float32))
        for tower in self._clips:
            tower.sum_bits, tower.fuses_fp32 = bits, self._precision.fused
            tower.fuse()
        self.text.to(where)
        return self

    def _nearest(self, asked: Precision, where: torch.device, bits: SumBits | None) -> Precision:
        """Return the precision nearest to the one asked for that this pair has on a device; ``bits`` are for int8."""
        if bits is not None:
            return replace(asked, in_pairs=bits == 16)
        if asked.format == INT8:  # as it was on a CPU
            return Precision(resolve_precision("auto", where), merged=asked.merged)
        if asked.format == "auto":
            fastest = resolve_precision("auto", where)
            asked = replace(asked, format=fastest, fused=fastest == "fp32")
        return replace(asked, fused=asked.fused and where.type == "cpu" and self._can_fuse())

    @property
    def precision(self) -> str:
        """What the image encoders compute in: the text of a ``Precision``, part of every cache key."""
        return str(self._precision)

    @property
    def prompts_at_once(self) -> int:
        """How many prompts ``encode_prompts`` may get at once without any changing the states of another by a bit."""
        return self.text.prompts_at_once

    @property
    def towers(self) -> tuple[nn.Module, nn.Module]:
        """The coarse and the fine encoder."""
        return self.mstfe.encoder_coarse, self.mstfe.encoder_fine

    @property
    def is_clip_like(self) -> bool:
        """Whether both image encoders are CLIP-like, which can be exported and compute in int8."""
        return len(self._clips) == len(self.towers)

    @property
    def _clips(self) -> list[VisionTower]:
        return [tower for tower in self.towers if isinstance(tower, VisionTower)]

    def _can_fuse(self) -> bool:
        """Whether float32 is faster with fused blocks on this CPU."""
        blocks = (tower.clip.vision_model.encoder.layers[-1] for tower in self._clips)
        return self.is_clip_like and all(can_fuse(block, torch.float32) for block in blocks)

    def merge_tokens(self, count: int) -> CLIPPair:
        """Merge tokens in each block of the image encoders (``merging.py``); ``precision`` says so. Returns itself.

        Args:
            count: tokens per block of the encoder with more of them; the other merges as large a share of its own.

        Raises:
            UsageError: an encoder is not CLIP-like, or would keep too few tokens.
        """
        if not self.is_clip_like:
            raise UsageError(f"Expected CLIP-like encoders for --merge, got {self.source}: leave it out.")
        most = max(tower.patches for tower in self._clips)
        if not 0 <= count <= most // 2:
            raise UsageError(f"Expected at most half of {most} tokens per block for --merge, got {count}: lower it.")
        for tower in self._clips:
            tower.merge_tokens(round(count * tower.patches / most))
        self._precision = replace(self._precision, merged=count)
        return self

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.text.device

    @property
    def chunking(self) -> Chunking:
        """Chunks of one fixed shape, because kernels round differently for different shapes.

        In plain fp32 on a CPU each chunk has one image, so nothing has to be filled up. Integers are not rounded,
        and fused blocks in fp32 round an image alike in any chunk.
        """
        if self._precision.fused:
            return Chunking(CHUNK_FUSED, False, None)
        if self._precision.format == INT8:
            return Chunking(CHUNK_INT8, False, None)
        if self._precision.format == "fp32" and self.device.type == "cpu":
            return Chunking(1, True, None)
        return Chunking(CHUNK_CUDA if self.device.type == "cuda" else CHUNK, True, ENCODERS)

    def encode_chunk(self, stream: Stream, views: ViewBatch | CropBatch) -> Embeddings:
        """Return f_c or f_f, float32 (n, D) or (n, D_f), of uint8 views (n, 3, S, S) or (n, 1, 3, C, C)."""
        features: Embeddings = self.mstfe(stream, views)
        return features

    def embed(self, stream: Stream, pixels: Tensor) -> Embeddings:
        """Return f_c or f_f of normalised pixels, float (n, K, 3, S, S), with gradients to them.

        Raises:
            UsageError: the encoders compute in less than fp32, where gradients are too coarse to follow.
        """
        if self.precision != "fp32":
            raise UsageError(f"Expected encoders in fp32 for gradients, got {self.precision}: load them in fp32.")
        return self.mstfe.embed(stream, pixels)


def load_clip_pair(
    coarse: str, fine: str, source: str, dtype: torch.dtype = torch.float32, text: str | None = None
) -> CLIPPair:
    """Return two models as a pair, on the CPU.

    Args:
        coarse: local folder or hub id of the model with fewer patches per view; its text encoder is used.
        fine: the same for more patches.
        source: the name by which a saved model refers to this pair.
        dtype: what the image encoders compute in; each is converted before the next is read, to save memory.
        text: local folder or hub id of another text encoder for the same images; None for the coarse model's own.

    Raises:
        ModelError: a file is missing or broken, or the models do not make a pair.
    """
    files = find(coarse, text=text is None), find(fine, text=False)
    view = _check_pair(*files)
    sides = load_image_side(files[0], dtype), load_image_side(files[1], dtype)
    if text is None:
        tower = load_text_side(files[0])
        check_space(tower, sides[0], coarse, coarse)
        about, more = described(files, sides, tower), []
    else:
        separate = load_separate_text(text, sides[0], coarse, dtype)
        tower, more = separate.tower, separate.weights
        about = json.dumps([separate.kind, described(files, sides, tower)])
    digest = sha256([*(f.weights for f in files), *more], [about])
    return CLIPPair(MSTFE(sides[0].tower, sides[1].tower, view), tower, source, digest, sides[1].dim)


def _check_pair(coarse: EncoderFiles, fine: EncoderFiles) -> ViewSpec:
    """Return the view of two models; ModelError if they cannot be fused, or an activation does not fit the weights."""
    views = [read_view(f.folder, f.config, f.family, f.source) for f in (coarse, fine)]
    grids = [grid_of(f.config, f.family, view, f.source) for f, view in zip((coarse, fine), views, strict=True)]
    if coarse.family.pooling is None:
        raise ModelError(
            f"Expected a coarse encoder that shares a space with texts, got {coarse.source} ({coarse.family.name}): "
            "give it as the fine encoder."
        )
    if grids[0] > grids[1] or (grids[0] == grids[1] and coarse.family == fine.family):
        # Without a text tower, the fine encoder cannot be the coarse one.
        advice = "swap the two encoders" if fine.family.pooling else "choose a fine encoder with more patches"
        raise ModelError(
            f"Expected a coarse encoder with fewer patches along a side of its view than the fine one, "
            f"got {grids[0]:g} and {grids[1]:g}: {advice}."
        )
    for files in (coarse, fine):
        if files.family.name == "clip":
            _check_activation(files)
    return views[0] if views[0] == views[1] else replace(views[0], fine="own", own=views[1])


def _check_activation(files: EncoderFiles) -> None:
    """Raise ModelError for a wrong activation: with gelu, OpenAI's weights load and run, but the results are wrong."""
    acts = {
        part: (files.config.get(part) or {}).get("hidden_act", "quick_gelu")
        for part in ("vision_config", "text_config")
    }
    if len(set(acts.values())) > 1:
        raise ModelError(
            f"Expected one activation in both towers of {files.source}, "
            f"got {acts['vision_config']} and {acts['text_config']}: restore its config.json."
        )
    origin = str(files.config.get("_name_or_path") or files.source)
    act = acts["vision_config"]
    if (origin.startswith("openai/") or files.source.startswith("openai/")) and act != "quick_gelu":
        raise ModelError(
            f"Expected hidden_act 'quick_gelu' for OpenAI's weights ({files.source}), "
            f"got {act!r}: restore its config.json."
        )
    if act not in ("quick_gelu", "gelu"):
        raise ModelError(f"Expected hidden_act 'quick_gelu' or 'gelu' in {files.source}, got {act!r}.")
