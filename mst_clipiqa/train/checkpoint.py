"""The state of a training after each epoch, and the file from which a stopped one resumes."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError
from mst_clipiqa.tables.atomic import write_atomically

State = dict[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """One epoch of the training history; losses and scores on the head's scale 1..5.

    Attributes:
        learning_rate, epoch: the rate, and the number of the epoch from 1.
        training_loss: the mean over its batches.
        validation_loss: on the validation part.
        validation_srcc, validation_plcc: on the rated images of the validation part; NaN without ratings that differ.
        validation_pairs: share of the validation pairs that are ordered right; None without pairs.
    """

    learning_rate: float
    epoch: int
    training_loss: float
    validation_loss: float
    validation_srcc: float
    validation_plcc: float = -1.0  # of checkpoints that do not have it
    validation_pairs: float | None = None

    @property
    def agreement(self) -> float:
        """Return the figure that selects the epoch, -1..1: SRCC, 2 x the share of pairs - 1, or the mean of both."""
        found = [self.validation_srcc, None if self.validation_pairs is None else 2 * self.validation_pairs - 1]
        known = [value for value in found if value is not None and math.isfinite(value)]
        return sum(known) / len(known) if known else -1.0


@dataclass
class TrainingState:
    """What a stopped training needs to resume."""

    rate: int = 0  # index of the learning rate
    epoch: int = 0  # epochs done with it
    model: State | None = None
    optimiser: dict[str, Any] | None = None
    best: Epoch | None = None
    best_model: State | None = None
    stale: int = 0  # epochs since this rate's best
    rate_best: float = -2.0
    history: list[Epoch] = field(default_factory=list)


def save_checkpoint(path: Path, run: TrainingState, identity: dict[str, Any]) -> None:
    """Write a checkpoint atomically; ``identity`` says which training it belongs to.

    Raises:
        OSError: the disk is full or gone.
    """
    state = {**vars(run), "best": run.best and asdict(run.best), "history": [asdict(line) for line in run.history]}
    written = io.BytesIO()  # not the file: on a full disk torch raises a RuntimeError that hides the reason
    torch.save({"identity": identity, "run": state}, written)
    write_atomically(path, written.getvalue())


def load_checkpoint(path: Path | None, identity: dict[str, Any]) -> TrainingState:
    """Return the state in a checkpoint, or that of a new training if there is none.

    Raises:
        UsageError: the checkpoint is damaged, or belongs to another training.
    """
    if path is None or not path.is_file():
        return TrainingState()
    try:
        saved = torch.load(path, weights_only=True)
        known, run = dict(saved["identity"]), _state(saved["run"])
    except Exception as error:  # on a damaged file the reader raises nearly every type there is
        raise damaged_checkpoint(path, "training", error) from error
    check_identity(path, "training", known, identity)
    return run


def damaged_checkpoint(path: Path, what: str, error: Exception) -> UsageError:
    """Return the error about a checkpoint that cannot be read; ``what`` says what it should be of, as "training"."""
    return UsageError(
        f"Expected a checkpoint of a {what} in {path}, got a damaged file ({type(error).__name__}): "
        "delete it to start over."
    )


def check_identity(path: Path, what: str, known: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raise UsageError if a checkpoint belongs to another ``what``, such as "training"; the message says what differs.

    Args:
        path: of the checkpoint.
        what: what it should be of.
        known: the identity in the checkpoint.
        identity: the one that is asked for.
    """
    if known != identity:
        changed = ", ".join(sorted(key for key in identity if known.get(key) != identity[key]))
        raise UsageError(
            f"Expected a checkpoint of this {what} in {path}, got that of another (changed: {changed}): "
            "choose another folder, or delete the file to start over."
        )


def _state(saved: dict[str, Any]) -> TrainingState:
    best = Epoch(**saved["best"]) if saved["best"] else None
    return TrainingState(**{**saved, "best": best, "history": [Epoch(**line) for line in saved["history"]]})
