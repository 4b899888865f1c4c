"""What the package promises about itself: its names, its version, its pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import mst_clipiqa

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): Version(version) for name, version in pairs}


@pytest.mark.parametrize("name", mst_clipiqa.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(mst_clipiqa, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Scorrer'"):
        _ = mst_clipiqa.Scorrer


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'PIL', 'click'}"
    code = f"import sys, mst_clipiqa; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


NOT_PINNED = {"ray", "audit"}  # extras that `make test` leaves out
NOT_INSTALLED = {"mini-training"}  # pinned, so that a training can be repeated, but `make test` leaves it out too


def _asked(without: set[str] = NOT_PINNED) -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = [line for name, some in project["optional-dependencies"].items() if name not in without for line in some]
    return [Requirement(line) for line in project["dependencies"] + extras]


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = _pins()
    for requirement in _asked():
        if requirement.name != "mst-clipiqa":
            assert requirement.name in pins, requirement
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_every_pin_is_still_needed() -> None:
    installed = {requirement.name for requirement in _asked(without=NOT_PINNED | NOT_INSTALLED)}
    needed = {requirement.name for requirement in _asked()} - installed
    todo = installed - {"mst-clipiqa"}
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in needed and name in _pins():
            needed.add(name)
            todo |= {Requirement(r).name for r in requires(name) or []}
    assert set(_pins()) - needed == set()


def test_no_torchvision() -> None:
    assert "torchvision" not in _pins()


def test_the_changelog_knows_this_version() -> None:
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert mst_clipiqa.__version__ in heads


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").lower()
    names = {requirement.name for requirement in _asked(without=set())} - {"mst-clipiqa"}
    assert {name for name in names if f"| {name} |" not in reasons} == set()


def test_every_file_of_the_package_travels_in_the_wheel() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["mst_clipiqa"]
    package = ROOT / "mst_clipiqa"
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    files = {p for p in package.rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc"}}
    assert files - taken == set()


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "mst_clipiqa").rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()
