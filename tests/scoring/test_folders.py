"""Where the encoders of a model folder are found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mst_clipiqa.scoring.folders import encoder_source


def named(source: str) -> Any:
    """Return what ``encoder_source`` reads of a model."""
    return SimpleNamespace(config=SimpleNamespace(encoders=SimpleNamespace(source=source)))


def test_encoders_named_by_relative_paths_are_found_here_or_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in ("encs/c", "encs/f", "model"):
        (home / folder).mkdir(parents=True)
    away.mkdir()
    monkeypatch.chdir(home)
    assert encoder_source(Path("model"), named("encs/c,encs/f")) == "encs/c,encs/f"
    monkeypatch.chdir(away)
    there = f"{home / 'encs/c'},{home / 'encs/f'}"
    assert encoder_source(Path("../home/model"), named("encs/c,encs/f")) == there
    assert encoder_source(home / "model", named("encs\\c,encs\\f")) == there  # named on Windows
    assert encoder_source(home / "model", named("some/hub,encs/f")) == f"some/hub,{home / 'encs/f'}"


def test_a_folder_with_the_name_of_a_pair_is_not_taken_for_it(tmp_path: Path) -> None:
    for folder in ("model", "openai"):
        (tmp_path / folder).mkdir()
    assert encoder_source(tmp_path / "model", named("openai")) == "openai"
