"""One command remakes all that ships: its stages run in order, each once. No training runs here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mini_training import __main__ as command
from mini_training.measure import _drop
from mst_clipiqa.cli import group
from mst_clipiqa.evaluate import mean_interval
from mst_clipiqa.scoring.folders import MINI_MODEL

TRAINING = Path(__file__).resolve().parent.parent / "mini_training"
NAMES = ("prepare", "development", "final", "leave_out", "no_photographs", "card", "calibrate", "reliability", "pin")


def run(monkeypatch: pytest.MonkeyPatch, work: Path, *flags: str) -> list[tuple[str, str]]:
    """Run the command with stages that only note that they ran, and with what sentence."""
    ran: list[tuple[str, str]] = []
    for name in NAMES:
        monkeypatch.setattr(command, f"_{name}", lambda paths, name=name: ran.append((name, paths.changed)))
    where = ["--data", "a", "--live", "b", "--kodak", "c", "--work", str(work)]
    monkeypatch.setattr(sys, "argv", ["mini_training", *where, *flags])
    command.main()
    return ran


def test_one_command_runs_every_stage_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path, "--changed", " More photographs. ") == [
        (name, "More photographs.") for name in NAMES
    ]


def test_without_a_sentence_all_but_the_pin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [name for name, _ in run(monkeypatch, tmp_path)] == list(NAMES[:-1])


def test_a_pin_needs_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--stage", "pin")
    assert "Expected --changed with one sentence on what changed" in capsys.readouterr().err


def test_stages_run_in_order_whatever_order_they_are_named_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [name for name, _ in run(monkeypatch, tmp_path, "--stage", "reliability", "calibrate")] == [
        "calibrate",
        "reliability",
    ]


def test_calibrate_writes_beside_what_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(group, "main", lambda args, standalone_mode: seen.append(args))
    command._calibrate(command.Paths(tmp_path, tmp_path, tmp_path, tmp_path))
    (args,) = seen
    assert args[:3] == ["calibrate", "--model", str(MINI_MODEL)] and str(tmp_path) in args


def test_the_fall_with_a_wrong_prompt_has_the_interval_of_means() -> None:
    drop, ids = np.array([0.1, np.nan, 0.4, 0.2, 0.5, 0.3]), np.array([3, 3, 1, 1, 2, 2])
    found = _drop(drop, ids)
    mean = mean_interval([0.1, 0.4, 0.2, 0.5, 0.3], [3, 1, 1, 2, 2])
    assert found == {"fall": mean.value, "low": mean.low, "high": mean.high, "n": 5}


def test_the_readme_gives_the_figures_of_the_card_and_of_the_repeated_training() -> None:
    card = json.loads((MINI_MODEL / "figures.json").read_text())["development"]
    repeated = json.loads((TRAINING / "repeated.json").read_text())
    rows = [line for line in (TRAINING / "README.md").read_text().splitlines() if " to 0." in line]
    assert len(rows) == 3
    for row, found in zip(rows, zip(_srcc(card), _srcc(repeated), strict=True), strict=True):
        cells = [f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in found]
        assert row.endswith(f"| {cells[0]} | {cells[1]} |")
        first, again = found
        assert first["low"] <= again["value"] <= first["high"]
        assert again["low"] <= first["value"] <= again["high"]


def _srcc(found: dict[str, Any]) -> list[dict[str, float]]:
    return [one["srcc"] for one in (found["quality"], found["correspondence"], found["photographs"]["other_half"])]
