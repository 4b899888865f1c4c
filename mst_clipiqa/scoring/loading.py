"""From the name of a model and options to the parts of a scorer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.encoders import load_encoders, with_text_encoder
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import UsageError, brief, check_count, nearest
from mst_clipiqa.features.at_once import check_at_once
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder, needed_side
from mst_clipiqa.images.options import MAX_PIXELS, OpenOptions
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.folders import ZERO_SHOT, encoder_source, load_folder
from mst_clipiqa.scoring.granularity import Granularity, with_setting
from mst_clipiqa.scoring.predictor import Predictor, zero_shot_model


@dataclass(frozen=True)
class ScoreOptions:
    """How to compute scores.

    Attributes:
        device: auto, cpu, cuda or mps.
        precision: of the image encoders: auto, fp32, bf16, fp16 or, on a CPU, int8.
        batch_size: images per batch; None for 32, or on a CUDA card for more.
        workers: decoding threads; None for 2, or on a CUDA card one per core, up to 16.
        cache: where features are kept, if anywhere.
        encoders: where the model's encoders are now, if they have moved.
        text_encoder: another text encoder for the same images; a trained model accepts only its own.
        backend: torch, or a folder written by ``mst-clipiqa export``, whose image encoders are used.
        granularity: how much of an image to encode: fine (all), coarse, native:K, or auto[:TOL], which chooses image by
            image; TOL is the largest accepted change, as a share of a score's scale.
        granularity_check: number of images below fine for which to measure the true change.
        merge: tokens to merge in each block of the image encoder with more of them; the other merges as large a share.
            Faster, and scores change.
        fast_decode: decode large JPEGs at reduced scale; scores change a little.
        color: "srgb" converts colours by the image's profile; "as-stored" ignores it.
        frame: of an animated image: "first" or "middle".
        max_pixels: a larger image is refused.

    Raises:
        UsageError: a value is of the wrong kind or out of range.
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    cache: Cache | None = None
    encoders: str | None = None
    text_encoder: str | None = None
    backend: str = "torch"
    granularity: str = "fine"
    granularity_check: int = 0
    merge: int = 0
    fast_decode: bool = False
    color: str = "srgb"
    frame: str = "first"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind, before anything is loaded; a ``torch.device`` or a path becomes its name."""
        given: object = self.device
        if isinstance(given, torch.device):
            object.__setattr__(self, "device", str(given))
        for name in _TEXT_OPTIONS:
            _check_kind(name, getattr(self, name), str)
        for name in _PATH_OPTIONS:
            path = getattr(self, name)
            if path is not None or name == "backend":
                _check_kind(name, path, str | os.PathLike)
                object.__setattr__(self, name, os.fspath(path))
        if self.batch_size is not None:
            check_at_once("batch_size", self.batch_size)
        if self.workers is not None:
            check_at_once("workers", self.workers)
        for name, least in _COUNT_OPTIONS.items():
            check_count(name, getattr(self, name), least)
        _check_kind("fast_decode", self.fast_decode, bool)
        if self.cache is not None:
            _check_kind("cache", self.cache, Cache)


_TEXT_OPTIONS = ("device", "precision", "granularity", "color", "frame")
_PATH_OPTIONS = ("encoders", "text_encoder", "backend")
_COUNT_OPTIONS = {"granularity_check": 0, "merge": 0, "max_pixels": 1}
_KIND_NAMES = {str: "text", str | os.PathLike: "text or a path", bool: "True or False", Cache: "a Cache of a folder"}


def _check_kind(name: str, value: object, kind: Any) -> None:
    if not isinstance(value, kind):
        raise UsageError(f"Expected {name} to be {_KIND_NAMES[kind]}, got {brief(value)}.")


def options_of(options: ScoreOptions | None, changes: Mapping[str, Any]) -> ScoreOptions:
    """Return options with other values of some fields; UsageError for a field that does not exist."""
    if not isinstance(options, ScoreOptions | None):
        raise UsageError(
            f"Expected options to be a ScoreOptions, got {brief(options)}: give options by name, such as device='cpu'."
        )
    known = [field.name for field in dataclasses.fields(ScoreOptions)]
    if unknown := next((name for name in changes if name not in known), None):
        hint = nearest(unknown, known) or f": the options are {', '.join(known)}"
        raise UsageError(f"Expected an option of a scorer, got {unknown!r}{hint}.")
    return dataclasses.replace(options or ScoreOptions(), **changes)


def load_parts(
    model: str | Path, folder: Path | None, options: ScoreOptions
) -> tuple[TrainedModel, ImageEncoder, Predictor]:
    """Return the parts of a scorer for a model folder, or for zero-shot, which has none.

    Raises:
        ModelError: the model or its encoders cannot be used.
        UsageError: this machine lacks the device, or an option makes no sense.
    """
    asked = Granularity.parse(options.granularity)
    _check_below_fine(options, asked)
    if options.merge and asked.kind != "fine":
        raise UsageError("Expected no --merge beside --granularity, which is calibrated without it: drop one.")
    trained = load_folder(folder) if folder else None
    source = encoder_source(folder, trained) if folder and trained else str(model).removeprefix(ZERO_SHOT)
    encoders = _encoders(with_text_encoder(options.encoders or source, options.text_encoder), options)
    if folder and trained and (adapter := trained.config.encoders.adapter):
        encoders = _adapted(encoders, folder, adapter, options)
    trained = trained or zero_shot_model(encoders)
    predictor = Predictor(trained, encoders, options.cache.space(encoders) if options.cache else None)
    seen = asked.seen_by(encoders.view)
    _check_below_fine(options, seen)
    predictor.name = with_setting(predictor.name, seen, options.merge)
    policy = None
    if seen.kind != "fine":  # imported here because most runs do without, and start sooner
        from mst_clipiqa.scoring.calibration_file import calibration_path, load_calibration
        from mst_clipiqa.scoring.granular_encoding import GranularEncoding

        calibration = load_calibration(calibration_path(folder), trained)
        policy = GranularEncoding(predictor, calibration, asked, options.granularity_check)
    encoder = ImageEncoder(
        encoders,
        batch_size=options.batch_size,
        workers=options.workers,
        cache=options.cache,
        policy=policy,
        opening=_opening(options, encoders),
    )
    return trained, encoder, predictor


def _check_below_fine(options: ScoreOptions, granularity: Granularity) -> None:
    """Raise UsageError if the true change is to be measured of images below fine, and all images are fine."""
    if options.granularity_check and granularity.kind == "fine":
        raise UsageError("--granularity-check needs a --granularity below fine: give one, or leave it out.")


def _encoders(source: str, options: ScoreOptions) -> EncoderPair:
    if options.backend == "torch":
        return load_encoders(source, options.device, options.precision, options.merge)
    if options.merge:
        raise UsageError("Expected no --merge beside an exported --backend, whose encoders are fixed: drop it.")
    if options.device not in ("auto", "cpu") or options.precision != "auto":
        raise UsageError(
            "Expected no --device or --precision beside an exported --backend, which has its own: drop it."
        )
    from mst_clipiqa.encoders.onnx_runtime import open_exported

    return open_exported(load_encoders(source, "cpu", "fp32"), Path(options.backend))


def _adapted(encoders: EncoderPair, folder: Path, adapter: str, options: ScoreOptions) -> EncoderPair:
    from mst_clipiqa.encoders.adapter import merge_adapter, read_adapter

    if options.backend != "torch":
        raise UsageError("Expected the backend torch for a model with adapted encoders, got an export: drop --backend.")
    return merge_adapter(encoders, read_adapter(folder, adapter), adapter)


def _opening(options: ScoreOptions, encoders: EncoderPair) -> OpenOptions:
    reduce_to = needed_side(encoders.view) if options.fast_decode else None
    return OpenOptions(options.max_pixels, reduce_to=reduce_to, color=options.color, frame=options.frame)
