"""What the README says is run: its Python as it stands, its commands as far as their flags."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mst_clipiqa import cli

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.+?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^mst-clipiqa (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)


def test_the_readme_has_something_to_run() -> None:
    assert PYTHON
    assert COMMANDS


@pytest.mark.parametrize("code", PYTHON)
def test_its_python_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("line", COMMANDS)
def test_its_flags_exist(line: str) -> None:
    verb, *args = shlex.split(line)
    output = CliRunner().invoke(cli.group, [verb, "--help"]).output
    missing = [a for a in args if a.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(a)}(?![\w-])", output)]
    assert missing == []


def test_its_tree_is_the_tree() -> None:
    tree = TEXT.split("## Where things live")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    there = {path.name for path in (ROOT / "mst_clipiqa").rglob("*.py")}
    assert named - there == set(), "named in the README, but not there"
    top = {path.name for path in (ROOT / "mst_clipiqa").glob("[!_]*.py")}
    assert top - named == set(), "there, but not named in the README"
