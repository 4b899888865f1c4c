"""The towers of a model in the Hugging Face format, loaded through ``transformers`` and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, TypeAlias

import torch
import transformers
from torch import nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast, CLIPVisionModelWithProjection
from transformers.utils import logging as hf_logging

from mst_clipiqa.encoders.checks import check_finite, expecting
from mst_clipiqa.encoders.clip_text import CLIPText
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.files import EncoderFiles
from mst_clipiqa.encoders.pooled_vision import PooledTower
from mst_clipiqa.encoders.text_tower import TextTower
from mst_clipiqa.encoders.tokens import read_tokenizer
from mst_clipiqa.errors import ModelError

TextSide: TypeAlias = CLIPText | TextTower


class ImageHalf(nn.Module):
    """The image half of a model whose image tower is CLIP's, with the names of ``CLIPVisionModelWithProjection``."""

    def __init__(self, whole: Any) -> None:
        """Take the parts of a whole model; its text half can be freed."""
        super().__init__()
        # Some versions of transformers wrap AltCLIP's tower once more.
        self.vision_model = getattr(whole.vision_model, "vision_model", whole.vision_model)
        self.visual_projection, self.config = whole.visual_projection, whole.config.vision_config


@dataclass(frozen=True)
class ImageSide:
    """One image tower, loaded.

    Attributes:
        tower: normalised pixels to features.
        dim: the size of its features.
        config: what ``transformers`` built it from.
    """

    tower: VisionTower | PooledTower
    dim: int
    config: Any


def load_image_side(files: EncoderFiles, dtype: torch.dtype) -> ImageSide:
    """Return the image tower of a model, on the CPU, in eval mode.

    Args:
        files: of the model.
        dtype: what it computes in.

    Raises:
        ModelError: a file is missing or broken, or a weight is missing, misshapen or not finite.
    """
    family = files.family
    if family.name == "clip":
        clip = load_pretrained(CLIPVisionModelWithProjection, files)
        return ImageSide(VisionTower(clip).compute_in(dtype), clip.config.projection_dim, clip.config)
    whole = load_pretrained(getattr(transformers, family.model), files)
    if family.fast:
        half: Any = ImageHalf(whole)
        return ImageSide(VisionTower(half).compute_in(dtype), _out_features(half.visual_projection), half.config)
    model = whole if family.pooling is None else whole.vision_model
    if not getattr(model.config, "vision_use_head", True):
        raise ModelError(f"Expected an image tower with a pooling head in {files.source}, got one without.")
    patch = model.config.patch_size if family.name == "siglip2" else None
    tower = PooledTower(model, patch).compute_in(dtype)
    return ImageSide(tower, model.config.hidden_size, model.config)


def load_text_side(files: EncoderFiles) -> TextSide:
    """Return the text tower of a model, on the CPU, frozen.

    Raises:
        ModelError: the model has none, a file is missing or broken, or a weight is missing, misshapen or not finite.
    """
    family = files.family
    if family.name == "clip":
        return CLIPText(load_pretrained(CLIPTextModelWithProjection, files), _clip_tokenizer(files))
    if family.pooling is None:
        raise ModelError(
            f"Expected an encoder with a text tower, got {files.source} ({family.name}), which has none: "
            "give it as the fine encoder."
        )
    whole = load_pretrained(getattr(transformers, family.model), files)
    body = whole.text_model
    siglip = family.pooling == "last"
    project: nn.Module = body.head if siglip else whole.text_projection
    config = body.config
    # XLM-R counts positions from the padding's id on, so that the first ones are never used.
    unused = config.pad_token_id + 1 if family.name == "altclip" else 0
    tokenizer = read_tokenizer(
        files.folder,
        length=config.max_position_embeddings - unused,
        words=config.vocab_size,
        pad=None if siglip else config.pad_token_id,
        siglip=siglip,
    )
    return TextTower(body, project, family.pooling, tokenizer, _out_features(project))


def load_pretrained(kind: Any, files: EncoderFiles, **more: Any) -> Any:
    """Return a model of ``transformers``; ModelError if a weight is missing, misshapen or not finite."""
    how = {"local_files_only": True, "output_loading_info": True, "ignore_mismatched_sizes": True, **more}
    what = "CLIP" if files.family.name == "clip" else files.family.name
    try:
        with quiet():
            model, info = kind.from_pretrained(str(files.folder), dtype=torch.float32, **how)
    except UnpicklingError as error:
        raise ModelError(
            f"Expected plain tensors in {files.weights}, got a pickle of something else: do not trust it."
        ) from error
    except Exception as error:  # on bad files the readers raise almost any type
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"Expected {what} weights in {files.weights}, got {reason}: fetch the file again.") from error
    if info["mismatched_keys"]:
        name, found, wanted = sorted(info["mismatched_keys"])[0]
        raise ModelError(
            f"Expected {what} weights in {files.weights} of the sizes in config.json, got {name} of {tuple(found)} for "
            f"{tuple(wanted)}: fetch both files again."
        )
    if info["missing_keys"]:
        first = sorted(info["missing_keys"])[0]
        raise ModelError(
            f"Expected {first} in {files.weights}, which lacks it and {len(info['missing_keys']) - 1} more."
        )
    check_finite(model.state_dict(), str(files.weights))
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
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


def _clip_tokenizer(files: EncoderFiles) -> CLIPTokenizerFast:
    with expecting(f"CLIP's tokenizer in {files.folder}", "fetch its files again"):
        return CLIPTokenizerFast.from_pretrained(str(files.folder), local_files_only=True)


def _out_features(project: nn.Module) -> int:
    if not isinstance(project, nn.Linear):
        raise ModelError(f"Expected a linear projection, got {type(project).__name__}.")
    return project.out_features
