"""Whether a text encoder can map several prompts in one pass on this CPU, and how many.

The weights are then read from memory once for all prompts, and reading them is most of the cost of a short prompt.
oneDNN rounds each row of a product of two or more rows the same way, whatever the other rows are, and attention is
computed prompt by prompt. So no prompt changes the states of another.
"""

from __future__ import annotations

import torch

from mst_clipiqa.encoders.int8_weights import CAPABILITIES

PROMPTS_AT_ONCE = 16
"""Prompts per pass; more save little."""


def can_pack() -> bool:
    """Return whether a product rounds a row alike beside any others: oneDNN's did when tried, on AVX2 and AVX-512."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    has_it = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return has_it and torch.backends.cpu.get_cpu_capability() in CAPABILITIES
