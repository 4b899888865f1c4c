"""What loading mini takes longest over, kept by its content: hundreds of tests load it in one process."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import pytest
from torch import Tensor, nn

from mst_clipiqa.encoders.mini import int8, pair
from mst_clipiqa.encoders.mini.checks import check_tokenizer

_CONVOLUTIONS = 512  # mini has a hundred; tests have others


def make_once(patch: pytest.MonkeyPatch) -> None:
    """Share tokenizers of equal files, and convolutions in 8 bits of equal weights: neither is changed after."""
    patch.setattr(pair, "_tokenizer", lru_cache(8)(pair._tokenizer))
    patch.setattr(pair, "check_tokenizer", lru_cache(8)(check_tokenizer))
    made: dict[Any, Any] = {}
    build = int8._Int8Convolution

    def convolution(layer: nn.Conv2d, *how: Any) -> Any:
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        key = (_digest(layer.weight), _digest(layer.bias), geometry, how)
        if key not in made:
            if len(made) >= _CONVOLUTIONS:
                made.clear()
            made[key] = build(layer, *how)
        return made[key]

    patch.setattr(int8, "_Int8Convolution", convolution)


def _digest(weight: Tensor | None) -> Any:
    if weight is None:
        return None
    array = weight.detach().contiguous().cpu().float().numpy()
    return array.shape, hashlib.blake2b(array.data).digest()
