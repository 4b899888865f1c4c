"""The rules of the house, read off the source: which part may import which, and what no file may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mst_clipiqa"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# A part is a file or a folder at the top of the package. These may import only the parts named here ...
ONLY: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "model": {"errors"},
    "encoders": {"model", "errors"},
    "evaluate": {"errors"},
    "images": {"errors"},
    "tables": {"errors"},
    "data": {"tables", "errors"},
}
# ... and every part imports from its own row or from a row before it. Every part has a row.
ROWS = [
    {"_version", "errors"},
    {"model", "images", "tables", "evaluate", "data"},
    {"inputs", "encoders"},
    {"model_folder", "features"},
    {"scoring"},
    {"train", "analysis", "explain", "distribute"},
    {"adapt", "benchmark", "report"},
    {"cli", "serve", "integrations"},
    {"__main__"},
]
DATA_ONLY = {"weights"}  # folders without code
TOP = {"__init__", "__main__", "_version", "errors"}  # the files at the top
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "PIL", "pyarrow", "openpyxl"}
MAX_LINES = 300
CHANGING = [  # dataclasses that gather something; all others are frozen
    "cli/commands/_score_table.py: Seen",
    "data/ratings.py: Labels",
    "explain/sheet.py: _Page",
    "inputs/item_maker.py: ItemMaker",
    "inputs/prompt_choice.py: PromptChoice",
    "integrations/flow_factory.py: RewardModelOutput",
    "report/explanations.py: ExplanationBlocks",
    "scoring/stop.py: Stop",
    "serve/engine.py: _ImageJob",
    "tables/tars.py: Sample",
    "train/checkpoint.py: TrainingState",
]


def part_of(file: str) -> str:
    """Return the part that a file belongs to: "model/gff.py" -> "model", "scorer.py" -> "scorer"."""
    return file.split("/")[0].removesuffix(".py")


def row_of(part: str) -> int:
    return next(i for i, row in enumerate(ROWS) if part in row)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield every imported name in full, wherever in the file it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def top_imports(tree: ast.Module) -> set[str]:
    """Return the packages that are imported when the file is, ``if TYPE_CHECKING:`` left out."""
    body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    return {name.split(".")[0] for node in body if not is_function(node) for name in imports(node)}


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def wrong_arrows(file: str, tree: ast.Module) -> list[str]:
    """Return what this file imports of the package and must not."""
    part, parts, wrong = part_of(file), {part_of(file) for file in TREES}, []
    for name in imports(tree):
        first, _, rest = name.partition(".")
        if first != "mst_clipiqa":
            if first == "":
                wrong.append(f"{name} (relative)")
            continue
        other = rest.split(".")[0]
        if other == part:
            continue
        allowed = other in ONLY[part] if part in ONLY else other in parts and row_of(other) <= row_of(part)
        if not allowed:
            wrong.append(name)
    return wrong


def forbidden(tree: ast.Module) -> list[str]:
    """Return the line and the kind of each statement that no file may have."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append(f"{node.lineno}: assert")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if keywords.get("weights_only") != "True":
                found.append(f"{node.lineno}: torch.load without weights_only=True")
    unpicklers = {name for name in imports(tree) if name.split(".")[0] in {"pickle", "joblib", "dill"}}
    if unpicklers - {"pickle.UnpicklingError"}:
        found.append("imports pickle or a relative of it")
    return found


def unfrozen(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the dataclasses whose instances can be changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            how = [ast.unparse(one) for one in node.decorator_list if "dataclass" in ast.unparse(one)]
            if how and "frozen=True" not in how[0]:
                yield node.name


def test_dataclasses_are_frozen() -> None:
    assert sorted(f"{file}: {name}" for file, tree in TREES.items() for name in unfrozen(tree)) == CHANGING


def test_every_part_has_one_row_and_the_top_holds_these_files_only() -> None:
    parts = sorted(part for row in ROWS for part in row)
    assert parts == sorted({part_of(file) for file in TREES} - {"__init__"})
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - DATA_ONLY == {part_of(file) for file in TREES} - TOP
    assert not [file for file in TREES if part_of(file) in DATA_ONLY]


LISTED = {
    part: named
    for part in sorted({path.split("/")[0] for path in TREES if path.count("/") == 1})
    if (named := set(re.findall(r"\w+\.py\b", ast.get_docstring(TREES[f"{part}/__init__.py"]) or "")))
}
"""The files that a part of the package lists, of each part that lists any."""


@pytest.mark.parametrize("part", LISTED)
def test_a_part_says_what_is_in_each_of_its_files(part: str) -> None:
    assert LISTED[part] == {path.name for path in (PACKAGE / part).glob("*.py")} - {"__init__.py"}
    assert len(LISTED) >= 13


@pytest.mark.parametrize("file", [f for f in TREES if f != "__init__.py"])
def test_arrows_point_one_way(file: str) -> None:
    assert wrong_arrows(file, TREES[file]) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("model/gff.py", "from mst_clipiqa.images.files import read_image"),
        ("model/gff.py", "from mst_clipiqa.encoders.precision import DTYPES"),
        ("evaluate/measures.py", "import mst_clipiqa.data"),
        ("scoring/scorer.py", "def f():\n    from mst_clipiqa import train"),
        ("train/fit.py", "from mst_clipiqa.cli.commands.score import command"),
        ("report/page.py", "from mst_clipiqa.cli.progress import progress"),
        ("scoring/scorer.py", "import mst_clipiqa"),
        ("scoring/scorer.py", "from mst_clipiqa import Score"),
        ("images/decode.py", "from mst_clipiqa.scoring.scorer import Score"),
        ("features/cache.py", "from mst_clipiqa.scoring.scorer import Score"),
        ("scoring/scorer.py", "from .model import gff"),
    ],
)
def test_a_wrong_arrow_is_noticed(file: str, source: str) -> None:
    assert wrong_arrows(file, ast.parse(source))


def circle(trees: dict[str, ast.Module]) -> set[str]:
    """Return the modules that import each other round in a circle, and those that wait for them."""
    files = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in trees}
    needs: dict[str, set[str]] = {}
    for module, file in files.items():
        names = [name.removeprefix("mst_clipiqa.") for name in imports(trees[file])]
        found = (name if name in files else name.rpartition(".")[0] for name in names)
        needs[module] = {name for name in found if name in files and name != module}
    while free := {module for module, others in needs.items() if not others & needs.keys()}:
        needs = {module: others for module, others in needs.items() if module not in free}
    return set(needs)


def test_no_circles() -> None:
    # The package's own __init__ names everything, but imports it only on first use.
    assert circle({file: tree for file, tree in TREES.items() if file != "__init__.py"}) == set()


def test_a_circle_is_noticed() -> None:
    a, b, c = "from mst_clipiqa.b import x", "import mst_clipiqa.c.d", "from mst_clipiqa import a"
    trees = {"a.py": ast.parse(a), "b.py": ast.parse(b), "c/d.py": ast.parse(c), "e.py": ast.parse("import os")}
    assert circle(trees) == {"a", "b", "c.d"}


def test_evaluate_needs_numpy_and_scipy_only() -> None:
    names = {name.split(".")[0] for file in TREES if part_of(file) == "evaluate" for name in imports(TREES[file])}
    assert names - sys.stdlib_module_names <= {"numpy", "scipy", "mst_clipiqa"}
    assert "scipy" in names


@pytest.mark.parametrize(
    "file", [f for f in TREES if part_of(f) in {"__init__", "__main__", "_version", "cli", "errors"}]
)
def test_the_command_line_starts_light(file: str) -> None:
    assert not top_imports(TREES[file]) & HEAVY


def test_a_heavy_start_is_noticed() -> None:
    light = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import numpy"
    assert not top_imports(ast.parse(light)) & HEAVY
    assert top_imports(ast.parse("import os\nfrom PIL import Image")) & HEAVY == {"PIL"}
    assert top_imports(ast.parse("try:\n    import torch\nexcept ImportError:\n    pass")) & HEAVY == {"torch"}


@pytest.mark.parametrize("file", TREES)
def test_no_file_asserts_or_unpickles(file: str) -> None:
    assert forbidden(TREES[file]) == []


@pytest.mark.parametrize(
    "source",
    ["assert x", "torch.load(p)", "torch.load(p, weights_only=False)", "def f():\n    import pickle"],
)
def test_a_forbidden_statement_is_noticed(source: str) -> None:
    assert forbidden(ast.parse(source))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_one_idea_a_file(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def tracked() -> list[Path]:
    """Return the files that git knows; outside a checkout (a source archive), every file of our folders."""
    if (ROOT / ".git").exists():
        out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        return [path for name in out.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for folder in ("mst_clipiqa", "tests", "docs", "examples") for path in (ROOT / folder).rglob("*.*")]


# Written in pieces, so that this file does not find itself.
NOT_OURS = re.compile(
    r"(?<![\w.])/(?:work|root|opt/py"
    + r"pi|opt/wheels)/"
    + "|"
    + r"\b(?:py"
    + r"pi\.org|py"
    + r"thonhosted\.org|download\.py"
    + r"torch\.org)"
)


def test_no_file_names_a_machine_or_an_index() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image, or weights
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in NOT_OURS.finditer(text)]
    assert found == []


@pytest.mark.parametrize("text", ["see /wo" + "rk/main", "-i https://py" + "pi.org/simple", "open('/ro" + "ot/x')"])
def test_a_foreign_name_is_noticed(text: str) -> None:
    assert NOT_OURS.search(text)
