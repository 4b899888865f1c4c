"""The README is tested: its Python runs, the flags of its commands exist, its figures are those of the model card."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

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
    command, *args = shlex.split(line)
    output = CliRunner().invoke(cli.group, [command, "--help"]).output
    missing = [a for a in args if a.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(a)}(?![\w-])", output)]
    assert missing == []


def test_every_extra_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert set(project["optional-dependencies"]) - named == set()


def test_the_tree_of_the_architecture_is_the_tree() -> None:
    tree = ARCHITECTURE.split("```")[1]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    there = {path.name for path in (ROOT / "mst_clipiqa").rglob("*.py")}
    assert named - there == set(), "named in docs/architecture.md, but not there"
    top = {f"{path.name}/" for path in (ROOT / "mst_clipiqa").iterdir() if path.is_dir() and path.name != "__pycache__"}
    folders = set(re.findall(r"^  (\w+/)", tree, re.MULTILINE))
    assert folders == top


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GALLERY = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
IMAGES = ROOT / "docs" / "images"


def names_in(script: str) -> set[str]:
    """Return the names of the images that a script makes: the keys of its tables, read off its source."""
    tree = ast.parse((ROOT / "docs" / script).read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            keys = {key.value for key in value.keys if isinstance(key, ast.Constant)}
            found |= {key for key in keys if isinstance(key, str)}
    return found - {"intervals", "new", "stopped"}


def test_every_image_is_made_by_a_script_shown_and_small() -> None:
    made = names_in("make_screenshots.py") | names_in("make_serve_screenshots.py")
    assert {path.stem for path in IMAGES.iterdir()} == made
    assert set(re.findall(r"\(images/([\w-]+)\.webp\)", GALLERY)) == made
    assert [path.name for path in IMAGES.iterdir() if path.stat().st_size >= 150_000] == []


def test_every_command_of_the_readme_has_an_image() -> None:
    script = (ROOT / "docs" / "make_screenshots.py").read_text(encoding="utf-8")
    shown = set(re.findall(r"mst-clipiqa ([\w-]+)", script)) | {"serve"}
    assert {line.split()[0] for line in COMMANDS} <= shown


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


@pytest.mark.parametrize(("target", "column"), [("quality", 1), ("correspondence", 2)])
def test_the_agreement_with_raters_is_that_of_the_model_card(target: str, column: int) -> None:
    card = (ROOT / "mst_clipiqa" / "weights" / "mini" / "README.md").read_text(encoding="utf-8")
    rows = {cells[0]: cells for line in card.splitlines() if len(cells := row_of_cells(line)) == 3}
    (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{target}` | ") and "?" in line)
    assert row_of_cells(line)[2:] == [rows["images"][column], rows["SRCC"][column]]


def row_of_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def test_the_figure_of_the_two_streams_is_what_its_script_draws() -> None:
    namespace: dict[str, Any] = {"__file__": str(ROOT / "docs" / "make_figure.py"), "__name__": "make_figure"}
    exec((ROOT / "docs" / "make_figure.py").read_text(encoding="utf-8"), namespace)
    assert namespace["figure"]() == (ROOT / "docs" / "two-streams.svg").read_text(encoding="utf-8")
