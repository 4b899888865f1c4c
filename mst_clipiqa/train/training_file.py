"""``training.json`` of a model folder: how each of its targets was trained, and how well it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.evaluate import json_ready
from mst_clipiqa.model_folder import read_json
from mst_clipiqa.tables.atomic import write_atomically

TRAINING_FILE = "training.json"
_KEYS = {"data", "licence", "protocol", "leakage", "head", "recipe", "threads", "seconds", "best", "test"}


def read_training(folder: Path) -> dict[str, Any]:
    """Return target -> its entry; empty if the folder has no such file.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / TRAINING_FILE
    if not path.is_file():
        return {}
    found = read_json(path.read_bytes(), path)
    if not isinstance(found, dict) or not all(isinstance(one, dict) and one.keys() >= _KEYS for one in found.values()):
        raise ModelError(
            f"Expected the training of each target in {path}, got {shown(found)}: restore it, or start a new folder."
        )
    return found


def write_training(folder: Path, target: str, entry: dict[str, Any]) -> None:
    """Add or replace the entry of a target; undefined numbers become null."""
    lines = read_training(folder) | {target: json_ready(entry)}
    write_atomically(folder / TRAINING_FILE, (json.dumps(lines, indent=1) + "\n").encode())
