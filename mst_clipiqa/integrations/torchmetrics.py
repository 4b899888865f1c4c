"""The mean score of generated images as a torchmetrics metric (extra ``torchmetrics``)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mst_clipiqa.errors import missing
from mst_clipiqa.integrations.mixing import Prompts, image_list, prompt_list
from mst_clipiqa.scoring.predictor import MISSING_PROMPT
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.scoring.score import ScoreRequest, check_target
from mst_clipiqa.scoring.scorer import Scorer

try:
    from torchmetrics import Metric
except ImportError as error:
    raise missing(error.name or "torchmetrics", "torchmetrics") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_WITHOUT_FLOAT64 = ("mps",)  # types of devices


class MSTClipIQAScore(Metric):
    """The mean of one score over all images that could be scored, in the units of its scale; higher is better.

    ``update`` takes images and their prompts, ``compute`` returns the mean as a float32 scalar: NaN if no image could
    be scored. Across processes, sums and counts are added, so the value is that of a single process.

    Attributes:
        total: sum of the scores, float64 whatever the metric is cast to; float32 on devices without float64.
        count: number of images that they are of.
        failed: number of images that could not be scored; they do not count in the mean.
        reason: why the latest of them could not be scored; empty if all could.

    Args:
        model: as ``Scorer.load`` takes it, or a scorer.
        target: "quality", "correspondence" (which needs prompts), or a further target of the model.
        device: where the encoders run; ``Metric.to`` moves the sums only.
        kwargs: of ``torchmetrics.Metric``.

    Raises:
        UsageError: the model has no such target, or this machine lacks the device.

    Example:
        >>> metric = MSTClipIQAScore(target="quality", device="cpu")
        >>> metric.update(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        >>> metric.count, metric.compute().shape
        (tensor(4), torch.Size([]))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor
    failed: Tensor

    def __init__(
        self,
        model: str | Path | Scorer = "mini",
        target: str = "quality",
        device: str | torch.device = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scorer = model if isinstance(model, Scorer) else Scorer.load(model, device=str(device))
        check_target(target, self.scorer.ranges)
        self.target = target
        self.reason = ""
        zero = torch.tensor(0.0, dtype=_sum_dtype(torch.get_default_device()))
        self.add_state("total", default=zero, dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("failed", default=torch.tensor(0), dist_reduce_fx="sum")
        # A collection lets metrics share their states if these are equal after the first batch, as sums are if no
        # image could be scored. This state is always 0; its name keeps metrics of different scores apart.
        self.add_state(_name_of(self.scorer, target), default=torch.tensor(0), dist_reduce_fx="sum")

    @property
    def plot_lower_bound(self) -> float:  # type: ignore[override]  # a constant there; here the model's
        """The low end of the target's scale."""
        return self.scorer.ranges[self.target][0]

    @property
    def plot_upper_bound(self) -> float:  # type: ignore[override]
        """The high end of the target's scale."""
        return self.scorer.ranges[self.target][1]

    def update(self, images: Any, prompts: Prompts = None) -> None:
        """Score images and add them to the mean.

        Args:
            images: float tensor (N, 3, H, W) in [0, 1], uint8 array (N, H, W, 3), or a list of anything that
                ``Scorer`` takes.
            prompts: one for all, or one for each image.
        """
        sources = image_list(images)
        pairs = zip(sources, prompt_list(prompts, len(sources)), strict=True)
        values = []
        for _, score in self.scorer.stream(ScoreRequest[None](image, prompt) for image, prompt in pairs):
            if (value := score.targets.get(self.target)) is None:
                self.reason = score.reason or MISSING_PROMPT.format(self.target)
            else:
                values.append(value)
        self.total += sum(values)
        self.count += len(values)
        self.failed += len(sources) - len(values)

    def forward(self, images: Any, prompts: Prompts = None) -> Tensor:
        """Add images to the mean as ``update`` does; returns their own mean, float32."""
        before = self.reason
        mean: Tensor = super().forward(images, prompts)  # which resets, and then adds up
        self.reason = self.reason or before
        return mean

    def compute(self) -> Tensor:
        """Return the mean score, float32, or NaN if no image could be scored."""
        return (self.total / self.count).float()

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.reason = ""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> MSTClipIQAScore:
        """Move all states as asked, and cast them, except for the sum: in fewer bits it would soon stand still."""
        super()._apply(fn, (*exclude_state, "total"))
        self.total = _at(self.device, self.total)
        self._defaults["total"] = _at(self.device, cast("Tensor", self._defaults["total"]))
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        """Load the states; older sums were float32."""
        super()._load_from_state_dict(*args)
        self.total = _at(self.total.device, self.total)

    def __deepcopy__(self, memo: dict[int, Any]) -> MSTClipIQAScore:
        """Return a copy with sums of its own, as ``clone`` does; the scorer, which never changes, is shared."""
        memo[id(self.scorer)] = self.scorer
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot one value or several on the target's scale; needs matplotlib."""
        return cast("tuple[Figure, Axes]", self._plot(val, ax))


def _sum_dtype(device: torch.device) -> torch.dtype:
    """Return what sums are kept in on a device: 200,000 images one by one put a float32 mean off by 0.002."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def _at(device: torch.device, total: Tensor) -> Tensor:
    """Return a sum on a device, in its dtype; both devices may have to be spared the dtype of the other."""
    dtype = _sum_dtype(device)
    return total.to(dtype) if total.device == device else total.cpu().to(dtype).to(device)


def _name_of(scorer: Scorer, target: str) -> str:
    """Return a name that two metrics share only if they would give every image the same score."""
    parts = (scorer.predictor.name, scorer_sha256(scorer), scorer.encoder.encoders.precision)
    return f"{target}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
