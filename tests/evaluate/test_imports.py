"""What is imported when: scoring waits for no statistics."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from mst_clipiqa import evaluate


def test_scoring_imports_no_statistics() -> None:
    code = (
        "import sys, mst_clipiqa.model_folder; print(*(name for name in sys.modules if name == 'scipy' or"
        " name.startswith('mst_clipiqa.evaluate.')))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    light = {"mst_clipiqa.evaluate.caution", "mst_clipiqa.evaluate.familiarity", "mst_clipiqa.evaluate.widening"}
    assert set(found.stdout.split()) == light


@pytest.mark.parametrize("name", evaluate.__all__)
def test_every_public_name_is_found(name: str) -> None:
    found = getattr(evaluate, name)
    home = getattr(found, "__module__", f"{evaluate.__name__}.caution")  # a number has none
    assert getattr(importlib.import_module(home), name) is found
    assert name in dir(evaluate)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'spearman'"):
        evaluate.spearman  # noqa: B018
