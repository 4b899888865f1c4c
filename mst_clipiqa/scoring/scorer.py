"""Images in, scores out: open, view, encode once, predict every target.

image - open - views - f_c, f_f - predictor - Score
      in threads         in batches
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import torch

from mst_clipiqa.encoders.hub import HubAccess
from mst_clipiqa.encoders.precision import own_settings, resolve_device
from mst_clipiqa.encoders.threads import run_in_new_thread_after_fork
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder, check_several
from mst_clipiqa.features.opened import AlreadyScored, Failed, Opened
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring import saving
from mst_clipiqa.scoring.answers import ControlAnswers, completed
from mst_clipiqa.scoring.folders import trained_folder
from mst_clipiqa.scoring.loading import ScoreOptions, load_parts, options_of
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.reloading import LoadedFrom, reduced
from mst_clipiqa.scoring.score import ControlArgs, Score, ScoreRequest, Tag, as_request, checked, is_one_prompt

if TYPE_CHECKING:
    from mst_clipiqa.images.decode import Pixels, Source


class Scorer:
    """A model and its encoders, ready to score images; ``Scorer.load`` makes one from a name.

    A loaded scorer can be pickled, as for a spawned process: it is loaded again there, from its folder.

    Args:
        model: the trained part.
        encoder: of images, with the encoders that the model was trained on.
        predictor: of this model and these encoders, if there is one already.
    """

    def __init__(self, model: TrainedModel, encoder: ImageEncoder, predictor: Predictor | None = None) -> None:
        self.predictor = predictor or Predictor(model, encoder.encoders, encoder.cache)
        self.encoder = encoder
        self.model = model
        self.answers = ControlAnswers(encoder, self.predictor)
        self._source: LoadedFrom | None = None  # how ``load`` made it

    @classmethod
    def load(cls, model: str | Path = "mini", options: ScoreOptions | None = None, **changes: Any) -> Scorer:
        """Return a scorer for a model.

        Args:
            model: "mini", a model folder, a hub id, or "zero-shot:ENCODERS" (no training; uncalibrated).
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
        return cls._loaded(model, trained_folder(model), options_of(options, changes))

    @classmethod
    def _loaded(cls, model: str | Path, folder: Path | None, options: ScoreOptions) -> Scorer:
        # Tensors made in the caller's inference mode could never be part of a graph.
        with torch.inference_mode(False), own_settings(torch.device("cpu")):
            scorer = cls(*run_in_new_thread_after_fork(lambda: load_parts(model, folder, options)))
        scorer._source = LoadedFrom(cls, str(model) if folder is None else folder.absolute(), options)
        return scorer

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "mini",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **options: Any,
    ) -> Scorer:
        """Return a scorer for a model on the Hugging Face hub, or for any that ``load`` takes.

        Every score says which commit it comes from: ``Score.model`` is "org/name@commit", which loads it again.

        Args:
            model: "org/name" or "org/name@revision", else as for ``load``. Only a hub id is ever downloaded.
            revision: branch, tag or commit; the main branch by default.
            token: of a private or gated repository; by default the one that ``hf auth login`` stored.
            cache_dir: where downloads are kept, if not in the hub's own cache.
            local_files_only: use the cache only. Without a network this happens by itself.
            force_download: download files again that are cached.
            options: fields of ``ScoreOptions``, such as ``device`` and ``precision``.

        Raises:
            ModelError: there is no such model, or it is neither cached nor can the hub be reached.
            UsageError: a revision was given of something that has none, or as for ``load``.
        """
        score_options = options_of(None, options)
        access = HubAccess(revision, token, cache_dir, local_files_only, force_download)
        return cls._loaded(model, trained_folder(model, access), score_options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder, with its card; small encoders go with it, so that it needs no other file.

        Raises:
            UsageError: the model is zero-shot, which has nothing to save, or the folder cannot be written or holds
                files of something else.
        """
        saving.save_pretrained(self.model, self.encoder.encoders.source, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Upload what ``save_pretrained`` writes to the Hugging Face hub; returns the address of the commit.

        Args:
            repo_id: "org/name"; made if missing.
            private: whether a new repository is private.
            token: who uploads; by default the one that ``hf auth login`` stored.
            commit_message: by default it names the model.
            create_pr: open a pull request in place of a commit.

        Raises:
            UsageError: nobody else could load the encoders, or the hub cannot be reached or refuses.
        """
        upload = saving.HubUpload(private, token, commit_message, create_pr)
        return saving.push_to_hub(self.model, self.encoder.encoders.source, repo_id, upload)

    def to(self, device: str | torch.device) -> Scorer:
        """Move the encoders to a device; returns itself. The heads, which are small, stay on the CPU.

        Raises:
            UsageError: this machine lacks the device, or the encoders were exported for the CPU.
        """
        pair = self.encoder.encoders
        was_on = pair.device.type
        self.encoder.to(device if isinstance(device, torch.device) else resolve_device(device))
        self._source = self._source and self._source.moved(pair, was_on)
        self.predictor.prompts.cache = self.encoder.cache
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to load this model with these options in another process; UsageError unless ``load`` made it."""
        return reduced(self, self._source)

    def __repr__(self) -> str:
        """Name the model, its targets, and where and in what it computes."""
        pair = self.encoder.encoders
        targets = ", ".join(self.ranges)
        return f"Scorer({self.model.config.name!r}, {targets}; {pair.source} on {pair.device}, {pair.precision})"

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The scale (low, high) of each target."""
        return self.predictor.ranges

    @overload  # how many images an array or a tensor holds, its type does not say
    def __call__(self, images: Pixels, prompt: str | None = None, **controls: Unpack[ControlArgs]) -> Any: ...
    @overload  # str and bytes are sequences too: the first match counts
    def __call__(  # type: ignore[overload-overlap]
        self, images: Source, prompt: str | None = None, **controls: Unpack[ControlArgs]
    ) -> Score: ...
    @overload
    def __call__(
        self,
        images: Source | Sequence[Any],
        prompt: Sequence[str | None] | None = None,
        **controls: Unpack[ControlArgs],
    ) -> list[Score]: ...

    def __call__(self, images: Any, prompt: Any = None, **controls: Unpack[ControlArgs]) -> Any:
        """Score one image or many.

        Args:
            images: a path, bytes, open file, PIL image, uint8 array (H, W, 3) or float tensor (3, H, W) in [0, 1]; or
                several of them: a list, or an array or tensor with a first dimension more.
            prompt: one for all, or a list: as long as the list of images, or several prompts for one image.
            controls: ``negative``, ``reference`` and ``control``, as of a ``ScoreRequest``: of every image.

        Returns:
            Score for one image and at most one prompt, else a list of them, in order.

        Raises:
            ImageError: an image cannot be read.
            PromptError: a prompt is not text, or empty though the model has a head that reads prompts.
        """
        opened = self.answers.open_controls(**controls)
        one_image = not isinstance(images, list | tuple) and getattr(images, "ndim", 0) != 4
        one_prompt = is_one_prompt(prompt)
        sources = [images] if one_image else list(images)
        prompts = [prompt] if one_prompt else list(prompt)
        if one_image and len(prompts) > 1:
            return self._prompts_of_one_image(images, prompts, opened)
        if len(prompts) == 1:
            prompts *= len(sources)
        if len(prompts) != len(sources):
            raise UsageError(f"Expected one prompt or one per image ({len(sources)}), got {len(prompts)}.")
        requests = (ScoreRequest[None](s, p, **opened) for s, p in zip(sources, prompts, strict=True))
        scores = [checked(score, request.image) for request, score in self.stream(requests)]
        return scores[0] if one_image and one_prompt else scores

    def _prompts_of_one_image(self, image: Any, prompts: list[Any], controls: dict[str, Any]) -> list[Score]:
        """Return a score for each prompt of an image that is encoded once."""
        (encoded,) = self.encode([image])
        scores = self.score_encoded([encoded] * len(prompts), prompts)
        request = ScoreRequest[None](image, **controls)
        return [checked(self.answers.complete(score, request, encoded), image) for score in scores]

    def stream(self, requests: Iterable[ScoreRequest[Tag]]) -> Iterator[tuple[ScoreRequest[Tag], Score]]:
        """Yield each request with its score, in order, in bounded memory whatever their number.

        An image or prompt that cannot be scored becomes a ``Score`` with its ``error`` and ``reason``. If ``requests``
        raises, that comes out after the scores of the requests before.

        Raises:
            UsageError: something else than a ``ScoreRequest`` was given.
        """
        for batch in self.batches(requests):
            yield from ((request, score) for request, _, score in batch)

    def batches(
        self, requests: Iterable[ScoreRequest[Tag]]
    ) -> Iterator[list[tuple[ScoreRequest[Tag], Encoded | Failed | AlreadyScored, Score]]]:
        """Yield what ``stream`` does in batches, each request also with its image's features."""

        def opened(request: ScoreRequest[Tag]) -> Opened:
            if not isinstance(request, ScoreRequest):
                raise UsageError(
                    f"Expected a ScoreRequest, got {type(request).__name__}: give ScoreRequest(image, prompt)."
                )
            self.answers.check(request)
            return self.encoder.open(request.image, (request.prompt,))

        for batch in self.encoder.batches(requests, opened):
            scores = self.score_encoded([encoded for _, encoded in batch], [request.prompt for request, _ in batch])
            yield [(r, e, self.answers.complete(s, r, e)) for (r, e), s in zip(batch, scores, strict=True)]

    def many(self, images: Iterable[Any], **controls: Unpack[ControlArgs]) -> Iterator[Score]:
        """Yield scores as ``stream`` does, without the requests; images and (image, prompt) pairs are fine too.

        Args:
            images: in any number.
            controls: as in a call, of every image that is not a ``ScoreRequest``.

        Raises:
            UsageError: one image was given in place of several.
        """
        check_several(images)
        opened = self.answers.open_controls(**controls)
        for _, score in self.stream(as_request(image, opened) for image in images):
            yield score

    def encode(self, images: Sequence[Any]) -> list[Encoded]:
        """Return features of images, for ``score_encoded``.

        Raises:
            ImageError: an image cannot be read; the message is of the first one.
            UsageError: one image was given in place of several.
        """
        return self.encoder.encode(images)

    def score_encoded(
        self, encoded: Sequence[Encoded | Failed | AlreadyScored], prompts: Sequence[str | None]
    ) -> list[Score]:
        """Return a score for each encoded image and its prompt; no image is encoded again."""
        pairs = [(image, prompt) for image, prompt in zip(encoded, prompts, strict=True) if isinstance(image, Encoded)]
        predicted = iter(self._predicted(*zip(*pairs, strict=True)) if pairs else [])
        scores: list[Score] = []
        for image in encoded:
            match image:
                case Encoded():
                    scores.append(completed(next(predicted), image))
                case Failed(reason):
                    scores.append(self.predictor.failed("image", reason))
                case AlreadyScored(score):
                    scores.append(score)
        return scores

    def _predicted(self, encoded: Sequence[Encoded], prompts: Sequence[str | None]) -> list[Score]:
        f_c, f_f = torch.stack([e.f_c for e in encoded]), torch.stack([e.f_f for e in encoded])
        return self.predictor.predict(f_c, f_f, prompts)
