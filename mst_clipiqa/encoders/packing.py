"""Whether a text encoder can map several prompts in one pass on this CPU, and how many.

Weights are then read from memory once for all prompts together, which is most of what a short prompt costs. oneDNN's
product rounds a row alike whatever other rows there are, if it has at least two; attention is of each prompt by
itself. So no prompt changes another's states.
"""

from __future__ import annotations

import torch

from mst_clipiqa.encoders.int8_weights import CAPABILITIES

PROMPTS_AT_ONCE = 16
"""Prompts per pass; more save little."""


def can_pack() -> bool:
    """Return whether products round a row alike beside any: by oneDNN they did when tried, with AVX2 and AVX-512."""
    has_it = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_it and torch.backends.cpu.get_cpu_capability() in CAPABILITIES
