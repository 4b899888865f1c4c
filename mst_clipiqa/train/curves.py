"""Training curves and scatter plots, drawn by matplotlib without a display."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mst_clipiqa.errors import need

if TYPE_CHECKING:
    from mst_clipiqa.train.checkpoint import Epoch


def check_drawing() -> None:
    """Raise UsageError if matplotlib is missing, before hours of work rather than after."""
    _figure(1, 1)


def draw_history(history: Sequence[Epoch], title: str) -> bytes:
    """Return a PNG of loss and agreement on the validation part over epochs, one line per learning rate."""
    figure = _figure(9, 3.6, left=0.08, right=0.98, bottom=0.14, top=0.91, wspace=0.27)
    left, right = figure.subplots(1, 2)
    for rate in dict.fromkeys(line.learning_rate for line in history):
        lines = [line for line in history if line.learning_rate == rate]
        epochs = [line.epoch for line in lines]
        left.plot(epochs, [line.training_loss for line in lines], label=f"training, learning rate {rate:g}")
        left.plot(epochs, [line.validation_loss for line in lines], "--", label=f"validation, learning rate {rate:g}")
        right.plot(epochs, [line.agreement for line in lines], label=f"learning rate {rate:g}")
    left.set(xlabel="epoch", ylabel="loss", title=title)
    right.set(xlabel="epoch", ylabel=_agreement(history), title=title)
    for axes in (left, right):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    return _png(figure)


def _agreement(history: Sequence[Epoch]) -> str:
    """Return a label for ``Epoch.agreement``: the figures that it is made of."""
    last = history[-1]
    if last.validation_pairs is None:
        return "validation SRCC"
    pairs = "2 x share of pairs - 1"
    return f"validation {pairs}" if math.isnan(last.validation_srcc) else f"validation, mean of SRCC and {pairs}"


def draw_scatter(predicted: Sequence[float], mos: Sequence[float], title: str) -> bytes:
    """Return a PNG of predicted scores against human ratings."""
    figure = _figure(4.6, 4.4, left=0.15, right=0.97, bottom=0.12, top=0.92)
    axes = figure.subplots()
    axes.scatter(predicted, mos, s=6, alpha=0.4, linewidths=0)
    low, high = min(*predicted, *mos), max(*predicted, *mos)
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    axes.set(xlabel="predicted", ylabel="rated by people (MOS)", title=title)
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _figure(width: float, height: float, **margins: float) -> Any:
    """Return a figure with margins as shares of its size; a layout that looks for them draws all of it once more."""
    figure = need("matplotlib.figure", extra="train").Figure(figsize=(width, height))
    figure.subplots_adjust(**margins)
    return figure
