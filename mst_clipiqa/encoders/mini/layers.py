"""Layers whose weights come from a file: zeros until then, as drawing random numbers costs start-up time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """A linear layer of zeros, whose weights can be put into the order of oneDNN's products.

    There is no second copy: what needs the plain order makes it again, bit for bit.
    """

    def pack(self) -> None:
        """Reorder the weights for ``product``; nothing happens if they are."""
        if not self.weight.is_mkldnn:
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
            self.weight = nn.Parameter(packed, requires_grad=False)

    def release(self) -> None:
        """Give the weights their plain order back; nothing happens if they have it."""
        if self.weight.is_mkldnn:
            self.weight = nn.Parameter(_plain(self.weight), requires_grad=False)

    def product(self, x: Tensor) -> Tensor:
        """Return ``forward`` of x from packed weights; of two or more rows, none changes another's rounding."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Return x, (..., in), mapped to (..., out)."""
        return F.linear(x, _plain(self.weight), self.bias)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy or pickle: plain weights, as packed ones can be neither copied nor pickled."""
        if not self.weight.is_mkldnn:
            return vars(self)
        plain = nn.Parameter(_plain(self.weight), requires_grad=False)
        return {**vars(self), "_parameters": {**self._parameters, "weight": plain}}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight.is_mkldnn:
            destination[prefix + "weight"] = _plain(self.weight.detach())

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def _plain(weight: Tensor) -> Tensor:
    return weight.to_dense() if weight.is_mkldnn else weight


class Convolution(nn.Conv2d):
    """A convolution of zeros."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
