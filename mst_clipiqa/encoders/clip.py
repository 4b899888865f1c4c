"""Two CLIP models as one frozen pair, loaded through ``transformers`` and checked.

The image encoders are in ``clip_vision.py``; the text encoder, in ``clip_text.py``, is the coarse (patch-32) model's.
Source: section 3.1; CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast, CLIPVisionModelWithProjection
from transformers.utils import logging as hf_logging

from mst_clipiqa.encoders.checks import check_finite
from mst_clipiqa.encoders.clip_files import ClipFiles, find, sha256
from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.pair import Chunking
from mst_clipiqa.encoders.precision import DTYPES
from mst_clipiqa.encoders.threads import ENCODERS
from mst_clipiqa.errors import ModelError, UsageError, shown
from mst_clipiqa.model.mstfe import MSTFE, Stream
from mst_clipiqa.model.preprocess import CLIP_MEAN, CLIP_STD, ViewSpec
from mst_clipiqa.model.shapes import Embeddings, ViewBatch

Triple: TypeAlias = tuple[float, float, float]

_DECISIVE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim", "hidden_act"),
    *("image_size", "patch_size", "layer_norm_eps", "vocab_size", "max_position_embeddings"),
)
"""Keys of config.json that decide what a model computes."""
CHUNK = 16
"""Images per chunk."""


class CLIPPair:
    """Two CLIP models as an ``EncoderPair``: image encoders of both, text encoder of the coarse one."""

    def __init__(self, mstfe: MSTFE, text: CLIPText, source: str, sha256: str) -> None:
        """Take built parts; ``load_clip_pair`` builds them from files."""
        self.mstfe = mstfe
        self.text = text
        self.source = source
        self.sha256 = sha256
        self.precision = "fp32"
        self.view = mstfe.view
        self.dim = text.dim
        self.text_dim = text.text_dim
        self.encode_prompts = text.encode_prompts
        self.encode_templates = text.encode_templates

    def to(self, device: torch.device | str, precision: str = "fp32") -> CLIPPair:
        """Move all encoders to a device, the image encoders in a precision of ``DTYPES``; returns itself."""
        self.mstfe.to(device).compute_in(DTYPES[precision])
        self.text.model.to(device=device)
        self.precision = precision
        return self

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        device: torch.device = self.text.model.device
        return device

    @property
    def chunking(self) -> Chunking:
        """Chunks of one fixed shape, because kernels round differently for different shapes.

        In fp32 a CPU is as fast with one image per core as with many, so nothing has to be filled up.
        """
        if self.precision == "fp32" and self.device.type == "cpu":
            return Chunking(1, True, None)
        return Chunking(CHUNK, True, ENCODERS)

    def encode_chunk(self, stream: Stream, views: ViewBatch) -> Embeddings:
        """Return f_c or f_f, float32 (n, D), of uint8 views (n, 3, S, S)."""
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


def load_clip_pair(coarse: str, fine: str, source: str, dtype: torch.dtype = torch.float32) -> CLIPPair:
    """Return two CLIP models as a pair, on the CPU.

    Args:
        coarse: local folder or hub id of the model with the larger patch; its text encoder is used.
        fine: the same for the smaller patch.
        source: the name by which a saved model refers to this pair.
        dtype: what the image encoders compute in; each is converted before the next is read, to save memory.

    Raises:
        ModelError: a file is missing or broken, or the two models do not make a pair.
    """
    files = find(coarse), find(fine)
    _check_pair(*files)
    mean, std = _normalisation(files[0])
    size = (files[0].config.get("vision_config") or {}).get("image_size", 224)
    view = ViewSpec(size=size, mean=mean, std=std)
    patch32, patch16 = (VisionTower(_load(CLIPVisionModelWithProjection, f)).compute_in(dtype) for f in files)
    text = CLIPText(_load(CLIPTextModelWithProjection, files[0]), _tokenizer(files[0]))
    digest = sha256([f.weights for f in files], [_described(patch32, patch16, text)])
    return CLIPPair(MSTFE(patch32, patch16, view), text, source, digest)


def _described(coarse: VisionTower, fine: VisionTower, text: CLIPText) -> str:
    """Return what decides the features beside the weights: sizes and activations of the models, and the tokenizer.

    Files are not enough: a tokenizer is the same whichever of its files are there, and config.json holds notes too.
    """
    configs = [coarse.clip.config, fine.clip.config, text.model.config]
    sizes = [{key: value for key, value in config.to_dict().items() if key in _DECISIVE} for config in configs]
    tokenizer = json.loads(text.tokenizer.backend_tokenizer.to_str())
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    words = [tokenizer["model"]["vocab"], merges, tokenizer["normalizer"], tokenizer["pre_tokenizer"]]
    ends = [text.tokenizer.bos_token_id, text.tokenizer.eos_token_id]
    return json.dumps([sizes, words, ends], sort_keys=True)


def _tokenizer(files: ClipFiles) -> CLIPTokenizerFast:
    try:
        return CLIPTokenizerFast.from_pretrained(str(files.folder), local_files_only=True)
    except Exception as error:  # on bad files the readers raise almost any type
        raise ModelError(
            f"Expected CLIP's tokenizer in {files.folder}, got {shown(error)}: fetch its files again."
        ) from error


def _load(kind: Any, files: ClipFiles) -> Any:
    """Return the image or text half of a CLIP model; ModelError if a weight is missing, misshapen or not finite."""
    try:
        with _quiet():
            model, info = kind.from_pretrained(
                str(files.folder), local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
    except UnpicklingError as error:
        raise ModelError(
            f"Expected plain tensors in {files.weights}, got a pickle of something else: do not trust it."
        ) from error
    except Exception as error:  # on bad files the readers raise almost any type
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"Expected CLIP weights in {files.weights}, got {reason}: fetch the file again.") from error
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise ModelError(
            f"Expected {first} in {files.weights}, which lacks it and {len(info['missing_keys']) - 1} more."
        )
    check_finite(model.state_dict(), str(files.weights))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and its report of the half of the model that is not loaded."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _check_pair(coarse: ClipFiles, fine: ClipFiles) -> None:
    """Raise ModelError if two models cannot be fused, or an activation does not fit the weights."""
    dims = [f.config.get("projection_dim", 512) for f in (coarse, fine)]
    vision = [f.config.get("vision_config") or {} for f in (coarse, fine)]
    patches = [v.get("patch_size", 32) for v in vision]
    sizes = [v.get("image_size", 224) for v in vision]
    for name, pair in (("projection_dim", dims), ("patch_size", patches), ("image_size", sizes)):
        if not all(type(n) is int and n > 0 for n in pair):
            raise ModelError(f"Expected whole numbers for {name} in config.json, got {pair[0]!r} and {pair[1]!r}.")
    if dims[0] != dims[1]:
        raise ModelError(
            f"Expected two encoders with embeddings of one size, "
            f"got {dims[0]} in {coarse.source} and {dims[1]} in {fine.source}: give two of one size."
        )
    if patches[0] <= patches[1]:
        raise ModelError(
            f"Expected a coarse patch larger than the fine one, "
            f"got {patches[0]} and {patches[1]}: swap the two encoders."
        )
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"Expected two encoders that look at images of one size, got {sizes[0]} and {sizes[1]} pixels."
        )
    for files in (coarse, fine):
        _check_activation(files)


def _check_activation(files: ClipFiles) -> None:
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


def _normalisation(files: ClipFiles) -> tuple[Triple, Triple]:
    """Return mean and std from preprocessor_config.json if it exists, else CLIP's."""
    path = files.folder / "preprocessor_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        mean, std = (
            tuple(float(value) for value in config.get(name, given))
            for name, given in (("image_mean", CLIP_MEAN), ("image_std", CLIP_STD))
        )
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Expected JSON with three numbers each for image_mean and image_std in {path}, got {shown(error)}: "
            "fetch the file again."
        ) from error
