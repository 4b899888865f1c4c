"""``trained_on.json`` of a model folder: which images and prompts a model has seen, as hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.encoders.checks import parse_json
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model_folder.config import check_named

TRAINED_ON_FILE = "trained_on.json"
HASH_DIGITS = 16  # of the hashes in it


@dataclass(frozen=True)
class TrainedOn:
    """What a model has seen: the first 16 hex digits of the SHA-256 of image bytes and of normalised prompts.

    Attributes:
        images, prompts: the hashes.
        is_complete: whether there was nothing else; not so if it is unknown what a model was trained on.
    """

    images: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()
    is_complete: bool = True


def image_hash(data: bytes) -> str:
    """Return the hash of an image file's bytes, as in ``trained_on.json``."""
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def prompt_hash(prompt: str) -> str:
    """Return the hash of a prompt, as in ``trained_on.json``; case and runs of whitespace do not matter."""
    from mst_clipiqa.data.record import same_text  # the part for rated sets is not needed to score

    return hashlib.sha256(same_text(prompt).encode("utf-8", "replace")).hexdigest()[:HASH_DIGITS]


def trained_on_json(seen: TrainedOn) -> bytes:
    """Return ``trained_on.json``: what a model or encoders were trained on."""
    incomplete = {} if seen.is_complete else {"is_complete": False}
    return (json.dumps({"images": sorted(seen.images), "prompts": sorted(seen.prompts), **incomplete}) + "\n").encode()


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
    check_named(raw, named, path)
    images, prompts = (frozenset(some or ()) for some in lists)
    return TrainedOn(images, prompts, seen.get("is_complete", True) is True)
