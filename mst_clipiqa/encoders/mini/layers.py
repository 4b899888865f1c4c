"""Layers whose weights come from a file: zeros until then, as drawing random numbers costs start-up time."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """A linear layer of zeros."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Convolution(nn.Conv2d):
    """A convolution of zeros."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
