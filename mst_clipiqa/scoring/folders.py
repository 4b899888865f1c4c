"""From the name of a model (mini, a folder or a hub id) to its folder, and from the folder to the model."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from mst_clipiqa.encoders.adapter import ADAPTER_FILES
from mst_clipiqa.encoders.hub import COMMIT, HUB_ID, HubAccess, snapshot
from mst_clipiqa.encoders.mini.folder import MINI
from mst_clipiqa.errors import ModelError, UsageError, brief
from mst_clipiqa.model_folder import MODEL_FILES, TRAINED_ON_FILE, WEIGHTS_FILE, TrainedModel, load_model
from mst_clipiqa.scoring.granularity import CALIBRATION_FILE

MINI_MODEL = MINI.parent
ZERO_SHOT = "zero-shot:"
ENCODER_FOLDER = "encoders"
"""The folder beside a model's weights that holds its encoders, if they are small enough to go with it."""

_NEEDED = ("config.json", WEIGHTS_FILE)
"""What every model folder has."""
_DOWNLOADED = (
    *(*MODEL_FILES, CALIBRATION_FILE, *ADAPTER_FILES),
    *(f"{ENCODER_FOLDER}/*.json", f"{ENCODER_FOLDER}/*.safetensors"),
)


def trained_folder(model: str | Path, access: HubAccess | None = None) -> Path | None:
    """Return the folder of a trained model; a hub id is downloaded, unless it is cached.

    Args:
        model: "mini", a folder, "org/name[@revision]" or "zero-shot:ENCODERS", for which the answer is None.
        access: how to ask the hub; the revision may be part of ``model`` instead.

    Raises:
        ModelError: there is no such model.
        UsageError: a revision was given of something that has none.
    """
    if not isinstance(model, str | os.PathLike) or not str(model):
        raise UsageError(f"Expected the name of a model or its folder, got {brief(model)}: give one such as 'mini'.")
    name, _, revision = str(model).partition("@")
    is_hub_id = isinstance(model, str) and not Path(model).is_dir() and HUB_ID.fullmatch(name)
    access = access or HubAccess()
    if access.revision and (revision or not is_hub_id):
        raise UsageError(
            f"Expected a revision once, and only of a hub id, got {access.revision!r} beside {str(model)!r}."
        )
    if str(model).startswith(ZERO_SHOT):
        return None
    if is_hub_id:
        folder = snapshot(name, _DOWNLOADED, dataclasses.replace(access, revision=access.revision or revision or None))
        if missing := [file for file in _NEEDED if not (folder / file).is_file()]:
            raise ModelError(f"Expected a model of mst-clipiqa at {name}, which lacks {missing[0]}: choose another.")
        return folder
    folder = MINI_MODEL if str(model) == "mini" else Path(model)
    if not folder.is_dir():
        raise ModelError(
            f"Expected 'mini', 'zero-shot:ENCODERS', a hub id or a model folder, got {str(model)!r}: check the path."
        )
    return folder


def load_folder(folder: Path) -> TrainedModel:
    """Return the model of a folder; one from the hub is named "org/name@commit", so that every score says which."""
    trained = load_model(folder)
    name = pinned_name(folder)
    return dataclasses.replace(trained, config=dataclasses.replace(trained.config, name=name)) if name else trained


def check_record(model: TrainedModel) -> None:
    """Raise ModelError if the record of a model's training was left behind: what it has seen would pass as new."""
    if model.folder and model.config.trained_on and not (model.folder / TRAINED_ON_FILE).is_file():
        raise ModelError(
            f"Expected {TRAINED_ON_FILE}, which says what the model was trained on, in {model.folder}, got none: copy "
            "the whole folder."
        )


def pinned_name(folder: Path) -> str | None:
    """Return "org/name@commit" for a folder in the hub's cache, None for any other.

    Example:
        >>> pinned_name(Path(f"hub/models--me--red-fox/snapshots/{'0' * 40}"))
        'me/red-fox@0000000000000000000000000000000000000000'
    """
    *_, repo, snapshots, commit = ("", "", *folder.absolute().parts)
    kind, *names = repo.split("--", 2)
    if kind != "models" or len(names) != 2 or snapshots != "snapshots" or not COMMIT.fullmatch(commit):
        return None
    return f"{names[0]}/{names[1]}@{commit}"


def encoder_source(folder: Path, trained: TrainedModel) -> str:
    """Return the source of a model's encoders: its folder, if they are in it, or the names that it gives.

    Named by relative paths, they may also be beside the folder, as where a model is used from elsewhere or moved.
    """
    brought = folder / ENCODER_FOLDER
    if folder.resolve() != MINI_MODEL.resolve() and (brought / "config.json").is_file():
        return str(brought)
    source = trained.config.encoders.source
    return ",".join(_beside(folder, part) for part in source.split(",")) if "," in source else source


def _beside(folder: Path, part: str) -> str:
    """Return the path of one encoder from here, or beside a model folder; as it is if it is in neither place."""
    beside = folder.resolve().parent / part.replace("\\", "/")  # as a model that was trained on Windows names it
    return str(beside) if not Path(part).is_dir() and beside.is_dir() else part
