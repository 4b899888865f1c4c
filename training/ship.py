"""Stage 4: from trained weights to a model folder.

    python -m training.ship --data DIR --weights FILE --out FOLDER --name NAME --parts train

The folder gets the encoders in float16 and the trained part of both targets. Rated pictures that were not trained on
give the 90 % intervals (split conformal); a model trained on all of them takes those of its twin.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from mst_clipiqa.embedded.encoders import MiniConfig, MiniPair, MiniParts, load_mini_pair, save_mini_pair
from mst_clipiqa.folder import (
    EncoderRef,
    ModelConfig,
    Target,
    TrainedModel,
    TrainedOn,
    picture_hash,
    prompt_hash,
    save,
)
from mst_clipiqa.model.preprocess import ViewSpec
from training.data import HIGH, LOW, Rated
from training.learner import Learner
from training.plan import Plan
from training.words import Words

HEADS = {"quality": "template", "correspondence": "prompt"}


def view_of(plan: Plan) -> ViewSpec:
    """Return what the product shows the towers: the whole picture small, and four native crops."""
    return ViewSpec(
        size=plan.size,
        mean=(128 / 255,) * 3,
        std=(64 / 255,) * 3,
        fine="native",
        crops=4,
        crop_size=plan.crop,
        native_side=512,
    )


def save_encoders(model: Learner, words: Words, plan: Plan, folder: Path) -> None:
    """Write the frozen part."""
    config = MiniConfig(model.coarse.config, model.fine.config, model.text.config, view_of(plan))
    parts = MiniParts(model.coarse, model.fine, model.text, words.tokenizer, words.known)
    save_mini_pair(folder, config, parts)


def trained_part(model: Learner, encoders: MiniPair, name: str, seen: TrainedOn) -> TrainedModel:
    """Return both targets' fusion and head, on the encoders as written; intervals are still empty."""
    targets = {target: Target(head, LOW, HIGH) for target, head in HEADS.items()}  # type: ignore[arg-type]
    ref = EncoderRef(encoders.source, encoders.sha256, encoders.dim)
    config = ModelConfig(name, ref, targets, encoders.view)
    return TrainedModel(config, {"quality": model.quality, "correspondence": model.match}, seen)


def seen_by(rated: Rated, rows: np.ndarray, data: Path) -> TrainedOn:
    """Return the fingerprints of the pictures and prompts trained on."""
    return TrainedOn(
        frozenset(picture_hash((data / "images" / rated.names[i]).read_bytes()) for i in rows),
        frozenset(prompt_hash(rated.prompts[i]) for i in rows),
    )


def with_intervals(model: TrainedModel, halves: dict[str, float]) -> TrainedModel:
    """Return the model with the half-widths of its intervals."""
    targets = {n: dataclasses.replace(t, interval=round(halves[n], 3)) for n, t in model.config.targets.items()}
    return dataclasses.replace(model, config=dataclasses.replace(model.config, targets=targets))


def conformal(predicted: np.ndarray, rated: np.ndarray, share: float = 0.9) -> float:
    """Return the half-width that held the rating for ``share`` of pictures, with the finite-sample correction."""
    error = np.abs(predicted - rated)[~np.isnan(predicted)]
    rank = int(np.ceil((len(error) + 1) * share))
    return float(np.sort(error)[min(rank, len(error)) - 1])


def ship(model: Learner, words: Words, plan: Plan, folder: Path, name: str, seen: TrainedOn, source: str) -> None:
    """Write a whole model folder with a placeholder card; ``source`` is how its config names the encoders."""
    save_encoders(model, words, plan, folder / "encoders")
    encoders = load_mini_pair(folder / "encoders", source)
    with torch.no_grad():
        save(trained_part(model, encoders, name, seen), folder, f"# {name}\n")
