"""How to train: numbers, each within its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mst_clipiqa.errors import UsageError, shown

MAX_SEED = 2**32 - 1
_WHOLE_BOUNDS = {"batch_size": (1, 1_000_000), "epochs": (1, 100_000), "patience": (1, 100_000), "seed": (0, MAX_SEED)}
_REAL_BOUNDS = {"weight_decay": 100.0, "ranking_weight": 1_000.0, "margin": 4.0}  # from 0; the scale is 4 wide


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are the flags of ``mst-clipiqa train``.

    Raises:
        UsageError: a number is out of bounds.
    """

    name: str
    learning_rates: tuple[float, ...]  # all are tried; the best on validation is kept
    weight_decay: float
    decoupled: bool  # AdamW rather than Adam
    batch_size: int
    epochs: int
    patience: int  # epochs without a better validation SRCC before a rate is abandoned
    cosine: bool  # short warm-up, then cosine decay to zero
    identity_start: bool  # W_c and W_f start as the identity if they are square, the gate at one half
    ranking_weight: float = 1.0  # lambda
    margin: float = 0.1  # on the scale 1..5
    on_scale: bool = False  # a prompt head starts at the mean rating and ends on the line that fits the ratings best
    seed: int = 0  # same seed and machine: same weights, bit for bit

    def __post_init__(self) -> None:
        """Check every number."""
        for name, (low, high) in _WHOLE_BOUNDS.items():
            check_whole(name, getattr(self, name), low, high)
        for name, most in _REAL_BOUNDS.items():
            check_real(name, getattr(self, name), most)
        if not self.learning_rates or not all(0 < rate <= 1 for rate in self.learning_rates):  # nan fails too
            got = ",".join(f"{rate:g}" for rate in self.learning_rates)
            raise UsageError(f"Expected learning_rates above 0, up to 1, got {shown(got)}: correct them.")


def check_whole(name: str, value: float, low: int, high: int = MAX_SEED) -> None:
    """Raise UsageError unless a setting is a plain int from ``low`` to ``high``, which a checkpoint can hold."""
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"Expected {name} to be a whole number from {low} to {high:,}, got {value}: correct it.")


def check_real(name: str, value: float, most: float) -> None:
    """Raise UsageError unless a setting is a number from 0 to ``most``."""
    if not math.isfinite(value) or not 0 <= value <= most:
        raise UsageError(f"Expected {name} to be a number from 0 to {most:g}, got {value}: correct it.")


PAPER = Recipe("paper", (5e-6,), 1e-3, False, 8, 20, 20, False, False)
"""The published recipe and loss (section 4.1), except that the epoch is selected on a validation part."""

FAST = Recipe("fast", (1e-3,), 1e-2, True, 128, 24, 6, True, True, on_scale=True)
"""Ours: the same loss from a zero-shot start, with fewer and larger steps, and scores on the scale of the ratings."""

RECIPES = {"paper": PAPER, "fast": FAST}
