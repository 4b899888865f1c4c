"""From a trained learner to a model folder: encoders, both targets, fingerprints; intervals and the card come later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mini_training.data import HIGH, LOW, Rated
from mini_training.learner import Learner
from mini_training.plan import VIEW
from mini_training.pretrained import minilm
from mst_clipiqa.encoders.mini.folder import load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniPair, MiniParts
from mst_clipiqa.model_folder import (
    EncoderRef,
    ModelConfig,
    Target,
    TrainedModel,
    TrainedOn,
    image_hash,
    load_model,
    prompt_hash,
    save_model,
)


@dataclass(frozen=True)
class Place:
    """Where a model goes, and under which name its config asks for its encoders."""

    folder: Path
    source: str


def ship(learner: Learner, place: Place, seen: TrainedOn) -> None:
    """Write a model folder."""
    text, tokenizer = minilm(learner.plan.dim)
    text.project.load_state_dict(learner.text.state_dict())
    coarse, fine = learner.coarse.shipped(), learner.fine.shipped()
    config = MiniConfig(coarse.config, fine.config, text.config, VIEW)
    save_mini_pair(place.folder / "encoders", config, MiniParts(coarse, fine, text, tokenizer))
    encoders = load_mini_pair(place.folder / "encoders", place.source)
    with torch.no_grad():
        save_model(_trained_part(learner, encoders, seen), place.folder, "# mini\n")


def seen_by(rated: Rated, rows: np.ndarray, photos: np.ndarray, data: Path, live: Path | None) -> TrainedOn:
    """Return the fingerprints of the images and prompts trained on."""
    files = [data / "images" / rated.names[i] for i in rows]
    if live:
        files += [live / "images" / rated.photos[i] for i in photos]
    return TrainedOn(
        frozenset(image_hash(file.read_bytes()) for file in files),
        frozenset(prompt_hash(rated.prompts[i]) for i in rows),
    )


def finish(folder: Path, card: str) -> None:
    """Write a model folder again, with its card."""
    save_model(load_model(folder), folder, card)


def _trained_part(learner: Learner, encoders: MiniPair, seen: TrainedOn) -> TrainedModel:
    targets = {"quality": Target("template", LOW, HIGH), "correspondence": Target("prompt", LOW, HIGH)}
    config = ModelConfig("mini", EncoderRef.of(encoders), targets, encoders.view)
    return TrainedModel(config, {"quality": learner.quality, "correspondence": learner.match}, seen)
