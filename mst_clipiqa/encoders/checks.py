"""Checks of what a file holds, before anything is built of it: values of a config, and weights."""

from __future__ import annotations

import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mst_clipiqa.errors import ModelError, shown

MOST = 2**16
"""Largest size or count that a config may name: far beyond any model of this kind, and small enough to refuse a lie."""


def misfit(kind: type, data: dict[str, Any]) -> str | None:
    """Return the first field whose value is not of its type, as "NAME to be TYPE, got VALUE"; None where all fit.

    A field whose name ends in "drop" is a probability: torch refuses any other, but only once it is used.

    Args:
        kind: a dataclass; fields of dataclass and dict types are left to whoever builds those.
        data: field -> value from JSON, lists standing for tuples.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in data and not _fits(data[field.name], hints[field.name]):
            wanted = str(field.type).replace("typing.", "")
            return f"{field.name} to be {wanted}, got {repr(data[field.name])[:60]}"
        if field.name.endswith("drop") and not 0 <= data.get(field.name, 0) <= 1:
            return f"{field.name} to be a probability, got {repr(data[field.name])[:60]}"
    return None


def load_weights(raw: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file's bytes; ModelError names ``path`` if they are broken or not finite."""
    try:
        weights = safetensors.torch.load(raw)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"Expected safetensors in {path}, got {shown(error)}: fetch it again.") from error
    check_finite(weights, str(path))
    return weights


def check_finite(state: dict[str, Tensor], what: str) -> None:
    """Raise ModelError naming the first tensor of ``state`` that holds a NaN or an infinity."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"Expected finite weights in {what}, got NaN or infinity in {name}: fetch the file again.")


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:  # which words it may be is for the one who knows what they mean
        return type(value) is str
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MOST:
            return False
        wanted = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        return len(wanted) == len(value) and all(_fits(*pair) for pair in zip(value, wanted, strict=True))
    if hint is float:
        return _is_number(value) and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) <= MOST
    return hint not in (str, bool, type(None)) or type(value) is hint


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float
