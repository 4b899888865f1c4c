"""A score as a module, as people know it from pyiqa: ``create_metric(name)(images) -> (N, 1)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mst_clipiqa.encoders.families import PAIRS
from mst_clipiqa.errors import PromptError, UsageError, as_sentence
from mst_clipiqa.images.modes import check_dense
from mst_clipiqa.integrations.mixing import Prompts, prompt_list
from mst_clipiqa.scoring.differentiable import DifferentiableTarget
from mst_clipiqa.scoring.folders import ZERO_SHOT
from mst_clipiqa.scoring.predictor import MISSING_PROMPT
from mst_clipiqa.scoring.score import ScoreRequest, check_target, checked
from mst_clipiqa.scoring.scorer import Scorer

_OPENAI = PAIRS["openai"]
METRICS = {
    "mini": "the model that ships; quality and correspondence",
    f"{ZERO_SHOT}openai": f"no training; downloads {_OPENAI.coarse} and {_OPENAI.fine} when it is first used",
}
"""Names that need no folder -> what they mean."""


class MSTClipIQAMetric(nn.Module):
    """One target of a model: images, and prompts if its head reads them, to scores (N, 1); higher is better.

    Attributes:
        metric_name: the model's name.
        target: "quality", for example.
        metric_mode: "NR": there is no reference image.
        lower_better: False.
        score_range: the ends of the raters' scale, such as "0, 5".

    Args:
        model: as ``Scorer.from_pretrained`` takes it, or a scorer.
        target: the score to return; "quality" by default, or the model's first target if it has none.
        as_loss: True computes every tensor with gradients to its pixels, False none; None only those that need them.
            Without gradients a score is that of ``scorer``, to the last bit.
        device: "auto", "cpu", "cuda", "mps"; ``to`` moves the metric afterwards.
        options: fields of ``ScoreOptions``; the precision is fp32, unless ``as_loss`` is False.

    Raises:
        ModelError: there is no such model.
        UsageError: the model has no such target, this machine lacks the device, or the encoders have no gradients.
    """

    metric_mode = "NR"
    lower_better = False

    def __init__(
        self,
        model: str | Path | Scorer = "mini",
        target: str | None = None,
        *,
        as_loss: bool | None = None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if as_loss is not False:
            options = {"precision": "fp32", **options}
        if not isinstance(model, Scorer):
            model = Scorer.from_pretrained(model, device="auto" if device is None else str(device), **options)
        self.scorer = model
        self.as_loss = as_loss
        self.metric_name = self.scorer.model.config.name
        self.target = _target(self.scorer, target)
        self.score_range = "{:g}, {:g}".format(*self.scorer.ranges[self.target])
        self.differentiable = None if as_loss is False else DifferentiableTarget(self.scorer, self.target)
        self.register_buffer("_where", torch.zeros(0, device=self.scorer.encoder.encoders.device), persistent=False)
        self.eval()

    def forward(self, target: Any, prompt: Prompts = None) -> Tensor:
        """Return scores, float32 (N, 1), in the units of ``score_range``.

        Args:
            target: float tensor (N, 3, H, W) or (N, 1, H, W) in [0, 1], also half or bfloat16; or one image as
                ``Scorer`` takes it: a path, bytes, a PIL image. A list of images may differ in size.
            prompt: one for all, or one per image.

        Returns:
            The scores, on the device of a tensor, else on the CPU; nan for a prompt outside the vocabulary. With
            gradients they are not cut off at the ends of the scale.

        Raises:
            ImageError: an image cannot be read, or a tensor holds NaN or values outside [0, 1].
            PromptError: a prompt is not text, or the head reads prompts and one is missing or empty; with gradients,
                also if one is outside the vocabulary.
            UsageError: a tensor has another shape or holds integers, or there is not one prompt or one per image.
        """
        if isinstance(target, Tensor):
            target = _batch(target)
            prompts = prompt_list(prompt, len(target))
            if self.differentiable is not None and self._has_gradients(target):
                scores: Tensor = self.differentiable(target.to(self._device), prompts)
                return scores.unsqueeze(1).to(target.device)
            return self._exact(target.detach().cpu(), prompts).to(target.device)
        images = list(target) if isinstance(target, list | tuple) else [target]
        prompts = prompt_list(prompt, len(images))
        wanted = [image.device for image in images if isinstance(image, Tensor) and self._has_gradients(image)]
        if not wanted:
            return self._exact(images, prompts)
        return torch.cat([self(image, [one]).to(wanted[0]) for image, one in zip(images, prompts, strict=True)])

    def _has_gradients(self, images: Tensor) -> bool:
        """Return whether scores of a tensor are computed with gradients."""
        needed = self.as_loss is None and images.requires_grad and torch.is_grad_enabled()
        return bool(self.as_loss or needed)

    def _exact(self, images: Iterable[Any], prompts: list[str | None]) -> Tensor:
        """Return the scorer's scores, float32 (N, 1)."""
        values = []
        requests = (ScoreRequest[None](image, prompt) for image, prompt in zip(images, prompts, strict=True))
        for request, score in self.scorer.stream(requests):
            value = checked(score, request.image).targets[self.target]
            if value is None and request.prompt is None:
                raise PromptError(as_sentence(MISSING_PROMPT.format(self.target)))
            values.append(math.nan if value is None else value)
        return torch.tensor(values, dtype=torch.float32, device="cpu").unsqueeze(1)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.scorer.encoder.encoders.device
        return device

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the scorer alone, which is loaded again: what its encoders prepared cannot be copied."""
        return _again, (type(self), self.scorer, self.target, self.as_loss)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MSTClipIQAMetric:
        """Move the scorer's encoders with the module, as ``to``, ``cuda`` and ``cpu`` ask; the precision stays."""
        where = fn(self.get_buffer("_where")).device
        super()._apply(lambda tensor: tensor.to(where), recurse)  # type: ignore[no-untyped-call]
        if where != self._device:
            self.scorer.to(where)
        return self

    def extra_repr(self) -> str:
        """Name the target, its scale, and the scorer."""
        return f"{self.target} ({self.score_range}), {self.scorer!r}"


def create_metric(
    name: str | Path = "mini", as_loss: bool = False, device: str | torch.device | None = None, **kw: Any
) -> MSTClipIQAMetric:
    """Return a metric, as pyiqa's function of this name does.

    Args:
        name: a name of ``list_models``, a model folder, a hub id, or "zero-shot:ENCODERS".
        as_loss: whether scores have gradients to the pixels; the encoders then compute in fp32.
        device: "auto", "cpu", "cuda" or "mps".
        kw: ``target``, and what ``Scorer.from_pretrained`` takes.

    Raises:
        ModelError: there is no such model.
        UsageError: the model has no such target, or this machine lacks the device.

    Example:
        >>> metric = create_metric("mini", device="cpu")
        >>> metric(torch.rand(2, 3, 64, 64)).shape, metric.score_range, metric.lower_better
        (torch.Size([2, 1]), '0, 5', False)
    """
    return MSTClipIQAMetric(name, as_loss=as_loss, device=device, **kw)


def list_models(metric_mode: str | None = None, filter: str = "") -> list[str]:  # noqa: A002 - pyiqa's own word
    """Return the names that ``create_metric`` takes, beside folders and hub ids.

    Args:
        metric_mode: "NR" or None for all of them; "FR" for those that need a reference: none.
        filter: only names that match it, such as "*mini*".

    Example:
        >>> list_models()
        ['mini', 'zero-shot:openai']
    """
    return [name for name in sorted(METRICS) if metric_mode in (None, "NR") and fnmatch(name, filter or "*")]


def _again(kind: type[MSTClipIQAMetric], scorer: Scorer, target: str, as_loss: bool | None) -> MSTClipIQAMetric:
    return kind(scorer, target, as_loss=as_loss)


def _target(scorer: Scorer, name: str | None) -> str:
    if name is None:
        return "quality" if "quality" in scorer.ranges else next(iter(scorer.ranges))
    check_target(name, scorer.ranges)
    return name


def _batch(images: Tensor) -> Tensor:
    """Return images as (N, 3, H, W); grey ones get three equal channels."""
    check_dense(images)
    images = images.unsqueeze(0) if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise UsageError(
            f"Expected float images (N, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}: convert them."
        )
    return images.expand(-1, 3, -1, -1)
