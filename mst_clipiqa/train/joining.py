"""A new target joins the model that is already in a folder: all targets share one pair of encoders and one split.

With two splits, one target would have been trained on images that another is tested on, and nothing in the folder could
say which part an image belongs to.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mst_clipiqa.data import PARTS_OF_SPLIT
from mst_clipiqa.encoders.checks import parse_json
from mst_clipiqa.errors import ModelError, UsageError, shown
from mst_clipiqa.evaluate import Reference
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, load_model
from mst_clipiqa.scoring.calibration_file import calibration_path, load_calibration
from mst_clipiqa.scoring.folders import check_record
from mst_clipiqa.scoring.saving import check_model_output
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.train.card import card
from mst_clipiqa.train.contamination import trained_on, union
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.training_file import TRAINING_FILE, read_training

CHECKPOINT = "checkpoint.pt"
SPLIT_FILE = "split.json"
EDITED_CARD = "README.old{}.md"
CardKept = Callable[[Path], None]
"""Called with the place where a card that somebody has edited is kept."""


def older_model(job: TrainingJob, encoder: ImageEncoder) -> TrainedModel | None:
    """Return the model in the folder whose other targets the new one joins; None if there are no others.

    Raises:
        UsageError: the folder holds files that are not those of a model, or its targets were trained on another split.
        ModelError: a file of the folder is damaged or missing, or its model has other encoders.
    """
    if not (job.out / "config.json").is_file():
        if not (job.out / CHECKPOINT).is_file():  # else this training was interrupted
            check_model_output(job.out, TRAINING_FILE, SPLIT_FILE, f"{job.target}.png")
        return None
    older = load_model(job.out)
    read_training(job.out)
    if older.config.encoders.sha256 != encoder.encoders.sha256:
        raise ModelError(f"Expected a new folder or one with the same encoders, got {job.out}: choose another with -o.")
    others = [name for name in older.config.targets if name != job.target]
    if not others:
        return None
    check_record(older)
    _check_split(job, others)
    return older


def _check_split(job: TrainingJob, others: list[str]) -> None:
    """Raise UsageError if the other targets of a folder were not trained on this split."""
    saved, protocol = _saved_split(job.out), job.split.protocol
    if all(saved.get(part) == names for part, names in job.split.names().items()):
        return
    example = _differs(saved, job.split.names()) if saved.get("protocol") == protocol else ""
    raise UsageError(
        f"Expected the split of {' and '.join(others)} in {job.out} ({saved.get('protocol', 'unknown')}), got another "
        f"({protocol}){example}: give the same data, seed and shares, or choose another folder with -o."
    )


def _differs(saved: dict[str, Any], names: dict[str, list[str]]) -> str:
    """Return the end of a sentence about the first image that is in another part than before; empty if none is."""
    before, now = ({name: part for part in names for name in some.get(part, ())} for some in (saved, names))
    first = min((name for name in before.keys() | now.keys() if before.get(name) != now.get(name)), default=None)
    if first is None:
        return ""
    was, is_in = (f"in {some[first]}" if first in some else "in no part" for some in (before, now))
    return f", where {shown(first)} is {is_in} and was {was}"


def _saved_split(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's split.json; empty if there is none, or it holds something else."""
    path = folder / SPLIT_FILE
    found = parse_json(path.read_bytes(), path) if path.is_file() else None
    return found if isinstance(found, dict) and all(map(_is_names, map(found.get, PARTS_OF_SPLIT))) else {}


def _is_names(part: object) -> bool:
    return isinstance(part, list) and all(isinstance(name, str) for name in part)


def joined(
    job: TrainingJob,
    encoder: ImageEncoder,
    older: TrainedModel | None,
    learnt: tuple[Target, MSTCLIPIQA, Reference | None],
) -> TrainedModel:
    """Return the folder's model with the new target.

    Args:
        job: what was trained.
        encoder: the frozen pair.
        older: the model with the other targets, if there are any.
        learnt: the target, its fusion and head, and the reference of the features.
    """
    target, part, reference = learnt
    seen = trained_on([*job.usable.train, *job.usable.validation])
    if older is None:
        pair = encoder.encoders
        config = ModelConfig(job.out.resolve().name, EncoderRef.of(pair), {job.target: target}, pair.view)
        return TrainedModel(config, {job.target: part}, seen, reference=reference)
    config = dataclasses.replace(older.config, targets={**older.config.targets, job.target: target})
    parts = {**older.parts, job.target: part}
    return TrainedModel(config, parts, union([older.trained_on, seen]), reference=reference)


def config_of(folder: Path) -> bytes:
    """Return the content of config.json, by which another process's save shows; empty without one."""
    path = folder / "config.json"
    return path.read_bytes() if path.is_file() else b""


def edited_card(folder: Path, target: str) -> Path | None:
    """Return where the card of a model folder goes if somebody has edited it; None if it is as ``train`` wrote it.

    That is README.old.md, or README.old2.md and so on, so that no earlier card is lost.

    Args:
        folder: may be missing, or hold no model.
        target: whose training may have been killed before its results went into the card.
    """
    written = folder / "README.md"
    if not config_of(folder) or not written.is_file():
        return None
    config, entries = load_model(folder).config, read_training(folder)
    protocol = str(_saved_split(folder).get("protocol", ""))
    without = {name: entry for name, entry in entries.items() if name != target}
    text = written.read_text(encoding="utf-8", errors="replace")
    if text in (card(config, protocol, some) for some in (entries, without)):
        return None
    content = written.read_bytes()
    places = (folder / EDITED_CARD.format(number if number > 1 else "") for number in itertools.count(1))
    return next(place for place in places if not place.exists() or place.read_bytes() == content)


def make_way(job: TrainingJob, config: bytes, kept: CardKept) -> None:
    """Prepare the folder for the new model: a card that somebody has edited is copied to another name.

    Args:
        job: what was trained.
        config: ``config_of`` the folder when this training began.
        kept: called with the place of the copy.

    Raises:
        UsageError: another process has saved a model there since, which this one would replace.
    """
    if config_of(job.out) != config:
        raise UsageError(
            f"Expected {job.out} as it was when this training began, got a model that another process has saved there "
            "since: run the command again."
        )
    _keep_edited_card(job, kept)


def finish(job: TrainingJob, model: TrainedModel, text: str, kept: CardKept) -> None:
    """Write the card, and remove what is of no more use: checkpoint and an older calibration."""
    folder = job.out
    _keep_edited_card(job, kept)  # it may have been edited while the test part was scored
    write_atomically(folder / "README.md", text.encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)
    path = calibration_path(folder)
    if path.is_file():
        try:
            load_calibration(path, model)
        except ModelError:  # it was measured on other weights
            path.unlink()


def _keep_edited_card(job: TrainingJob, kept: CardKept) -> None:
    if (place := edited_card(job.out, job.target)) is not None:
        write_atomically(place, (job.out / "README.md").read_bytes())
        kept(place)
