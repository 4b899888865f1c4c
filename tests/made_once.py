"""What takes long and hundreds of tests repeat in one process, kept by its content: parts of mini, and curves."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from mst_clipiqa.encoders.mini import folder, int8
from mst_clipiqa.encoders.mini.checks import check_tokenizer
from mst_clipiqa.encoders.mini.folder import MINI
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.train import build, curves
from mst_clipiqa.train.checkpoint import Epoch

_CONVOLUTIONS = 512  # mini has a hundred; tests have others
_OPERATORS: dict[Any, Any] = {}


def make_once(patch: pytest.MonkeyPatch) -> None:
    """Share tokenizers of equal files, convolutions in 8 bits of equal weights, curves of histories alike, and mini."""
    patch.setattr(folder, "load_mini_pair", _read_once(folder.load_mini_pair))
    patch.setattr(folder, "_tokenizer", lru_cache(8)(folder._tokenizer))
    patch.setattr(folder, "check_tokenizer", lru_cache(8)(check_tokenizer))
    made: dict[Any, Any] = {}
    new = int8._Int8Convolution

    def convolution(layer: nn.Conv2d, *how: Any) -> Any:
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        key = (_digest(layer.weight), _digest(layer.bias), geometry, how)
        if key not in made:
            if len(made) >= _CONVOLUTIONS:
                made.clear()
            made[key] = new(layer, *how)
        return made[key]

    patch.setattr(int8, "_Int8Convolution", convolution)
    patch.setattr(build, "draw_history", _drawn_once())


def collect_operators_once(patch: pytest.MonkeyPatch) -> None:
    """Let torch's exporter collect the operators of ONNX once, not anew for each tower: that takes two seconds."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        collect = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):  # a private class: another torch may have none, and takes its two seconds
        return
    collected = _OPERATORS.setdefault(ONNXRegistry, lru_cache(4)(collect))
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(collected))


def _read_once(read: Callable[[Path, str], MiniPair]) -> Any:
    """Read mini's files once, and give copies of what they hold: to unpack the weights takes longer."""
    kept: dict[Any, MiniPair] = {}

    def load_mini_pair(folder: Path = MINI, source: str = "mini") -> MiniPair:
        if folder != MINI:
            return read(folder, source)
        key = source, *((file.name, file.stat().st_mtime_ns) for file in sorted(folder.iterdir()))
        if key not in kept:
            kept[key] = read(folder, source)
        tokenizer = kept[key].tokenizer  # which nothing changes
        return copy.deepcopy(kept[key], {id(tokenizer): tokenizer})

    return load_mini_pair


def _drawn_once() -> Any:
    """Draw one history of a kind: rates, epochs and title are equal, and the same numbers are missing or not finite."""
    drawn: dict[Any, bytes] = {}

    def draw_history(history: Sequence[Epoch], title: str) -> bytes:
        numbers = (dataclasses.astuple(line) for line in history)
        odd = tuple(tuple(n if n is None or not math.isfinite(n) else 0 for n in line) for line in numbers)
        key = (title, str(odd), *((line.learning_rate, line.epoch) for line in history))
        if key not in drawn:
            drawn[key] = curves.draw_history(history, title)
        return drawn[key]

    return draw_history


def _digest(weight: Tensor | None) -> Any:
    if weight is None:
        return None
    array = weight.detach().contiguous().cpu().float().numpy()
    return array.shape, hashlib.blake2b(array.data).digest()
