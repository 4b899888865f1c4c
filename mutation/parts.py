"""The parts of the package that are mutated, and the tests that have to notice a fault in each."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "mutation.json"

PARTS: dict[str, tuple[str, ...]] = {
    "model": ("tests/model/test_model.py", "tests/model"),
    "encoders": ("tests/encoders",),
    "scoring": ("tests/scoring",),
    "train": ("tests/train/test_train.py", "tests/train"),
    "evaluate": ("tests/evaluate",),
    "benchmark": ("tests/benchmark",),
    "data": ("tests/data",),
    "inputs": ("tests/inputs", "tests/test_as_found.py"),
    "tables": ("tests/tables",),
}
"""Part -> its tests, quick ones first. A fault that only the tests of another part notice counts as a survivor."""
