"""``training.json`` of a model folder: how each of its targets was trained, and how well it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mst_clipiqa.evaluate import json_ready

TRAINING_FILE = "training.json"


def read_training(folder: Path) -> dict[str, Any]:
    """Return target -> its entry; empty if the folder has no such file."""
    path = folder / TRAINING_FILE
    lines: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return lines


def write_training(folder: Path, target: str, entry: dict[str, Any]) -> None:
    """Add or replace the entry of a target; undefined numbers become null."""
    lines = read_training(folder) | {target: json_ready(entry)}
    (folder / TRAINING_FILE).write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
