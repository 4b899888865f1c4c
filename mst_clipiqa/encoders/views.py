"""The view of an image tower: from preprocessor_config.json if there is one, else its family's own."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.encoders.families import Family, image_config
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.model.preprocess import ViewSpec

_PILLOW: dict[int, Literal["bicubic", "bilinear"]] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def whole_number(config: dict[str, Any], name: str, default: int, source: str) -> int:
    """Return a size from a config; ModelError if it is not a whole number above 0."""
    found = config.get(name, default)
    if type(found) is not int or found < 1:
        raise ModelError(f"Expected a whole number for {name} in config.json of {source}, got {shown(found)}.")
    return found


def read_view(folder: Path, config: dict[str, Any], family: Family, source: str) -> ViewSpec:
    """Return how an image tower's images become pixels.

    Args:
        folder: holds preprocessor_config.json, unless it follows the family.
        config: config.json.
        family: of the tower.
        source: the name of the tower, for messages.

    Raises:
        ModelError: the file is broken, or asks for views that the tower does not take.
    """
    vision = image_config(config, family)
    if family.name == "siglip2":  # made for any aspect ratio; here its patches always form a square
        patch = whole_number(vision, "patch_size", family.patch, source)
        side = math.isqrt(whole_number(vision, "num_patches", 256, source)) * patch
    elif family.any_size:
        side = family.view.size
    else:
        side = whole_number(vision, "image_size", family.view.size, source)
    view = _of_file(folder / "preprocessor_config.json", dataclasses.replace(family.view, size=side), family)
    if view.size != side and not family.any_size:
        raise ModelError(
            f"Expected views of {side} pixels for {source}, got {view.size} in preprocessor_config.json: "
            "fetch both files again."
        )
    return view


def grid_of(config: dict[str, Any], family: Family, view: ViewSpec, source: str) -> float:
    """Return how many patches of an image tower fit along the side of its view: its granularity."""
    return view.size / whole_number(image_config(config, family), "patch_size", family.patch, source)


def _of_file(path: Path, default: ViewSpec, family: Family) -> ViewSpec:
    """Return the view that a file describes; the default for what it does not say."""
    with expecting(f"JSON with three numbers each for image_mean and image_std in {path}", "fetch the file again"):
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        mean, std = (
            tuple(float(value) for value in found.get(name, given))
            for name, given in (("image_mean", default.mean), ("image_std", default.std))
        )
        view = dataclasses.replace(default, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
        if "resample" in found:
            view = dataclasses.replace(view, resample=_PILLOW[found["resample"]])
        return view if family.name == "siglip2" else _sized(view, found)  # its file states patches instead of a size


def _sized(view: ViewSpec, found: dict[str, Any]) -> ViewSpec:
    """Return a view with the sizes of a file, in any of the forms that ``transformers`` has written."""
    size, crop = found.get("size"), found.get("crop_size")
    crop = crop.get("height") if isinstance(crop, dict) else crop
    if found.get("do_center_crop", not view.squash):
        shorter = size.get("shortest_edge", size.get("height")) if isinstance(size, dict) else size
        side = int(crop or shorter or view.size)
        longer = int(shorter or (side if crop else view.shorter or side))  # than the crop, if not equal
        return dataclasses.replace(view, squash=False, size=side, shorter=None if longer == side else longer)
    whole = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
    return dataclasses.replace(view, squash=True, size=int(whole or view.size), shorter=None)
