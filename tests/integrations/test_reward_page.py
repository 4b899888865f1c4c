"""Every block of Python in docs/reward.md runs as it is, and the class that its configuration names exists."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reward.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: re.findall(r"import (\w+)$", code, re.MULTILINE)[-1])
def test_its_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torchmetrics" in code:
        pytest.importorskip("torchmetrics")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "reward.md", "exec"), {"__name__": "page"})


def test_flow_factory_finds_the_class_by_its_path() -> None:
    path = re.findall(r'reward_model: "([\w.]+)"', PAGE)[0]
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name).required_fields == ("prompt", "image")
