"""Images in, scores out: open, view, encode once, ask every target.

image - open - views - [f_c, f_f] - judge - Score
          in threads      in batches
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import ImageError, ModelError, PromptError, UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import Encoded, ImageEncoder, Item
from mst_clipiqa.model_folder import Target, TrainedModel, load
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT, Answer, Predictor, zero_shot_model

if TYPE_CHECKING:
    from mst_clipiqa.images.decode import Source

MINI = Path(__file__).parents[1] / "weights" / "mini"


@dataclass(frozen=True)
class Score:
    """What a model says of one image; higher is better for every number.

    Attributes:
        quality: how good the image looks, in the units of ``ranges["quality"]``; None if not scored.
        correspondence: how well it shows its prompt, in the units of ``ranges["correspondence"]``; None if not scored.
        gate: mean share of the coarse encoder in the fused feature, 0..1.
        status: "ok", or "error" when the image could not be scored at all.
        reason: why something is missing or to be read with care; empty otherwise.
        width, height: of the upright image, pixels.
        model: name of the model.
        targets: every target's score, those above included.
        intervals: (low, high) that holds the human rating with 90 % confidence, where the model was calibrated.
        ranges: (low, high) of each target's scale; predictions of a prompt head may lie a little outside.
        levels: probability of the five quality levels, worst first.
        calibrated: False for zero-shot scores, which order images but are not on the scale of raters.
    """

    quality: float | None = None
    correspondence: float | None = None
    gate: float | None = None
    status: str = "ok"
    reason: str = ""
    width: int | None = None
    height: int | None = None
    model: str = ""
    targets: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    levels: tuple[float, ...] | None = None
    calibrated: bool = True
    lower_better: bool = False

    @property
    def quality_spread(self) -> float | None:
        """How far the levels lie apart in the model's own view: their standard deviation, native units.

            sqrt(sum_k p_k (k - q)^2) * (high - low) / 4        q = sum_k k p_k, k = 1..5

        None without levels. It differs from image to image, but it is not an error bar: it tells an image that
        the model holds for fair from one that it holds for good or bad.
        """
        if self.levels is None:
            return None
        low, high = self.ranges["quality"]
        q = sum(k * p for k, p in enumerate(self.levels, 1))
        variance = sum(p * (k - q) ** 2 for k, p in enumerate(self.levels, 1))
        return math.sqrt(variance) * (high - low) / 4


@dataclass(frozen=True)
class Request:
    """One image to score: what to open, and its prompt or none."""

    image: Any
    prompt: str | None = None


@dataclass(frozen=True)
class ScoreOptions:
    """How to compute scores; none of it changes what they mean."""

    device: str = "auto"  # auto, cpu, cuda, mps
    precision: str = "auto"  # auto, fp32, bf16, fp16; of the image towers
    batch_size: int = 32  # images a step
    workers: int = 2  # threads that open images
    cache: Cache | None = None  # where features are kept
    encoders: str | None = None  # where the model's encoders are now, if not where its config says
    backend: str = "torch"  # what computes the image towers: torch, or a folder that `mst-clipiqa export` wrote


class Scorer:
    """A model and its encoders, ready to score images."""

    def __init__(self, model: TrainedModel, encoder: ImageEncoder) -> None:
        """Take a trained model and the encoder it was trained on; ``Scorer.load`` is the way from a name."""
        self.predictor = Predictor(model, encoder.encoders)
        self.encoder = encoder
        self.model = model

    @classmethod
    def load(cls, model: str | Path = "mini", options: ScoreOptions | None = None, **changes: Any) -> Scorer:
        """Return a scorer for a model.

        Args:
            model: "mini", a model folder, or "zero-shot:ENCODERS" (no training; uncalibrated).
            options: how to compute; every field may also be given by name: ``Scorer.load("mini", device="cpu")``.
            changes: fields of ``ScoreOptions``.

        Raises:
            ModelError: there is no such model, or it or its encoders cannot be used.
            UsageError: this machine lacks the device, or an option makes no sense.

        Example:
            >>> from mst_clipiqa import Scorer
            >>> Scorer.load("mini")("examples/red_ball.png").status  # doctest: +SKIP
            'ok'
        """
        how = dataclasses.replace(options or ScoreOptions(), **changes)
        name = str(model)
        trained = None
        source = name.removeprefix("zero-shot:")
        if source == name:
            folder = MINI if name == "mini" else Path(name)
            if not folder.is_dir():
                raise ModelError(
                    f"Expected 'mini', 'zero-shot:ENCODERS' or a model folder, got {name!r}: check the path."
                )
            trained = load(folder)
            source = trained.config.encoders.source
        encoders = _encoders(how.encoders or source, how)
        encoder = ImageEncoder(encoders, batch_size=how.batch_size, workers=how.workers, cache=how.cache)
        return cls(trained or zero_shot_model(encoders), encoder)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The scale (low, high) of each target."""
        return {name: (t.low, t.high) for name, t in self.model.config.targets.items()}

    @overload  # str and bytes are sequences too: the first match counts
    def __call__(self, images: Source, prompt: str | None = None) -> Score: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Source | Sequence[Any], prompt: str | Sequence[str] | None = None) -> list[Score]: ...

    def __call__(self, images: Any, prompt: Any = None) -> Any:
        """Score one image or many.

        Args:
            images: a path, bytes, PIL image, uint8 array (H, W, 3) or float tensor (3, H, W) in [0, 1]; or a list.
            prompt: one for all, or a list: as long as the list of images, or several prompts for one image.

        Returns:
            Score for one image and at most one prompt, else a list of them, in order.

        Raises:
            ImageError: an image cannot be read.
            PromptError: a prompt is empty and the model has a head that reads prompts.
        """
        one_image = not isinstance(images, list | tuple)
        sources = [images] if one_image else list(images)
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        if one_image and len(prompts) > 1:
            encoded = self.encode(sources)[0]
            return [self._checked(score) for score in self.ask([encoded] * len(prompts), prompts)]
        if len(prompts) not in (1, len(sources)):
            raise UsageError(f"Expected one prompt or one an image ({len(sources)}), got {len(prompts)}.")
        prompts = prompts * len(sources) if len(prompts) == 1 else prompts
        requests = (Request(s, p) for s, p in zip(sources, prompts, strict=True))
        scores = [self._checked(score) for score in self.many(requests)]
        return scores[0] if one_image and (prompt is None or isinstance(prompt, str)) else scores

    def many(self, requests: Iterable[Request | Any]) -> Iterator[Score]:
        """Score a stream of any length, in order, in bounded memory.

        An image or prompt that cannot be scored becomes a Score with status "error" and its reason.

        Args:
            requests: ``Request`` objects, or images as ``__call__`` takes them.
        """
        asked = (r if isinstance(r, Request) else Request(r) for r in requests)
        for batch in self.encoder.batches(Item(request.image, request) for request in asked):
            good = [(request, one) for request, one in batch if isinstance(one, Encoded)]
            scores = iter(self.ask([one for _, one in good], [request.prompt for request, _ in good]))
            for _, one in batch:
                yield next(scores) if isinstance(one, Encoded) else self.failed(one.reason)

    def encode(self, images: Sequence[Any]) -> list[Encoded]:
        """Return features of images, to ask many things of later; ImageError for the first that is unreadable."""
        return self.encoder.encode(images)

    def ask(self, encoded: Sequence[Encoded], prompts: Sequence[str | None]) -> list[Score]:
        """Return a score for each encoded image and its prompt; no image is encoded again."""
        if not encoded:
            return []
        f_c, f_f = torch.stack([e.f_c for e in encoded]), torch.stack([e.f_f for e in encoded])
        answers = self.predictor.answer(f_c, f_f, prompts)
        return [self._score(answer, one) for answer, one in zip(answers, encoded, strict=True)]

    def _score(self, answer: Answer, encoded: Encoded) -> Score:
        config = self.model.config
        failed = EMPTY_PROMPT in answer.notes
        values = dict.fromkeys(answer.values) if failed else answer.values
        return Score(
            quality=values.get("quality"),
            correspondence=values.get("correspondence"),
            gate=None if failed else answer.gate,
            status="error" if failed else "ok",
            reason="; ".join(answer.notes),
            width=encoded.width,
            height=encoded.height,
            model=config.name,
            targets=values,
            intervals={n: i for n, t in config.targets.items() if (i := _interval(values[n], t))},
            ranges=self.ranges,
            levels=None if failed else answer.levels,
            calibrated=all(t.calibrated for t in config.targets.values()),
        )

    def failed(self, reason: str) -> Score:
        """Return the score of an image that cannot be scored, and why."""
        targets: dict[str, float | None] = dict.fromkeys(self.model.config.targets)
        return Score(status="error", reason=reason, model=self.model.config.name, targets=targets, ranges=self.ranges)

    @staticmethod
    def _checked(score: Score) -> Score:
        if score.status == "ok":
            return score
        raise (PromptError if score.reason == EMPTY_PROMPT else ImageError)(score.reason)


def _encoders(source: str, how: ScoreOptions) -> EncoderPair:
    if how.backend == "torch":
        return load_encoders(source, how.device, how.precision)
    if how.device not in ("auto", "cpu") or how.precision != "auto":
        raise UsageError(
            "Expected no --device or --precision beside an exported --backend, which has its own: drop it."
        )
    from mst_clipiqa.encoders.onnx_runtime import open_exported

    return open_exported(load_encoders(source, "cpu", "fp32"), Path(how.backend))


def _interval(value: float | None, target: Target) -> tuple[float, float] | None:
    if value is None or target.interval is None:
        return None
    # Both ends lie on the scale, also where a head that reads prompts answers beyond it.
    low, high = (min(target.high, max(target.low, value + d)) for d in (-target.interval, target.interval))
    return low, high
