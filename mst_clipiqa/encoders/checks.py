"""Checks of configs and weights from a file before anything is built from them."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from torch import Tensor, nn

from mst_clipiqa.errors import ModelError, nearest, shown
from mst_clipiqa.model.preprocess import ViewSpec

_C = TypeVar("_C")

MOST = 2**16
"""The largest size or count accepted in a config: far beyond any real model, small enough to stop an attack."""


def built(kind: type[_C], data: Any, path: Path, inside: str = "") -> _C:
    """Return a dataclass from JSON, with lists for tuples; fields that are dataclasses or dicts are checked elsewhere.

    Raises:
        ModelError: a key is unknown or missing, or a value is not of its field's type; it says what it is inside.
    """
    if not isinstance(data, dict):
        what = inside or kind.__name__
        raise ModelError(f"Expected an object for {what} in {path}, got {shown(data)}: save the model again.")
    place = f"{inside} of {path}" if inside else str(path)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ModelError(f"Expected known keys in {place}, got {shown(key)}{nearest(str(key), fields)}.")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ModelError(f"Expected the key {name!r} in {place}, but it is missing.")
    hints = get_type_hints(kind)
    for name, value in data.items():
        if not fits(value, hints[name]):
            wanted = str(fields[name].type).replace("typing.", "")
            got = repr(value)[:60]
            raise ModelError(f"Expected {name} to be {wanted}, got {got}, in {place}: save the model again.")
    return kind(**data)


def built_view(data: Any, path: Path) -> ViewSpec:
    """Return a view from JSON, as ``built`` does."""
    if isinstance(data, dict) and (own := data.get("own")) is not None:
        if not isinstance(own, dict) or own.get("own") is not None:
            raise ModelError(f"Expected one view of the fine stream's own in {path}, got {shown(own)}.")
        data = data | {"own": built_view(own, path)}
    view = built(ViewSpec, data, path)
    mean, std = ((float(a), float(b), float(c)) for a, b, c in (view.mean, view.std))
    return dataclasses.replace(view, mean=mean, std=std)


def check_shapes(part: nn.Module, name: str, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Raise a ModelError if a folder lacks one of a module's weights, NAME.*, or has it in another shape."""
    for key, tensor in part.state_dict().items():
        found = weights.get(f"{name}.{key}")
        if found is None:
            raise ModelError(f"Expected the weight {name}.{key} in {folder}, but it is missing: save the model again.")
        if found.shape != tensor.shape:
            raise ModelError(
                f"Expected {name}.{key} of shape {tuple(tensor.shape)} in {folder}, got {tuple(found.shape)}: "
                "config.json and model.safetensors are not of one model."
            )


@contextmanager
def expecting(what: str, advice: str = "fetch it again") -> Iterator[None]:
    """Turn what a reader raises on foreign or damaged content into a ModelError: "Expected WHAT, got ...: ADVICE."."""
    try:
        yield
    except (ModelError, MemoryError):  # the latter says nothing about the file
        raise
    except Exception as error:  # on bad files, readers raise nearly every type there is
        raise ModelError(f"Expected {what}, got {shown(error)}: {advice}.") from error


def parse_json(data: bytes, path: Path) -> Any:
    """Return the content of a JSON file of a model folder; ModelError names ``path`` if it is damaged, or a key twice.

    Of a key that somebody wrote a second time, nobody knows which value is meant.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise ModelError(f"Expected each key once in {path}, got {shown(twice)} twice: remove one.")
        return found

    with expecting(f"JSON in {path}", "restore it, or start a new folder"):
        return json.loads(data, object_pairs_hook=once)


def load_weights(raw: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file's bytes; ModelError names ``path`` if they are broken or not finite."""
    if raw.startswith(b"version https://git-lfs"):
        raise ModelError(f"Expected safetensors in {path}, got a Git LFS pointer: fetch the file with git lfs pull.")
    with expecting(f"safetensors in {path}"):
        weights = safetensors.torch.load(raw)
    check_finite(weights, str(path))
    return weights


def load_pickled(path: Path, inside: str = "") -> dict[str, Tensor]:
    """Return the finite tensors of a file that ``torch.save`` wrote; no code in it is run.

    Args:
        path: of the file.
        inside: the key under which the tensors may be, such as "model_state_dict".

    Raises:
        ModelError: the file holds anything else, or cannot be read.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on foreign bytes the reader raises nearly every type there is
        kind = type(error).__name__
        raise ModelError(f"Expected plain tensors in {path}, got something else ({kind}): do not trust it.") from error
    if isinstance(state, dict) and isinstance(state.get(inside), dict):
        state = state[inside]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"Expected a dictionary of tensors in {path}, got another object: give a file of weights.")
    check_finite(state, str(path))
    return state


def check_finite(state: dict[str, Tensor], what: str) -> None:
    """Raise ModelError naming the first tensor of ``state`` that holds a NaN or an infinity."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"Expected finite weights in {what}, got NaN or infinity in {name}: fetch the file again.")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value from JSON is of a type; numbers are finite, and no bool is one."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:  # the allowed words are checked by the class itself
        return type(value) is str
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MOST:
            return False
        wanted = [args[0]] * len(value) if args[1:] == (...,) else list(args)
        return len(wanted) == len(value) and all(fits(*pair) for pair in zip(value, wanted, strict=True))
    if hint is float:
        return _is_number(value) and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) <= MOST
    return hint not in (str, bool, dict, type(None)) or type(value) is hint


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float
