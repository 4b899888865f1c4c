"""How weights are stored: large matrices as int8 with a scale per row, everything else in float16.

Layers need all of their weights for every view or prompt, so these are unpacked once. Of the embeddings of words, a
prompt needs a few rows: they stay as they are stored, in a quarter of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mst_clipiqa.errors import ModelError

SCALE = ".row_scale"
"""Appended to the name of an int8 tensor: float16 (rows, 1, ...), by which its rows are multiplied."""

_LEAST = 2**15  # numbers in a tensor that is worth an int8 copy
_LEVELS = 127
_ROW = 64  # numbers in a row that can share a scale; depthwise kernels are smaller


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a float32 state dict as it is stored: rows of large tensors are rounded to the nearest of 255 levels."""
    out = {}
    for name, tensor in state.items():
        if tensor.ndim > 1 and tensor.numel() >= _LEAST and tensor[0].numel() >= _ROW:
            highest = tensor.flatten(1).abs().amax(1).view(-1, *[1] * (tensor.ndim - 1))
            scale = (highest / _LEVELS).clamp(min=2**-20).half()
            out[name] = (tensor / scale.float()).round().clamp(-_LEVELS, _LEVELS).to(torch.int8).contiguous()
            out[name + SCALE] = scale
        else:
            out[name] = tensor.half().contiguous() if tensor.is_floating_point() else tensor
    return out


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 state dict of what ``packed`` returns; ModelError if a scale does not fit its tensor."""
    out = {}
    for name, tensor in stored.items():
        scale = scale_of(stored, name)
        if scale is not None:
            out[name] = tensor.float() * scale.float()
        elif not name.endswith(SCALE):
            out[name] = tensor.float() if tensor.is_floating_point() else tensor
    return out


def scale_of(stored: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the scales of a tensor's rows; None if it is stored without, ModelError if they do not fit it."""
    tensor, scale = stored[name], stored.get(name + SCALE)
    if scale is not None and scale.shape != (*tensor.shape[:1], *[1] * (tensor.ndim - 1)):
        raise ModelError(f"Expected one scale per row of {name}, got {tuple(scale.shape)}: fetch the file again.")
    return scale


class StoredEmbedding(nn.Module):
    """What ``nn.Embedding`` returns for the unpacked rows, which are unpacked one by one. Its state is theirs."""

    rows: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor, scale: Tensor) -> None:
        """Take rows, int8 (n, width), and their scales, float16 (n, 1)."""
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids, float32 (*ids, width)."""
        return self.rows[ids].float() * self.scale[ids].float()

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.rows.float() * self.scale.float()
