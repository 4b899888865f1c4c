"""The epochs of a training in TensorBoard or Weights & Biases; neither is imported unless it was named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mst_clipiqa.errors import UsageError, nearest, need

if TYPE_CHECKING:
    from mst_clipiqa.train.checkpoint import Epoch
    from mst_clipiqa.train.recipe import Recipe

TRACKERS = ("tensorboard", "wandb")


def check_log(where: str | None) -> None:
    """Raise UsageError if a log cannot be written as asked, before hours of work rather than after."""
    if where is None:
        return
    tracker, _, place = where.partition(":")
    if tracker not in TRACKERS or not place:
        raise UsageError(
            f"Expected --log tensorboard:FOLDER or --log wandb:PROJECT, got {where!r}{nearest(tracker, TRACKERS)}."
        )
    _imported(tracker)


@contextmanager
def experiment_log(where: str | None, run: str, recipe: Recipe, folder: Path) -> Iterator[Callable[[Epoch], None]]:
    """Open a log; yield a function that adds an epoch: train/loss, train/learning_rate, val/loss, val/srcc, val/plcc.

    The step is the number of the epoch; a second learning rate begins after the last epoch that the first may have.

    Args:
        where: "tensorboard:FOLDER", "wandb:PROJECT", or None for no log.
        run: name of the run; TensorBoard gets a folder of this name.
        recipe: recorded with the run.
        folder: where Weights & Biases keeps its files.

    Raises:
        UsageError: ``where`` is something else, or its package is not installed.
    """
    check_log(where)
    if where is None:
        yield lambda epoch: None
        return
    tracker, _, place = where.partition(":")
    with (_tensorboard if tracker == "tensorboard" else _wandb)(place, run, recipe, folder) as write:
        yield lambda epoch: write(values_of(epoch), _step(epoch, recipe))


def values_of(epoch: Epoch) -> dict[str, float]:
    """Return the figures of an epoch that are logged, if defined; losses are on the head's scale 1..5."""
    values = {
        "train/loss": epoch.training_loss,
        "train/learning_rate": epoch.learning_rate,
        "val/loss": epoch.validation_loss,
        "val/srcc": epoch.validation_srcc,
        "val/plcc": epoch.validation_plcc,
        "val/pairs": epoch.validation_pairs,
    }
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _step(epoch: Epoch, recipe: Recipe) -> int:
    return recipe.learning_rates.index(epoch.learning_rate) * recipe.epochs + epoch.epoch


Write = Callable[[dict[str, float], int], None]


@contextmanager
def _tensorboard(place: str, run: str, recipe: Recipe, _: Path) -> Iterator[Write]:
    with _imported("tensorboard").SummaryWriter(str(Path(place) / run)) as writer:
        writer.add_text("recipe", str(asdict(recipe)))

        def write(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()  # so that it shows while the training runs

        yield write


@contextmanager
def _wandb(place: str, run: str, recipe: Recipe, folder: Path) -> Iterator[Write]:
    folder.mkdir(parents=True, exist_ok=True)
    with _imported("wandb").init(project=place, name=run, config=asdict(recipe), dir=str(folder)) as opened:
        yield lambda values, step: opened.log(values, step=step)


def _imported(tracker: str) -> Any:
    if tracker == "tensorboard":
        return need("torch.utils.tensorboard", extra="tensorboard", otherwise="omit --log")
    try:
        import wandb
    except ImportError as error:  # no extra brings it: whoever logs to it has an account and the package
        raise UsageError("Expected wandb, which is not installed: pip install wandb, or omit --log.") from error
    return wandb
