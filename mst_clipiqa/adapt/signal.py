"""Where the right order comes from: ladders alone, or the mean of other models besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.model.mst_clipiqa import to_head
from mst_clipiqa.scoring.scorer import Scorer

_TORN = 0.8
"""Quantile of the teachers' disagreement; images above it teach nothing."""


@dataclass(frozen=True)
class Signal:
    """What adaptation learns from: ladders, and the models named as teachers."""

    teachers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the signal as the flag has it."""
        return f"teacher:{','.join(self.teachers)}" if self.teachers else "ladders"


def parse_signal(text: str) -> Signal:
    """Return the signal of "ladders" or "teacher:M1,M2"; UsageError for anything else."""
    kind, colon, names = text.partition(":")
    teachers = tuple(name.strip() for name in names.split(",") if name.strip())
    if text == "ladders" or (kind == "teacher" and colon and teachers):
        return Signal(teachers)
    raise UsageError(f"Expected --signal ladders or teacher:MODEL,MODEL, got {shown(text)}.")


def taught_by(signal: Signal, files: Sequence[Path], student: Scorer, target: str) -> Tensor | None:
    """Return the mean score of the teachers, on the head's scale 1..5, NaN where they are torn; None without any.

    Raises:
        UsageError: a teacher does not score the target.
    """
    if not signal.teachers:
        return None
    found = []
    for name in signal.teachers:
        teacher = Scorer.load(name, device=student.encoder.encoders.device.type)
        if target not in teacher.ranges:
            raise UsageError(f"Expected teachers that score {target}, got {name}, which does not: leave it out.")
        scores = [score.targets.get(target) for score in teacher.many(files)]
        native = torch.tensor([np.nan if value is None else value for value in scores], dtype=torch.float32)
        found.append(to_head(native, *teacher.ranges[target]))
    every = torch.stack(found)
    mean, spread = every.mean(dim=0), every.std(dim=0, correction=0)
    return torch.where(spread <= torch.nanquantile(spread, _TORN), mean, torch.nan)
