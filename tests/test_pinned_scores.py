"""The scores of ``mini`` on ``examples/`` are pinned, and the changelog names each change of them."""

from __future__ import annotations

import copy
import json
import math

import pytest

from mini_training import pin
from mini_training.pin import CHANGELOG, PINNED, TOLERANCE, Pin

HOW = 'run `python -m mini_training.pin "What changed."`, which renews the pin and names the change in CHANGELOG.md'


@pytest.fixture(scope="module")
def pinned() -> Pin:
    found: Pin = json.loads(PINNED.read_text(encoding="utf-8"))
    return found


def test_the_pin_is_of_these_weights(pinned: Pin) -> None:
    assert pinned["weights"] == pin.weights_hash(), f"The weights of mini are not those of the pin: {HOW}."


def test_mini_scores_the_examples_as_pinned(pinned: Pin) -> None:
    changes = pin.differences(pinned, pin.pin_of_today())
    assert max(changes.values()) <= TOLERANCE, f"Scores of mini changed by {changes}. If that is meant, {HOW}."


def test_the_changelog_names_the_pin(pinned: Pin) -> None:
    named = pin.newest_pin(CHANGELOG.read_text(encoding="utf-8"))
    assert named == pin.short_hash(pinned), f"CHANGELOG.md names the pin {named}: {HOW}."


def test_a_change_is_noticed(pinned: Pin) -> None:
    changed = copy.deepcopy(pinned)
    name = next(iter(changed["scores"]))
    changed["scores"][name]["quality"] += 2 * TOLERANCE
    assert pin.differences(pinned, changed)["quality"] > TOLERANCE
    assert pin.short_hash(changed) != pin.short_hash(pinned)
    del changed["scores"][name]
    assert pin.differences(pinned, changed)["gate"] == math.inf


def test_the_changelog_keeps_one_line_for_what_is_not_released() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Changed\n\n- Other.\n\n## [0.1.0]\n\n- Old (pin `00000000`).\n"
    once = pin.with_change(text, "11111111", "First.")
    twice = pin.with_change(once, "22222222", "Second.")
    assert pin.newest_pin(text) == "00000000"
    assert pin.newest_pin(twice) == "22222222"
    assert "11111111" not in twice
    assert twice.replace("- Scores of `mini` change (pin `22222222`): Second.\n", "") == text
    bare = pin.with_change("## [Unreleased]\n\n## [0.1.0]\n", "11111111", "First.")
    assert bare.index("### Changed") < bare.index("11111111") < bare.index("## [0.1.0]")
