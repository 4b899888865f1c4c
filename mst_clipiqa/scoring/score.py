"""What is asked of a scorer, and what it returns."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar

from mst_clipiqa.errors import ImageError, PromptError, UsageError, as_sentence, brief, nearest, shown

if TYPE_CHECKING:
    import typing_extensions

    Tag = typing_extensions.TypeVar("Tag", default=None)
    """Of what the caller attaches to a request; Python knows defaults from 3.13 on."""
else:
    Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Score:
    """A model's scores of one image; higher is better for every number but ``negative_match``.

    Attributes:
        quality: how good the image looks, in the units of ``ranges["quality"]``; None if not scored.
        correspondence: how well it shows its prompt, in the units of ``ranges["correspondence"]``; None if not scored.
        gate: mean share of the coarse encoder in the fused feature, 0..1.
        error: what could not be used, "image" or "prompt", so that nothing is scored; None if all went well.
        reason: why something is missing or needs care; empty otherwise.
        width, height: of the upright image, pixels.
        model: name of the model.
        targets: every target's score, those above included.
        intervals: (low, high) that holds the human rating in 90 % of cases, if the model was calibrated. This is true
            of images like those of the calibration: new prompts of the generators that were rated, and, as far as the
            model was calibrated on generators left out of training, other generators. Unfamiliar images get wider ones
            if the ``growth`` that calibration chose is above 0; that of ``mini`` is 0.
        ranges: (low, high) of each target's scale; no score is outside.
        levels: probability of the five quality levels, worst first.
        calibrated: False for zero-shot scores, which order images but are not on the scale of raters.
        familiarity: 0..1, the share of held-out images of the training kind that are at least as unlike the training
            images. Below 0.05 ``reason`` has a caution. None if the model has no reference of its training features.
        granularity: what was looked at: "coarse", "native:K" or "fine"; None if nothing but fine was asked for.
        negative_match: how well the image shows its negative prompt, in the units of ``ranges["correspondence"]``: for
            this one number, lower is better. None if not asked or not answered.
        reference_coarse, reference_fine: cosine similarity with the reference image in each stream, -1..1, or None.
        edge_agreement: how well the image's edges agree with the control map, -1..1, or None.
    """

    quality: float | None = None
    correspondence: float | None = None
    gate: float | None = None
    error: Literal["image", "prompt"] | None = None
    reason: str = ""
    width: int | None = None
    height: int | None = None
    model: str = ""
    targets: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    levels: tuple[float, ...] | None = None
    calibrated: bool = True
    familiarity: float | None = None
    granularity: str | None = None
    negative_match: float | None = None
    reference_coarse: float | None = None
    reference_fine: float | None = None
    edge_agreement: float | None = None

    @property
    def status(self) -> Literal["ok", "error"]:
        """Whether the image was scored: "ok" or "error"."""
        return "error" if self.error else "ok"

    @property
    def quality_spread(self) -> float | None:
        """The standard deviation of the quality levels, native units.

            sqrt(sum_k p_k (k - q)^2) * (high - low) / 4        q = sum_k k p_k, k = 1..5

        None without levels. It differs from image to image, but it is not an error bar: it tells an image that
        the model finds fair from one that it finds partly good and partly bad.
        """
        if self.levels is None:
            return None
        low, high = self.ranges["quality"]
        q = sum(k * p for k, p in enumerate(self.levels, 1))
        variance = sum(p * (k - q) ** 2 for k, p in enumerate(self.levels, 1))
        return math.sqrt(variance) * (high - low) / 4

    def to_dict(self) -> dict[str, Any]:
        """Return every field and the status, with lists for tuples, as JSON holds them.

        Example:
            >>> Score(quality=3.25, intervals={"quality": (2.5, 4.0)}).to_dict()["intervals"]
            {'quality': [2.5, 4.0]}
        """
        ends = {name: {target: list(pair) for target, pair in getattr(self, name).items()} for name in _PAIRS}
        levels = None if self.levels is None else list(self.levels)
        return {"status": self.status, **asdict(self), **ends, "levels": levels}

    def __repr__(self) -> str:
        """Return the scores and the model in one line; of an image that was not scored, what was wrong."""
        if self.error:
            return f"Score(error={self.error!r}, reason={shown(self.reason)})"
        return f"Score({', '.join(f'{name}={_number(value)}' for name, value in self._named())}, model={self.model!r})"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks: each target with its interval and its scale."""
        lines = []
        for name, value in self._named():
            ends, scale = (getattr(self, pairs).get(name) for pairs in _PAIRS)
            cells = (name, _number(value), _range(ends), _range(scale))
            lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        if self.error:
            lines = [f'<tr><td colspan="4">Not scored because of the {self.error}.</td></tr>']
        notes = "; ".join(filter(None, (f"model {self.model}" if self.model else "", self.reason)))
        head = "<tr><th>score</th><th>value</th><th>90 % interval</th><th>scale</th></tr>"
        return f"<table><caption>{html.escape(notes)}</caption>{head}{''.join(lines)}</table>"

    def _named(self) -> list[tuple[str, float | None]]:
        own = {"quality": self.quality, "correspondence": self.correspondence}
        return list((self.targets or own).items())


_PAIRS = ("intervals", "ranges")


def _number(value: float | None) -> str:
    return "None" if value is None else f"{value:.3f}"


def _range(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"


@dataclass(frozen=True)
class ScoreRequest(Generic[Tag]):
    """One image to score.

    Attributes:
        image: as ``Scorer.__call__`` takes it; ``Failed`` and ``AlreadyScored`` pass through.
        prompt: what it was made from, or None.
        tag: anything of the caller's, to be found again beside the score.
        negative: the negative prompt, or None; the score gets ``negative_match``.
        reference: an image to compare with, as ``image``, or None; the score gets ``reference_coarse`` and ``_fine``.
        control: a map of edges, light lines on a dark ground, as ``image``, or None; the score gets
            ``edge_agreement``. The image is opened once more for it, so it should not be an open file.
    """

    image: Any
    prompt: str | None = None
    tag: Tag = None  # type: ignore[assignment]  # a request without a tag is one with the tag None
    negative: str | None = None
    reference: Any = None
    control: Any = None


class ControlArgs(TypedDict, total=False):
    """The fields of a ``ScoreRequest`` that a call may give for all of its images."""

    negative: str | None
    reference: Any
    control: Any


def as_request(given: Any, controls: Mapping[str, Any]) -> ScoreRequest[Any]:
    """Return the request for an image or an (image, prompt) pair, with controls; a request stays as it is."""
    if isinstance(given, ScoreRequest):
        return given
    image, prompt = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    return ScoreRequest(image, prompt, **controls)


def check_target(name: str, ranges: Mapping[str, Any]) -> None:
    """Raise a UsageError unless a model, of which these are the ranges, scores this target."""
    if name not in ranges:
        known = ", ".join(ranges)
        raise UsageError(f"Expected a target of {known}, got {brief(name)}{nearest(str(name), ranges)}.")


def is_one_prompt(prompts: object) -> bool:
    """Return whether this is one prompt and not several; it need not be text, which is checked when it is scored."""
    return isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable) or getattr(prompts, "ndim", 1) == 0


def checked(score: Score, image: object = None) -> Score:
    """Return the score of an image; ImageError or PromptError if there is none, which names the image's file."""
    if score.error:
        raise (PromptError if score.error == "prompt" else ImageError)(as_sentence(score.reason, image))
    return score
