"""The parts of the package that are mutated, and the tests that have to notice a fault in each."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "mutation.json"

PARTS: dict[str, tuple[str, ...]] = {
    "model": ("tests/model/test_model.py", "tests/model"),
    "encoders": ("tests/encoders", "tests/scoring/test_hub.py"),
    "scoring": (
        *(f"tests/scoring/test_{name}.py" for name in ("score", "scorer", "controls", "granularity", "hub", "resume")),
        "tests/scoring",
    ),
    "train": ("tests/train/test_train.py", "tests/train", "tests/scoring/test_granularity.py"),
    "evaluate": ("tests/evaluate",),
    "benchmark": ("tests/benchmark",),
    "data": ("tests/data",),
    "inputs": ("tests/inputs", "tests/test_as_found.py"),
    "tables": ("tests/tables",),
}
"""Part -> its tests, quick ones first. A fault that only the tests of another part notice counts as a survivor."""

SLOW = (
    "tests/scoring/test_resume.py::test_sigkill_at_random_moments_of_the_real_command",
    "tests/scoring/test_batch_mates.py::test_clip_in_bf16",
    "tests/scoring/test_batch_mates.py::test_clip_in_fp32[trained]",
    "tests/scoring/test_batch_mates.py::test_clip_in_fp32[zero_shot_model]",
    "tests/scoring/test_batch_mates.py::test_mini",
    "tests/scoring/test_onnx_export.py::test_a_clip_pair_is_exported[False]",
    "tests/scoring/test_onnx_export.py::test_another_pair_is_refused",
    "tests/scoring/test_onnx_export.py::test_the_command_says_how_it_agrees",
)
"""Tests that take too long to run on every fault; they are left out, so a fault that only they notice survives."""

EVERYWHERE = ("tests/test_house.py::test_dataclasses_are_frozen",)
"""Tests of all parts, which run after those of a part."""


def suites_of(part: str, file: str, root: Path = ROOT) -> list[list[str]]:
    """Return the tests of a part in a tree: first the files that name the module of a file, then all others.

    The first are the likeliest to fail, and importing all others takes longer than running these.
    """
    files: dict[str, bool] = {}
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    for test in PARTS[part]:
        path = root / test
        for one in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
            text = one.read_text(encoding="utf-8")
            files.setdefault(
                one.relative_to(root).as_posix(), module in text or f"from {package} import {name}" in text
            )
    named = [one for one, names_it in files.items() if names_it]
    return [suite for suite in (named, [*(one for one in files if one not in named), *EVERYWHERE]) if suite]
