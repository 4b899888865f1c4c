"""A text encoder that is named apart from the image encoders: ``--text-encoder``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mst_clipiqa.encoders.files import fetch_model, find, locate
from mst_clipiqa.encoders.load import ImageSide, TextSide, load_image_side, load_text_side
from mst_clipiqa.encoders.sentence import MODULES, fetch_modules, find_modules, load_sentence_tower
from mst_clipiqa.errors import ModelError


@dataclass(frozen=True)
class SeparateText:
    """A text encoder, loaded.

    Attributes:
        tower: prompts to token states and embeddings.
        weights: the files of its weights.
        kind: its ``model_type``, or "sentence-transformers".
    """

    tower: TextSide
    weights: list[Path]
    kind: str


def load_separate_text(source: str, images: ImageSide, of: str, dtype: torch.dtype) -> SeparateText:
    """Return a text encoder that was trained into the space of an image encoder.

    Args:
        source: folder or hub id: a model of any family with a text tower, or the layout of sentence-transformers.
        images: the coarse image encoder.
        of: its source, for messages.
        dtype: what it computes in.

    Raises:
        ModelError: a file is missing or broken, or the encoder is of another space: its embeddings have another size,
            or it comes with an image encoder of its own that is not this one.
    """
    folder = locate(source, lambda repo, fetch: fetch_modules(fetch) or fetch_model(repo, fetch, True))
    if (folder / MODULES).is_file():
        tower, weights = load_sentence_tower(find_modules(folder, source))
        found = SeparateText(tower, weights, "sentence-transformers")
    else:
        files = find(source)
        found = SeparateText(load_text_side(files), [files.weights], files.family.name)
        if not _equal(images.tower, load_image_side(files, dtype).tower):
            raise ModelError(
                f"Expected a text encoder of the space of {of}, got {source}, which belongs to an image encoder of its "
                "own: give that as the coarse encoder."
            )
    check_space(found.tower, images, source, of)
    return found


def check_space(text: TextSide, images: ImageSide, source: str, of: str) -> None:
    """Raise ModelError if embeddings of texts and of images differ in size."""
    if text.dim != images.dim:
        raise ModelError(
            f"Expected text embeddings of size {images.dim}, as those of the images of {of}, got {text.dim} from "
            f"{source}: the two are not of one space."
        )


def _equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
