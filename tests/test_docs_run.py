"""What the pages and notebooks show is run: their Python, their flags, and the commands of the tutorials."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mst_clipiqa import cli
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.settings import Settings
from tests.serving import running, toy_scorer

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```" in path.read_text(encoding="utf-8"))
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
TUTORIALS = ("first-scores", "generator")
TOY = {"explain"}  # with `mini` an explanation takes seconds
NOT_RUN = {"serve", "explain", "score-cluster", "train", "benchmark"}  # as above, or until it is stopped
LIGHTER = {"report": ["--explain", "0"]}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[str]:
    """Return the lines of a page that begin with the command, continued lines joined, comments left out."""
    text = "\n".join(blocks(page, "")).replace("\\\n", " ")
    return [line.partition("  #")[0].strip() for line in text.splitlines() if line.startswith("mst-clipiqa ")]


def calls(line: str) -> list[list[str]]:
    """Return the arguments of each call of the command in a line: those of a pipe, or one."""
    split = shlex.shlex(line, posix=True, punctuation_chars="|")
    split.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in split:
        if word == "|":
            found.append([])
        else:
            found[-1].append(word)
    return [words[1:] for words in found if words[:1] == ["mst-clipiqa"]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a new folder with the files that pages name; a model is loaded once."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.py", "*.md"))
    names = {"coffee.jpg": "a cup of coffee", "coffee_blur.jpg": "a cup of coffee", "red_ball.png": "a red ball"}
    for folder in ("images", "old", "new"):
        (tmp_path / folder).mkdir()
        for name in names:
            with Image.open(ROOT / "examples" / name) as image:
                image.resize((160, 120)).save(tmp_path / folder / name)
    lines = ["file,prompt", *(f"{name},{prompt}" for name, prompt in names.items())]
    (tmp_path / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in ("image.png", "a.png", "b.png"):
        shutil.copy(tmp_path / "images" / "red_ball.png", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Scorer, "load", functools.cache(Scorer.load))
    return tmp_path


def invoke(args: list[str], given: str | None = None) -> Result:
    done = CliRunner().invoke(cli.group, [*args, *LIGHTER.get(args[0], [])], input=given)
    assert done.exit_code == 0, f"{args}: {done.output}"
    return done


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem in TOY:
        monkeypatch.setattr(Scorer, "load", lambda *args, **changes: toy_scorer())
    code = "\n".join(blocks(page, "python"))
    space = {"__name__": page.stem}
    if "http://127.0.0.1:8000" not in code:
        exec(compile(code, page.name, "exec"), space)
        return
    with running(toy_scorer(), Settings(port=0)) as address:
        exec(compile(code.replace("http://127.0.0.1:8000", address), page.name, "exec"), space)


@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)], ids=lambda page: page.stem)
def test_the_flags_of_a_page_exist(page: Path) -> None:
    wrong = []
    for command, *args in (call for line in command_lines(page) for call in calls(line)):
        known = cli.group.get_command(None, command)  # type: ignore[arg-type]
        if known is None:
            wrong.append(command)
            continue
        options = {flag for one in known.params for flag in (*one.opts, *one.secondary_opts)} | set(_of_group(known))
        wrong += [f"{command} {arg}" for arg in args if re.match(r"--?[a-z]", arg) and arg.split("=")[0] not in options]
    assert wrong == []


def _of_group(command: Any) -> Iterator[str]:
    for sub in getattr(command, "commands", {}).values():
        yield from (flag for one in sub.params for flag in one.opts)


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_commands_of_a_tutorial_run(name: str, home: Path) -> None:
    lines = command_lines(DOCS / f"{name}.md")
    assert len(lines) > 4
    for line in lines:
        given = None
        for call in calls(line):
            if call[0] not in NOT_RUN:
                given = invoke(call, given).stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, home: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    space: dict[str, Any] = {"__name__": path.stem}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "kept without outputs: they would be figures that nobody compares"
        lines = "".join(cell["source"]).splitlines()
        for line in (line for line in lines if line.startswith("!")):
            (call,) = calls(line[1:].format_map(space))
            invoke(call)
        exec(compile("\n".join(line for line in lines if not line.startswith("!")), path.name, "exec"), space)


def test_the_index_names_every_page() -> None:
    lists = blocks(DOCS / "index.md", r"\{toctree\}")
    lines = [line for block in lists for line in block.splitlines() if line and not line.startswith(":")]
    named = {re.sub(r".*<(.+)>", r"\1", line) for line in lines}
    assert len(named) == len(lines)
    assert {
        page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md") if "_build" not in page.parts
    } - {"index"} == named
