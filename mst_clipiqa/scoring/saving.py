"""A model into a folder of its own, with all that it needs, or onto the hub."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mst_clipiqa.encoders.adapter import ADAPTER_FILES
from mst_clipiqa.encoders.hub import answers
from mst_clipiqa.encoders.mini.folder import MINI, SMALL_FILES
from mst_clipiqa.encoders.mini.int8 import RANGES_FILE
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.model_folder import (
    MODEL_FILES,
    TRAINED_ON_FILE,
    TrainedModel,
    load_trained_on,
    save_model,
    trained_on_json,
)
from mst_clipiqa.scoring.folders import ENCODER_FOLDER, MINI_MODEL, ZERO_SHOT, check_record
from mst_clipiqa.scoring.granularity import CALIBRATION_FILE

_ENCODER_FILES = (*SMALL_FILES, RANGES_FILE, TRAINED_ON_FILE)
"""What the folder of a model's own encoders may hold; not all encoders can compute in int8."""
_OF_TRAINING = ("training.json", "split.json", "adapt.json")
"""What ``train`` and ``adapt`` write about their work; a saved copy has none of it."""


def check_model_output(folder: Path, *others: str) -> None:
    """Check that a model folder can be written here, and would replace nothing but an older model.

    Args:
        folder: where to; may be missing.
        others: names of the files that are written besides those of every model folder.

    Raises:
        UsageError: the folder has a file of one of these names, but is not a model folder.
    """
    there = [name for name in (*MODEL_FILES, *others) if (folder / name).exists()]
    if there and not _is_model(folder) and not _is_half_saved(folder):
        raise UsageError(
            f"Expected a new folder or that of a model, got {folder}, which holds {there[0]} of something else: "
            "choose another folder."
        )


def _is_half_saved(folder: Path) -> bool:
    """Return whether saving a model was killed: config.json, which appears last, still has its temporary name."""
    return any(folder.glob(".config.json.*.part"))


def _is_model(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"format", "encoders", "targets"} <= config.keys()


def save_pretrained(model: TrainedModel, source: str, folder: str | Path) -> None:
    """Write a model folder, with its card and, if they are small, its encoders.

    Args:
        model: a trained model; UsageError for zero-shot, which has nothing to save.
        source: what loads its encoders here.
        folder: made if missing; files of an older model in it are replaced.

    Raises:
        UsageError: the model is zero-shot, or the folder cannot be written or holds files that are not those of a
            model.
        ModelError: the record of its training is missing.
    """
    check_record(model)
    if model.config.name.startswith(ZERO_SHOT):
        raise UsageError("Expected a trained model to save, got zero-shot, which has no weights: train one.")
    if not str(folder):
        raise UsageError("Expected a folder to save the model in, got an empty name: give one such as 'my-model'.")
    try:
        check_model_output(Path(folder), ENCODER_FOLDER)
        _write(model, source, Path(folder))
    except OSError as error:
        raise UsageError(
            f"Expected a folder that the model can be saved in, got {shown(folder)} ({error.strerror or error}): "
            "choose another, or make room."
        ) from error


def _write(model: TrainedModel, source: str, folder: Path) -> None:
    card, others = f"# {model.config.name}\n", _encoder_files(source)
    if model.folder is not None:
        written = model.folder / "README.md"
        card = written.read_text(encoding="utf-8", errors="replace") if written.is_file() else card
        names = [*(ADAPTER_FILES if model.config.encoders.adapter else ()), CALIBRATION_FILE]
        names += [f"{target}.png" for target in model.config.targets]  # curves, which the card shows
        others |= {name: path.read_bytes() for name in names if (path := model.folder / name).is_file()}
    is_another = model.folder is None or model.folder.resolve() != folder.resolve()
    stale = _stale_files(folder) if is_another else []
    _copy_linked_encoders(folder)
    save_model(model, folder, card, others)
    for name in stale:
        if name not in others:
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it may hold files that are not ours
        (folder / ENCODER_FOLDER).rmdir()


def _copy_linked_encoders(folder: Path) -> None:
    """Replace a symbolic link to encoders by a folder with copies: what it points to may not be ours to overwrite."""
    link = folder / ENCODER_FOLDER
    if not link.is_symlink():
        return
    with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as made:
        copies = Path(made) / ENCODER_FOLDER
        copies.mkdir()
        for name in _ENCODER_FILES:
            if (link / name).is_file():
                shutil.copyfile(link / name, copies / name)
        link.unlink()
        copies.rename(link)


def _encoder_files(source: str) -> dict[str, bytes]:
    """Return the files of small encoders for a model folder, name -> content; empty for other encoders."""
    brought = _small_encoders(source)
    if brought is None:
        return {}
    seen = load_trained_on(MINI_MODEL if brought == MINI else brought)
    files = {name: path.read_bytes() for name in _ENCODER_FILES if (path := brought / name).is_file()}
    files[TRAINED_ON_FILE] = trained_on_json(seen)
    return {f"{ENCODER_FOLDER}/{name}": data for name, data in files.items()}


def _stale_files(folder: Path) -> list[str]:
    """Return the names of files that may describe the model in a folder and would not fit another one."""
    if not _is_model(folder):
        return []
    targets = json.loads((folder / "config.json").read_bytes())["targets"]
    encoders = [f"{ENCODER_FOLDER}/{name}" for name in _ENCODER_FILES]
    names = targets if isinstance(targets, dict) else ()  # it need not be a model that can be loaded
    curves = [f"{target}.png" for target in names if target.isidentifier()]
    return [*ADAPTER_FILES, CALIBRATION_FILE, *_OF_TRAINING, *encoders, *curves]


@dataclass(frozen=True)
class HubUpload:
    """How to put a model on the hub, in the words of ``huggingface_hub``.

    Attributes:
        private: whether a new repository is; None for the organisation's default.
        token: who uploads; None for the one of ``hf auth login``.
        commit_message: None for one that names the model.
        create_pr: whether to open a pull request in place of a commit.
    """

    private: bool | None = None
    token: str | bool | None = None
    commit_message: str | None = None
    create_pr: bool | None = None


def push_to_hub(model: TrainedModel, source: str, repo: str, upload: HubUpload) -> str:
    """Upload what ``save_pretrained`` writes; returns the address of the commit.

    Raises:
        UsageError: the encoders are on this machine only, or the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, constants

    parts = [part.strip() for part in source.split(",")]
    if _small_encoders(source) is None and source != "openai" and any(Path(part).exists() for part in parts):
        raise UsageError(
            f"Expected encoders that others can load, got the folder {parts[0]!r}: name them by their hub ids "
            'with Scorer.load(..., encoders="COARSE,FINE").'
        )
    if constants.HF_HUB_OFFLINE or not answers(constants.ENDPOINT):
        raise UsageError(f"Expected a network to upload {repo} to the hub, got none: connect, and push again.")
    api = HfApi(token=upload.token, library_name="mst-clipiqa")
    with TemporaryDirectory() as made:
        save_pretrained(model, source, Path(made))
        try:
            repo = api.create_repo(repo, private=upload.private, exist_ok=True).repo_id
            message = upload.commit_message or f"Upload {model.config.name} with mst-clipiqa"
            done = api.upload_folder(repo_id=repo, folder_path=made, commit_message=message, create_pr=upload.create_pr)
        except Exception as error:  # the errors of the client's own client differ from version to version
            raise UsageError(
                f"Expected to upload to {repo}, got {shown(error)}: log in with hf auth login, or pass a token."
            ) from error
    return str(done.pr_url or done.commit_url)


def _small_encoders(source: str) -> Path | None:
    """Return the folder of small encoders like mini's; None if others are meant."""
    folder = MINI if source == "mini" else Path(source)
    return folder if all((folder / file).is_file() for file in SMALL_FILES) else None
