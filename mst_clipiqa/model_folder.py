"""A model on disk: ``config.json``, ``model.safetensors``, ``README.md`` and, if known, ``trained_on.json`` and
``reference.safetensors``, a compact description of the features that it was trained on.

One folder may hold several targets. Each has its own fusion and head; all share the encoders, which the folder names
but does not contain. Weights are named ``<target>.<paper's name>``: ``quality.gff.W_h.weight``. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from mst_clipiqa.encoders.checks import built, built_view, check_shapes, load_weights, parse_json
from mst_clipiqa.errors import DataError, ModelError, shown
from mst_clipiqa.evaluate import Reference, Widening
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model.preprocess import PREPROCESSING_VERSION, ViewSpec
from mst_clipiqa.tables.atomic import write_together

if TYPE_CHECKING:
    from mst_clipiqa.encoders.pair import EncoderPair

MODEL_FORMAT = 1
WEIGHTS_FILE, TRAINED_ON_FILE = "model.safetensors", "trained_on.json"
REFERENCE_FILE = "reference.safetensors"
HASH_DIGITS = 16  # of the hashes in trained_on.json


@dataclass(frozen=True)
class Target:
    """One score, in the units of the ratings that it was trained on. Higher is always better."""

    head: Literal["template", "prompt", "similarity"]  # similarity: zero-shot correspondence, no trained part
    low: float  # the scale of the ratings
    high: float
    interval: float | None = None  # half-width of a 90 % interval (conformal), in the same units, for familiar images
    calibrated: bool = True  # False for zero-shot: the scores only order images
    growth: float = 0.0  # by how much the half-width grows with the distance; 0 in older folders: the same everywhere

    def halfwidth(self, excess: float) -> float | None:
        """Return the half-width of the interval of an image with this ``Reference.excess``; None if not calibrated."""
        return None if self.interval is None else float(Widening(self.interval, self.growth).halfwidth(excess))


@dataclass(frozen=True)
class EncoderRef:
    """Which frozen pair a model was trained on."""

    source: str
    sha256: str  # of the pair with its adapter, if there is one
    dim: int
    dim_fine: int | None = None  # of f_f; None if it is ``dim``
    adapter: str = ""  # sha256 of the adapter's files beside config.json; empty without one

    @classmethod
    def of(cls, pair: EncoderPair) -> EncoderRef:
        """Return the reference to a loaded pair, without an adapter."""
        return cls(pair.source, pair.sha256, pair.dim, None if pair.dim_fine == pair.dim else pair.dim_fine)

    @property
    def features(self) -> int:
        """The number of features of an image, D + D_f."""
        return self.dim + (self.dim_fine or self.dim)


@dataclass(frozen=True)
class ModelConfig:
    """``config.json``: everything needed to score with the weights next to it."""

    name: str
    encoders: EncoderRef
    targets: dict[str, Target]
    view: ViewSpec = field(default_factory=ViewSpec)
    preprocessing: str = PREPROCESSING_VERSION
    format: int = MODEL_FORMAT
    reference: str = ""  # sha256 of reference.safetensors; empty in folders without one
    weights: str = ""  # sha256 of model.safetensors; empty in older folders, which are not checked
    trained_on: str = ""  # the same of trained_on.json

    @property
    def calibrated(self) -> bool:
        """Whether all scores are on the scale of raters; otherwise they only order images."""
        return all(target.calibrated for target in self.targets.values())

    @property
    def caution(self) -> str:
        """What every command says that scores with the model; empty if it is calibrated."""
        return "" if self.calibrated else "the model is uncalibrated, so its scores only order images."


@dataclass(frozen=True)
class TrainedOn:
    """What a model has seen: the first 16 hex digits of the SHA-256 of image bytes and of normalised prompts."""

    images: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrainedModel:
    """The trained part of each target, with its configuration."""

    config: ModelConfig
    parts: dict[str, MSTCLIPIQA]
    trained_on: TrainedOn = field(default_factory=TrainedOn)
    sha256: str = ""  # of config.json and model.safetensors, set when loaded
    reference: Reference | None = None  # of the training features; None in older folders: no familiarity
    folder: Path | None = None  # that it was loaded from


def image_hash(data: bytes) -> str:
    """Return the hash of an image file's bytes, as in ``trained_on.json``."""
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def prompt_hash(prompt: str) -> str:
    """Return the hash of a prompt, as in ``trained_on.json``; case and runs of whitespace do not matter."""
    from mst_clipiqa.data.record import same_text  # the part for rated sets is not needed to score

    return hashlib.sha256(same_text(prompt).encode("utf-8", "replace")).hexdigest()[:HASH_DIGITS]


def save_model(model: TrainedModel, folder: Path, card: str, others: Mapping[str, bytes] | None = None) -> None:
    """Write a model folder: all its files first, then their names, so that a kill while writing spoils nothing.

    Args:
        model: what to write.
        folder: created if missing; files of an older model in it are replaced.
        card: the text of README.md: data, protocol, results.
        others: name -> content of files that belong to this model besides.
    """
    weights = {
        f"{target}.{name}": tensor.detach().contiguous().cpu()
        for target, part in model.parts.items()
        for name, tensor in part.state_dict().items()
    }
    files = {
        **(others or {}),
        WEIGHTS_FILE: safetensors.torch.save(weights, metadata={"format": "pt"}),
        TRAINED_ON_FILE: trained_on_json(model.trained_on),
        "README.md": card.encode(),
    }
    if model.reference is not None:
        files[REFERENCE_FILE] = safetensors.numpy.save(model.reference.to_arrays())
    fields = {"reference": REFERENCE_FILE, "weights": WEIGHTS_FILE, "trained_on": TRAINED_ON_FILE}
    named = {field: hashlib.sha256(files[name]).hexdigest() for field, name in fields.items() if name in files}
    config = dataclasses.asdict(model.config) | {"reference": ""} | named
    files["config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    write_together({folder / name: data for name, data in files.items()})
    if model.reference is None:
        (folder / REFERENCE_FILE).unlink(missing_ok=True)  # of an older model


def load_model(folder: Path) -> TrainedModel:
    """Return the model of a folder.

    Raises:
        ModelError: a file is missing, broken or of another model, a key is unknown, or a weight is missing,
            unexpected, of the wrong shape or not finite; the message names it.
    """
    for name in ("config.json", WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"Expected a model folder with {name} at {folder}, got none: check the path.")
    raw_config, raw_weights = ((folder / name).read_bytes() for name in ("config.json", WEIGHTS_FILE))
    config = _config(parse_json(raw_config, folder / "config.json"), folder / "config.json")
    weights = load_weights(raw_weights, folder / WEIGHTS_FILE)
    trained = {name: target for name, target in config.targets.items() if target.head != "similarity"}
    _check_names(weights, trained, folder)
    parts = {name: _part(name, target, config.encoders, weights, folder) for name, target in trained.items()}
    _check_named(raw_weights, config.weights, folder / WEIGHTS_FILE)
    seen = load_trained_on(folder, config.trained_on)
    digest = hashlib.sha256(raw_config + raw_weights).hexdigest()
    return TrainedModel(config, parts, seen, digest, _reference(config, folder), folder)


def _check_named(raw: bytes, named: str, path: Path) -> None:
    """Raise ModelError if config.json names another content of a file: a save was killed, or a file was copied over."""
    if named and hashlib.sha256(raw).hexdigest() != named:
        raise ModelError(
            f"Expected the {path.name} that config.json names in {path.parent}, got another: copy the whole "
            "folder, or save the model again in a new one."
        )


def _reference(config: ModelConfig, folder: Path) -> Reference | None:
    """Return the reference that config.json names, checked; None if it names none."""
    if not config.reference:
        return None
    path = folder / REFERENCE_FILE
    if not path.is_file():
        raise ModelError(f"Expected {path.name} beside config.json at {folder}, got none: copy the whole folder.")
    _check_named(raw := path.read_bytes(), config.reference, path)
    try:
        found = Reference.from_arrays({name: array.numpy() for name, array in load_weights(raw, path).items()})
    except DataError as error:
        raise ModelError(f"Expected a reference in {path}: {error} Train again.") from error
    if len(found.mean) != (wide := config.encoders.features):
        raise ModelError(f"Expected a reference of {wide} features in {path}, got {len(found.mean)}: train again.")
    return found


def trained_on_json(seen: TrainedOn) -> bytes:
    """Return ``trained_on.json``: what a model or encoders were trained on."""
    return (json.dumps({"images": sorted(seen.images), "prompts": sorted(seen.prompts)}) + "\n").encode()


def load_trained_on(folder: Path, named: str = "") -> TrainedOn:
    """Return the images and prompts that a model or encoder folder was trained on; empty without a record of them.

    Args:
        folder: of a model or of encoders.
        named: the sha256 of the record; any will do if it is empty.
    """
    path = folder / TRAINED_ON_FILE
    if not path.is_file():
        return TrainedOn()
    seen = parse_json(raw := path.read_bytes(), path)
    lists = [seen.get(name) if isinstance(seen, dict) else None for name in ("images", "prompts")]
    if not all(isinstance(some, list) and all(isinstance(one, str) for one in some) for some in lists):
        raise ModelError(f"Expected two lists of hashes, images and prompts, in {path}: save the model again.")
    _check_named(raw, named, path)
    return TrainedOn(*(frozenset(some) for some in lists if some is not None))


def _part(name: str, target: Target, encoders: EncoderRef, weights: Mapping[str, Tensor], folder: Path) -> MSTCLIPIQA:
    """Return one target's fusion and head with its weights, float32, frozen."""
    head: Literal["prompt", "template"] = "prompt" if target.head == "prompt" else "template"
    own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
    with torch.device("meta"):  # shapes only, no memory, until they match those of the file
        part = MSTCLIPIQA(encoders.dim, head, encoders.dim_fine)
    check_shapes(part, name, weights, folder)
    if left := sorted(own.keys() - part.state_dict().keys()):
        raise ModelError(
            f"Expected no weight {name}.{shown(left[0])[1:-1]} for a {target.head} head in {folder}: "
            "save the model again."
        )
    part.load_state_dict(own, assign=True)  # not copied: torch may have another default precision
    return part.float().eval().requires_grad_(False)


def _check_names(weights: Mapping[str, Tensor], targets: Mapping[str, Target], folder: Path) -> None:
    strangers = sorted(key for key in weights if key.partition(".")[0] not in targets)
    if strangers:
        raise ModelError(
            f"Expected weights of {', '.join(targets)} in {folder}, got {shown(strangers[0])}: save the model again."
        )


def _config(data: Any, path: Path) -> ModelConfig:
    if isinstance(data, dict) and data.get("format") != MODEL_FORMAT:
        raise ModelError(
            f"Expected format {MODEL_FORMAT} in {path}, got {repr(data.get('format'))[:80]}: use the version that "
            "wrote it."
        )
    config = built(ModelConfig, data, path)
    targets: Any = config.targets
    if not isinstance(targets, dict) or not targets:
        raise ModelError(f"Expected at least one target in {path}, got {shown(targets)}.")
    config = dataclasses.replace(
        config,
        encoders=built(EncoderRef, config.encoders, path),
        view=built_view(config.view, path),
        targets={name: _target(name, value, path) for name, value in targets.items()},
    )
    for words in (config.name, config.encoders.source, config.encoders.sha256, config.preprocessing):
        if not words.isprintable() or len(words) > 500:
            raise ModelError(f"Expected printable names in {path}, got {shown(words)}: rename it.")
    if config.preprocessing != PREPROCESSING_VERSION:
        raise ModelError(
            f"Expected preprocessing {PREPROCESSING_VERSION} in {path}, got {config.preprocessing[:40]}: "
            f"use the version of mst-clipiqa that trained it, or train again."
        )
    return config


def _target(name: str, data: Any, path: Path) -> Target:
    if not name.isidentifier() or len(name) > 60:
        raise ModelError(f"Expected the name of a target to be an identifier in {path}, got {shown(name)}: rename it.")
    target = built(Target, data, path, f"targets.{name}")
    if target.head not in ("template", "prompt", "similarity"):
        raise ModelError(f"Expected head template or prompt for {name} in {path}, got {shown(target.head)}.")
    if not target.low < target.high:
        raise ModelError(
            f"Expected a scale low < high for {name} in {path}, got low {target.low:g} and high {target.high:g}."
        )
    for key, value in (("interval", target.interval), ("growth", target.growth)):
        if value is not None and value < 0:
            raise ModelError(f"Expected {key} of at least 0 for {name} in {path}, got {value:g}: save the model again.")
    return target
