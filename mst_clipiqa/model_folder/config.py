"""``config.json`` of a model folder: the encoders, the targets, and what the files beside it must be."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mst_clipiqa.encoders.checks import built, built_view, parse_json
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.evaluate import Widening
from mst_clipiqa.model.preprocess import PREPROCESSING_VERSION, ViewSpec

if TYPE_CHECKING:
    from mst_clipiqa.encoders.pair import EncoderPair

MODEL_FORMAT = 1


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
    def scales(self) -> dict[str, tuple[float, float]]:
        """Return target -> the scale of the ratings, without targets that are not calibrated."""
        return {name: (target.low, target.high) for name, target in self.targets.items() if target.calibrated}

    @property
    def caution(self) -> str:
        """What every command says that scores with the model; empty if it is calibrated."""
        return "" if self.calibrated else "the model is uncalibrated, so its scores only order images."


def read_config(raw: bytes, path: Path) -> ModelConfig:
    """Return the configuration in a file; ModelError if it is not one that this version can use."""
    data = parse_json(raw, path)
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


def check_named(raw: bytes, named: str, path: Path) -> None:
    """Raise ModelError if config.json names another content of a file: a save was killed, or a file was copied over."""
    if named and hashlib.sha256(raw).hexdigest() != named:
        raise ModelError(
            f"Expected the {path.name} that config.json names in {path.parent}, got another: copy the whole "
            "folder, or save the model again in a new one."
        )
