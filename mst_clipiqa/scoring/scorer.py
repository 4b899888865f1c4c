"""Images in, scores out: open, view, encode once, predict every target.

image - open - views - f_c, f_f - predictor - Score
      in threads         in batches
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import ImageError, ModelError, PromptError, UsageError, nearest
from mst_clipiqa.features.cache import Cache, Encoded
from mst_clipiqa.features.image_encoder import AlreadyScored, Failed, ImageEncoder, Opened, needed_side
from mst_clipiqa.images.options import COLORS, FRAMES, MAX_PIXELS, OpenOptions
from mst_clipiqa.model_folder import TrainedModel, load
from mst_clipiqa.scoring.adaptive import AdaptiveEncoding
from mst_clipiqa.scoring.fine_estimator import FineEstimator, estimator_path
from mst_clipiqa.scoring.predictor import Predictor, zero_shot_model
from mst_clipiqa.scoring.score import Score, ScoreRequest, Tag

if TYPE_CHECKING:
    from mst_clipiqa.images.decode import Source

MINI_MODEL = Path(__file__).parents[1] / "weights" / "mini"
_ZERO_SHOT = "zero-shot:"


@dataclass(frozen=True)
class ScoreOptions:
    """How to compute scores.

    Attributes:
        device: auto, cpu, cuda or mps.
        precision: of the image encoders: auto, fp32, bf16 or fp16.
        batch_size: images per batch.
        workers: decoding threads.
        cache: where features are kept, if anywhere.
        encoders: where the model's encoders are now, if they have moved.
        backend: torch, or a folder written by ``mst-clipiqa export``, whose image encoders are used.
        adaptive: skip the fine stream if it would change no score by more than this; None never skips.
        adaptive_check: number of skipped images for which to measure the true change.
        fast_decode: decode large JPEGs at reduced scale; scores change a little.
        color: "srgb" converts colours by the image's profile; "as-stored" ignores it.
        frame: of an animated image: "first" or "middle".
        max_pixels: a larger image is refused.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    workers: int = 2
    cache: Cache | None = None
    encoders: str | None = None
    backend: str = "torch"
    adaptive: float | None = None
    adaptive_check: int = 0
    fast_decode: bool = False
    color: str = "srgb"
    frame: str = "first"
    max_pixels: int = MAX_PIXELS


class Scorer:
    """A model and its encoders, ready to score images; ``Scorer.load`` makes one from a name.

    Args:
        model: the trained part.
        encoder: of images, with the encoders that the model was trained on.
        predictor: of this model and these encoders, if there is one already.
    """

    def __init__(self, model: TrainedModel, encoder: ImageEncoder, predictor: Predictor | None = None) -> None:
        self.predictor = predictor or Predictor(model, encoder.encoders, encoder.cache)
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
        if how.adaptive is None and how.adaptive_check:
            raise UsageError("The flag --adaptive-check needs --adaptive TOL: give a tolerance.")
        folder = trained_folder(model)
        trained = load(folder) if folder else None
        source = trained.config.encoders.source if trained else str(model).removeprefix(_ZERO_SHOT)
        encoders = _encoders(how.encoders or source, how)
        trained = trained or zero_shot_model(encoders)
        predictor = Predictor(trained, encoders, how.cache.space(encoders) if how.cache else None)
        policy = None
        if how.adaptive is not None:
            estimator = FineEstimator.load(estimator_path(folder), trained.sha256)
            estimator.require(how.adaptive)
            policy = AdaptiveEncoding(predictor, estimator, how.adaptive, how.adaptive_check)
        encoder = ImageEncoder(
            encoders,
            batch_size=how.batch_size,
            workers=how.workers,
            cache=how.cache,
            policy=policy,
            opening=_opening(how, encoders),
        )
        return cls(trained, encoder, predictor)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The scale (low, high) of each target."""
        return self.predictor.ranges

    @overload  # str and bytes are sequences too: the first match counts
    def __call__(self, images: Source, prompt: str | None = None) -> Score: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Source | Sequence[Any], prompt: str | Sequence[str] | None = None) -> list[Score]: ...

    def __call__(self, images: Any, prompt: Any = None) -> Any:
        """Score one image or many.

        Args:
            images: a path, bytes, open file, PIL image, uint8 array (H, W, 3) or float tensor (3, H, W) in [0, 1]; or
                several of them: a list, or an array or tensor with a first dimension more.
            prompt: one for all, or a list: as long as the list of images, or several prompts for one image.

        Returns:
            Score for one image and at most one prompt, else a list of them, in order.

        Raises:
            ImageError: an image cannot be read.
            PromptError: a prompt is not text, or empty though the model has a head that reads prompts.
        """
        one_image = not isinstance(images, list | tuple) and getattr(images, "ndim", 0) != 4
        sources = [images] if one_image else list(images)
        one_prompt = isinstance(prompt, str | bytes) or not isinstance(prompt, Iterable)  # of any type: rows say which
        prompts = [prompt] if one_prompt else list(prompt)
        if one_image and len(prompts) > 1:
            encoded = self.encode(sources)[0]
            return [_checked(score) for score in self.score_encoded([encoded] * len(prompts), prompts)]
        if len(prompts) not in (1, len(sources)):
            raise UsageError(f"Expected one prompt or one per image ({len(sources)}), got {len(prompts)}.")
        prompts = prompts * len(sources) if len(prompts) == 1 else prompts
        requests = (ScoreRequest[None](s, p) for s, p in zip(sources, prompts, strict=True))
        scores = [_checked(score) for _, score in self.stream(requests)]
        return scores[0] if one_image and one_prompt else scores

    def stream(self, requests: Iterable[ScoreRequest[Tag]]) -> Iterator[tuple[ScoreRequest[Tag], Score]]:
        """Yield each request with its score, in order, in bounded memory whatever their number.

        An image or prompt that cannot be scored becomes a ``Score`` with its ``error`` and ``reason``.

        Raises:
            UsageError: something else than a ``ScoreRequest`` was given.
        """

        def opened(request: ScoreRequest[Tag]) -> Opened:
            if not isinstance(request, ScoreRequest):
                raise UsageError(
                    f"Expected a ScoreRequest, got {type(request).__name__}: give ScoreRequest(image, prompt)."
                )
            return self.encoder.open(request.image, (request.prompt,))

        for batch in self.encoder.batches(requests, opened):
            scores = self.score_encoded([one for _, one in batch], [request.prompt for request, _ in batch])
            yield from zip((request for request, _ in batch), scores, strict=True)

    def many(self, images: Iterable[Any]) -> Iterator[Score]:
        """Yield scores as ``stream`` does, without the requests; images and (image, prompt) pairs are fine too.

        Raises:
            UsageError: one path or file was given in place of several images.
        """
        if isinstance(images, str | bytes | os.PathLike) or hasattr(images, "read"):
            raise UsageError(
                f"Expected several images, got one {type(images).__name__}: put it in a list; for a folder, "
                "score_rows(scorer, expand(folder)) gives a row per image."
            )
        for _, score in self.stream(map(_request, images)):
            yield score

    def encode(self, images: Sequence[Any]) -> list[Encoded]:
        """Return features of images, for ``score_encoded``; ImageError for the first one that cannot be read."""
        return self.encoder.encode(images)

    def score_encoded(
        self, encoded: Sequence[Encoded | Failed | AlreadyScored], prompts: Sequence[str | None]
    ) -> list[Score]:
        """Return a score for each encoded image and its prompt; no image is encoded again."""
        pairs = [(one, prompt) for one, prompt in zip(encoded, prompts, strict=True) if isinstance(one, Encoded)]
        predicted = iter(self._predicted(*zip(*pairs, strict=True)) if pairs else [])
        found: list[Score] = []
        for one in encoded:
            match one:
                case Encoded():
                    found.append(_completed(next(predicted), one))
                case Failed(reason):
                    found.append(self.predictor.failed("image", reason))
                case AlreadyScored(score):
                    found.append(score)
        return found

    def _predicted(self, encoded: Sequence[Encoded], prompts: Sequence[str | None]) -> list[Score]:
        f_c, f_f = torch.stack([e.f_c for e in encoded]), torch.stack([e.f_f for e in encoded])
        return self.predictor.predict(f_c, f_f, prompts)


def _completed(score: Score, encoded: Encoded) -> Score:
    """Return a prediction with what only the image knows: its size, and a note on its features."""
    notes = (score.reason, "" if score.error else encoded.note)
    reason = "; ".join(note for note in notes if note)
    return dataclasses.replace(score, reason=reason, width=encoded.width, height=encoded.height)


def trained_folder(model: str | Path) -> Path | None:
    """Return the folder of a trained model, or None for "zero-shot:ENCODERS"; ModelError if there is none."""
    if str(model).startswith(_ZERO_SHOT):
        return None
    folder = MINI_MODEL if str(model) == "mini" else Path(model)
    if not folder.is_dir():
        raise ModelError(
            f"Expected 'mini', 'zero-shot:ENCODERS' or a model folder, got {str(model)!r}: check the path."
        )
    return folder


def _request(one: Any) -> ScoreRequest[Any]:
    if isinstance(one, ScoreRequest):
        return one
    return ScoreRequest(*one) if isinstance(one, tuple) and len(one) == 2 else ScoreRequest(one)


def _checked(score: Score) -> Score:
    if score.error:
        raise (PromptError if score.error == "prompt" else ImageError)(score.reason)
    return score


def _encoders(source: str, how: ScoreOptions) -> EncoderPair:
    if how.backend == "torch":
        return load_encoders(source, how.device, how.precision)
    if how.device not in ("auto", "cpu") or how.precision != "auto":
        raise UsageError(
            "Expected no --device or --precision beside an exported --backend, which has its own: drop it."
        )
    from mst_clipiqa.encoders.onnx_runtime import open_exported

    return open_exported(load_encoders(source, "cpu", "fp32"), Path(how.backend))


def _opening(how: ScoreOptions, encoders: EncoderPair) -> OpenOptions:
    if how.color not in COLORS:
        raise UsageError(f"Expected the color srgb or as-stored, got {how.color!r}{nearest(how.color, COLORS)}.")
    if how.frame not in FRAMES:
        raise UsageError(f"Expected the frame first or middle, got {how.frame!r}{nearest(how.frame, FRAMES)}.")
    reduce_to = needed_side(encoders.view) if how.fast_decode else None
    return OpenOptions(how.max_pixels, reduce_to=reduce_to, color=how.color, frame=how.frame)
