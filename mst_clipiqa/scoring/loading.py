"""From the name of a model and options to the parts of a scorer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.encoders import load_encoders, with_text_encoder
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder, needed_side
from mst_clipiqa.images.options import MAX_PIXELS, OpenOptions
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.folders import ZERO_SHOT, encoder_source, load_folder
from mst_clipiqa.scoring.granularity import Granularity, marked
from mst_clipiqa.scoring.predictor import Predictor, zero_shot_model


@dataclass(frozen=True)
class ScoreOptions:
    """How to compute scores.

    Attributes:
        device: auto, cpu, cuda or mps.
        precision: of the image encoders: auto, fp32, bf16, fp16 or, on a CPU, int8.
        batch_size: images per batch; None for 32, or on a CUDA card for more.
        workers: decoding threads.
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
    """

    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    workers: int = 2
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


def load_parts(
    model: str | Path, folder: Path | None, how: ScoreOptions
) -> tuple[TrainedModel, ImageEncoder, Predictor]:
    """Return the parts of a scorer for a model folder, or for zero-shot, which has none.

    Raises:
        ModelError: the model or its encoders cannot be used.
        UsageError: this machine lacks the device, or an option makes no sense.
    """
    asked = Granularity.parse(how.granularity)
    if how.granularity_check and asked.kind == "fine":
        raise UsageError("--granularity-check needs a --granularity below fine: give one, or leave it out.")
    if how.merge and asked.kind != "fine":
        raise UsageError("Expected no --merge beside --granularity, which is calibrated without it: drop one.")
    trained = load_folder(folder) if folder else None
    source = encoder_source(folder, trained) if folder and trained else str(model).removeprefix(ZERO_SHOT)
    encoders = _encoders(with_text_encoder(how.encoders or source, how.text_encoder), how)
    if folder and trained and (adapter := trained.config.encoders.adapter):
        encoders = _adapted(encoders, folder, adapter, how)
    trained = trained or zero_shot_model(encoders)
    predictor = Predictor(trained, encoders, how.cache.space(encoders) if how.cache else None)
    policy = None
    if asked.seen_by(encoders.view).kind != "fine":  # imported here because most runs do without, and start sooner
        from mst_clipiqa.scoring.calibration import Calibration
        from mst_clipiqa.scoring.granular_encoding import GranularEncoding, calibration_path

        calibration = Calibration.load(calibration_path(folder), trained)
        policy = GranularEncoding(predictor, calibration, asked, how.granularity_check)
        predictor.name = marked(predictor.name, asked)
    encoder = ImageEncoder(
        encoders,
        batch_size=how.batch_size,
        workers=how.workers,
        cache=how.cache,
        policy=policy,
        opening=_opening(how, encoders),
    )
    return trained, encoder, predictor


def _encoders(source: str, how: ScoreOptions) -> EncoderPair:
    if how.backend == "torch":
        encoders = load_encoders(source, how.device, how.precision)
        if how.merge:
            _merge(encoders, how.merge)
        return encoders
    if how.merge:
        raise UsageError("Expected no --merge beside an exported --backend, whose encoders are fixed: drop it.")
    if how.device not in ("auto", "cpu") or how.precision != "auto":
        raise UsageError(
            "Expected no --device or --precision beside an exported --backend, which has its own: drop it."
        )
    from mst_clipiqa.encoders.onnx_runtime import open_exported

    return open_exported(load_encoders(source, "cpu", "fp32"), Path(how.backend))


def _merge(encoders: EncoderPair, tokens: int) -> None:
    merge = getattr(encoders, "merge_tokens", None)
    if merge is None:
        raise UsageError(f"Expected encoders of CLIP's kind for --merge, got {encoders.source}: leave it out.")
    merge(tokens)


def _adapted(encoders: EncoderPair, folder: Path, adapter: str, how: ScoreOptions) -> EncoderPair:
    from mst_clipiqa.encoders.adapter import merge, read_adapter

    if how.backend != "torch":
        raise UsageError("Expected the backend torch for a model with adapted encoders, got an export: drop --backend.")
    return merge(encoders, read_adapter(folder, adapter), adapter)


def _opening(how: ScoreOptions, encoders: EncoderPair) -> OpenOptions:
    reduce_to = needed_side(encoders.view) if how.fast_decode else None
    return OpenOptions(how.max_pixels, reduce_to=reduce_to, color=how.color, frame=how.frame)
