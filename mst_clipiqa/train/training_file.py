"""``training.json`` of a model folder: how each of its targets was trained, and how well it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mst_clipiqa.encoders.checks import fits, parse_json
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.evaluate import json_ready
from mst_clipiqa.tables.atomic import write_atomically

TRAINING_FILE = "training.json"
_KEYS: dict[str, Any] = {  # what each key of an entry may hold
    **dict.fromkeys(("data", "licence", "protocol", "head"), str),
    **dict.fromkeys(("threads", "seconds"), float),
    **dict.fromkeys(("recipe", "best"), dict),
    "leakage": float | None,
    "test": dict | None,
}
_IN_WORDS: dict[Any, str] = {
    str: "text",
    float: "a number",
    dict: "an object",
    float | None: "a number or null",
    dict | None: "an object or null",
}


def read_training(folder: Path) -> dict[str, Any]:
    """Return target -> its entry; empty if the folder has no such file.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / TRAINING_FILE
    if not path.is_file():
        return {}
    found = parse_json(path.read_bytes(), path)
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ModelError(
            f"Expected the training of each target in {path}, got {shown(found)}: restore it, or start a new folder."
        )
    for target, entry in found.items():
        for key, kind in _KEYS.items():
            if key not in entry or not fits(entry[key], kind):
                got = shown(entry[key]) if key in entry else "no such key"
                raise ModelError(
                    f"Expected {_IN_WORDS[kind]} for {key} of {shown(target)} in {path}, got {got}: restore it, or "
                    "start a new folder."
                )
    return found


def write_training(folder: Path, target: str, entry: dict[str, Any]) -> None:
    """Add or replace the entry of a target; undefined numbers become null."""
    lines = read_training(folder) | {target: json_ready(entry)}
    write_atomically(folder / TRAINING_FILE, (json.dumps(lines, indent=1) + "\n").encode())
