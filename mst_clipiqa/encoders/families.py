"""One table: the ``model_type`` of a config.json to how that family of encoders is read.

    clip, metaclip_2, altclip, chinese_clip   a CLIP image tower, which ours computes (``clip_vision.py``)
    siglip, siglip2, dinov2, dinov3_vit       transformers' own image tower, pooled (``pooled_vision.py``)

The text towers differ in what they pool: CLIP's end-of-text token, BERT's first one, SigLIP's last position. DINO has
none, so it can only be the fine stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.model.preprocess import ViewSpec

Pooling = Literal["end", "first", "last", "mean"]

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Family:
    """How the encoders of one ``model_type`` are read.

    Attributes:
        name: the ``model_type``.
        model: the class of ``transformers`` that holds all of its weights.
        fast: whether its image tower is CLIP's.
        pooling: which token state becomes the text's embedding; None without a text tower.
        view: how its images are made into pixels, unless its folder says otherwise.
        patch: side of a patch in pixels, unless config.json says otherwise.
        any_size: whether the image tower takes views of other sizes than config.json states.
    """

    name: str
    model: str
    fast: bool
    pooling: Pooling | None
    view: ViewSpec
    patch: int
    any_size: bool = False


@dataclass(frozen=True)
class NamedPair:
    """Two hub ids with a short name.

    Attributes:
        coarse, fine: the hub ids.
        licence: of the weights.
    """

    coarse: str
    fine: str
    licence: str


_CROP, _SQUASH = ViewSpec(), ViewSpec(squash=True)
_SIGLIP = ViewSpec(squash=True, mean=_HALF, std=_HALF)
_SIGLIP2 = ViewSpec(squash=True, mean=_HALF, std=_HALF, resample="bilinear")
_DINOV2 = ViewSpec(mean=_IMAGENET[0], std=_IMAGENET[1], shorter=256)
_DINOV3 = ViewSpec(mean=_IMAGENET[0], std=_IMAGENET[1], squash=True, resample="bilinear")

FAMILIES = {
    family.name: family
    for family in (
        Family("clip", "CLIPModel", True, "end", _CROP, 32),
        Family("metaclip_2", "MetaClip2Model", True, "end", _CROP, 32),
        Family("altclip", "AltCLIPModel", True, "first", _CROP, 32),
        Family("chinese_clip", "ChineseCLIPModel", True, "first", _SQUASH, 32),
        Family("siglip", "SiglipModel", False, "last", _SIGLIP, 16),
        Family("siglip2", "Siglip2Model", False, "last", _SIGLIP2, 16),
        Family("dinov2", "Dinov2Model", False, None, _DINOV2, 14, any_size=True),
        Family("dinov3_vit", "DINOv3ViTModel", False, None, _DINOV3, 16, any_size=True),
    )
}

PAIRS = {
    "openai": NamedPair("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16", "MIT"),
    "siglip2": NamedPair("google/siglip2-base-patch32-256", "google/siglip2-base-patch16-256", "Apache-2.0"),
    "metaclip2": NamedPair(
        "facebook/metaclip-2-worldwide-b32", "facebook/metaclip-2-worldwide-b16", "CC-BY-NC-4.0: no commercial use"
    ),
}
"""Short names for ``--encoders``; "openai" is the paper's pair."""


def family_of(config: dict[str, Any], source: str) -> Family:
    """Return the family of a config.json; ModelError if there is none for its ``model_type``."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ModelError(
            f"Expected a model_type of {', '.join(FAMILIES)} in {source}, got {shown(name)}: choose another model."
        )
    return FAMILIES[name]


def image_config(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """Return the part of a config.json that describes the image tower; what it lacks has its default."""
    found = config if family.pooling is None else config.get("vision_config")
    return found if isinstance(found, dict) else {}
