"""A trained model written to its folder, and read from it with every file checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from mst_clipiqa.encoders.checks import check_shapes, load_weights
from mst_clipiqa.errors import DataError, ModelError, shown
from mst_clipiqa.evaluate import Reference
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder.config import EncoderRef, ModelConfig, Target, check_named, read_config
from mst_clipiqa.model_folder.trained_on import TRAINED_ON_FILE, TrainedOn, load_trained_on, trained_on_json
from mst_clipiqa.tables.atomic import write_together

WEIGHTS_FILE, REFERENCE_FILE = "model.safetensors", "reference.safetensors"
MODEL_FILES = ("config.json", WEIGHTS_FILE, "README.md", TRAINED_ON_FILE, REFERENCE_FILE)
"""What ``save_model`` writes."""


@dataclass(frozen=True)
class TrainedModel:
    """The trained part of each target, with its configuration."""

    config: ModelConfig
    parts: dict[str, MSTCLIPIQA]
    trained_on: TrainedOn = field(default_factory=TrainedOn)
    sha256: str = ""  # of config.json and model.safetensors, set when loaded
    reference: Reference | None = None  # of the training features; None in older folders: no familiarity
    folder: Path | None = None  # that it was loaded from


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


def load_config(folder: Path) -> ModelConfig:
    """Return the configuration of a model folder; ModelError if it is none, or the file cannot be used."""
    _check_files(folder)
    return read_config((folder / "config.json").read_bytes(), folder / "config.json")


def _check_files(folder: Path) -> None:
    for name in ("config.json", WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"Expected a model folder with {name} at {folder}, got none: check the path.")


def load_model(folder: Path) -> TrainedModel:
    """Return the model of a folder.

    Raises:
        ModelError: a file is missing, broken or of another model, a key is unknown, or a weight is missing,
            unexpected, of the wrong shape or not finite; the message names it.
    """
    _check_files(folder)
    raw_config, raw_weights = ((folder / name).read_bytes() for name in ("config.json", WEIGHTS_FILE))
    config = read_config(raw_config, folder / "config.json")
    weights = load_weights(raw_weights, folder / WEIGHTS_FILE)
    trained = {name: target for name, target in config.targets.items() if target.head != "similarity"}
    _check_names(weights, trained, folder)
    parts = {name: _part(name, target, config.encoders, weights, folder) for name, target in trained.items()}
    check_named(raw_weights, config.weights, folder / WEIGHTS_FILE)
    seen = load_trained_on(folder, config.trained_on)
    digest = hashlib.sha256(raw_config + raw_weights).hexdigest()
    return TrainedModel(config, parts, seen, digest, _reference(config, folder), folder)


def _reference(config: ModelConfig, folder: Path) -> Reference | None:
    """Return the reference that config.json names, checked; None if it names none."""
    if not config.reference:
        return None
    path = folder / REFERENCE_FILE
    if not path.is_file():
        raise ModelError(f"Expected {path.name} beside config.json at {folder}, got none: copy the whole folder.")
    check_named(raw := path.read_bytes(), config.reference, path)
    try:
        found = Reference.from_arrays({name: array.numpy() for name, array in load_weights(raw, path).items()})
    except DataError as error:
        raise ModelError(f"Expected a reference in {path}: {error} Train again.") from error
    if len(found.mean) != (wide := config.encoders.features):
        raise ModelError(f"Expected a reference of {wide} features in {path}, got {len(found.mean)}: train again.")
    return found


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
