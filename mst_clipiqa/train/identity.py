"""What identifies a training, so that none resumes from another one's checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mst_clipiqa.model.mst_clipiqa import Head
from mst_clipiqa.train.features import PairFeatures, RatedFeatures


def identity_of(training: RatedFeatures, validation: RatedFeatures, head: Head, recipe: Any) -> dict[str, Any]:
    """Return the values that identify a training.

    Args:
        training, validation: what it sees.
        head: "template" or "prompt".
        recipe: a dataclass.
    """
    rated = (training, validation)
    return {
        "recipe": asdict(recipe),
        "head": head,
        "images": [len(part) for part in rated],
        "targets": sha256_of(part.y for part in rated),
        "features": sha256_of(f for part in rated for f in (part.f_c, part.f_f)),
        "texts": sha256_of(t for part in rated for t in _texts(part)),
        "pairs": sha256_of(tensor for part in rated if part.pairs for tensor in _of_pairs(part.pairs)),
    }


def _texts(part: RatedFeatures) -> list[Tensor]:
    """Return the tensors that the head reads beside the features: templates, or the token states of all prompts."""
    if not len(part):
        return []
    text = part.text(torch.arange(len(part)))
    return [tensor for tensor in (text.templates, text.tokens, text.mask) if tensor is not None]


def _of_pairs(part: PairFeatures) -> list[Tensor]:
    """Return the features and texts of the images of pairs, and what people preferred."""
    rows = torch.cat([part.a, part.b])
    text = part.text(rows)
    read = (text.templates, text.tokens, text.mask)
    features = (part.f_c[rows], part.f_f[rows], part.preferred, part.strength)
    return [tensor for tensor in (*features, *read) if tensor is not None]


def sha256_of(tensors: Iterable[Tensor]) -> str:
    """Return the hash of the exact values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()
