"""What the package promises about itself: its names, its version, its pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import mst_clipiqa

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _pins(file: str = "constraints.txt") -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
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


NOT_PINNED = {"ray", "audit", "mutate", "release"}  # extras that `make test` leaves out
DOCS = {"docs"}  # pinned in docs/requirements.txt
NOT_INSTALLED = {"mini-training"}  # pinned, so that a training can be repeated, but `make test` leaves it out too


def _asked(without: set[str] = NOT_PINNED | DOCS) -> list[Requirement]:
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
    here = {one.name.lower().replace("_", "-"): Version(one.version).public for one in distributions()}
    if any(here.get(name, pin.public) != pin.public for name, pin in _pins().items()):
        pytest.skip("other versions than the pinned ones are installed, which may need others")
    installed = {requirement.name for requirement in _asked(without=NOT_PINNED | NOT_INSTALLED | DOCS)}
    needed = {requirement.name for requirement in _asked()} - installed
    todo = installed - {"mst-clipiqa"}
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in needed and name in _pins():
            needed.add(name)
            todo |= {Requirement(r).name for r in requires(name) or []}
    assert set(_pins()) - needed == set()


def test_what_builds_the_documentation_is_pinned() -> None:
    pins = _pins("docs/requirements.txt")
    for line in PYPROJECT["project"]["optional-dependencies"]["docs"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert set(pins) & set(_pins()) == set(), "pinned twice"


def test_no_torchvision() -> None:
    assert "torchvision" not in _pins()


def test_the_changelog_knows_this_version() -> None:
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    version = Version(mst_clipiqa.__version__)
    assert ("Unreleased" if version.is_devrelease else str(version)) in heads


def test_every_release_in_the_changelog_has_its_day() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heads.pop(0) == "[Unreleased]" or not Version(mst_clipiqa.__version__).is_devrelease
    assert [head for head in heads if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", head)] == []


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version() -> None:
    citation = _yaml("CITATION.cff")
    assert citation["version"] == mst_clipiqa.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["authors"] == PYPROJECT["project"]["authors"]
    assert citation["preferred-citation"]["url"] == PYPROJECT["project"]["urls"]["Paper"]


def test_the_workflow_runs_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    commands = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    named = {re.fullmatch(r"make (.+) PYTHON=python", command) for command in commands}
    asked = {match[1] for match in named if match} - {"${{ matrix.target }}"}
    assert None not in named, "a job that does something else than make"
    assert (asked | set(jobs["check"]["strategy"]["matrix"]["target"])) - targets == set()


def test_the_workflow_runs_on_every_python_that_the_package_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert _yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == named


def test_commits_are_checked_by_the_pinned_ruff() -> None:
    (repo,) = _yaml(".pre-commit-config.yaml")["repos"]
    assert repo["rev"] == f"v{_pins()['ruff']}"


def test_the_container_needs_no_rights_and_copies_files_that_exist() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = [
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    ]
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    assert [name for name in copied if not (ROOT / name).exists() or f"!{name}" not in allowed] == []
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    service = _yaml("compose.yaml")["services"]["mst-clipiqa"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


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


def test_extras_are_installed_in_one_way() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]
    forms = [form for page in pages for form in re.findall(r"pip install [^\n`]*\[[^\n`]*", page.read_text())]
    assert len(forms) > 5
    assert [form for form in forms if not re.fullmatch(r'pip install "mst-clipiqa\[[a-z,-]+\]"', form)] == []
    code = [path for folder in ("mst_clipiqa", "mini_training", "speed") for path in ROOT.glob(f"{folder}/**/*.py")]
    named = [path.name for path in code if "mst-clipiqa[" in path.read_text(encoding="utf-8")]
    assert named == ["errors.py"]  # the helper that all messages use
    names = {name for form in forms for name in form.split("[")[1].rstrip(']"').split(",")}
    assert names <= set(PYPROJECT["project"]["optional-dependencies"])
