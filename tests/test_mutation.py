"""The page on mutants: its tables are those of the results, its tests exist; and what is mutated."""

from __future__ import annotations

import ast
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mutation.page import PAGE, written
from mutation.parts import EVERYWHERE, PARTS, RESULTS, ROOT, SLOW, suites_of
from mutation.run import verdict

MUTANTS: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["mutants"]


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text, MUTANTS) == text


def test_every_survivor_is_explained() -> None:
    assert [row["after"] for row in MUTANTS if row["outcome"] == "survived" and not row["why"]] == []


def test_each_part_has_tests() -> None:
    for part, tests in PARTS.items():
        assert (ROOT / "mst_clipiqa" / part).is_dir()
        assert all((ROOT / name).exists() for name in tests)


def test_the_likeliest_to_fail_run_first() -> None:
    first, others = suites_of("evaluate", "mst_clipiqa/evaluate/widening.py")
    assert first == ["tests/evaluate/test_familiarity.py", "tests/evaluate/test_imports.py"]
    every = {f"tests/evaluate/{file.name}" for file in (Path(__file__).parent / "evaluate").glob("test_*.py")}
    assert others == [*sorted(every - {*first}), *EVERYWHERE] and len(every) > 3


def test_the_suite_is_that_of_the_tree_with_the_fault(tmp_path: Path) -> None:
    (tmp_path / "tests" / "tables").mkdir(parents=True)
    (tmp_path / "tests" / "tables" / "test_new.py").write_text("")
    assert suites_of("tables", "mst_clipiqa/tables/cells.py", tmp_path) == [["tests/tables/test_new.py", *EVERYWHERE]]


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (0, "3 passed", ("survived", "")),
        (1, "FAILED tests/a.py::test_b\nFAILED tests/a.py::test_c", ("killed", "tests/a.py::test_b")),
        (2, "ERROR tests/a.py\n", ("killed", "tests/a.py")),
        (4, "ImportError while loading conftest 'tests/conftest.py'.", ("killed", "")),
        (-9, "...", ("stopped", "")),
    ],
)
def test_a_fault_is_noticed_by_a_failure(code: int, text: str, expected: tuple[str, str]) -> None:
    assert verdict(code, text) == expected


@pytest.mark.parametrize(("code", "text"), [(4, "ERROR: file or directory not found: tests/a.py"), (5, ""), (70, "")])
def test_a_run_without_tests_notices_nothing(code: int, text: str) -> None:
    with pytest.raises(SystemExit, match="Expected pytest to run"):
        verdict(code, text)


def test_the_tests_that_the_page_and_the_parts_name_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    named |= {test.rpartition("::")[2].partition("[")[0] for test in (*EVERYWHERE, *SLOW)}
    there = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 20
    assert named - there == set()


def test_a_mutant_is_another_program_and_no_other_annotation(tmp_path: Path) -> None:
    places = pytest.importorskip("mutation.places", exc_type=ImportError)
    folder = tmp_path / "mst_clipiqa" / "model"
    folder.mkdir(parents=True)
    source = (
        "LIMIT = 3\n\n\ndef f(x: int | None, y: float = 1.5) -> int | None:\n    return x if x and x < LIMIT else y\n"
    )
    (folder / "a.py").write_text(source)
    found = list(islice(places.sample(tmp_path, "model", 0), 20))
    assert found == list(islice(places.sample(tmp_path, "model", 0), 20))
    assert {mutant.line for mutant in found} == {1, 4, 5}
    for mutant in found:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source))
        assert "int | None" in mutant.source.splitlines()[3]
        change = (mutant.before, mutant.after)
        assert places.again(tmp_path, "model", mutant.file, mutant.operator, change) == mutant
    assert places.again(tmp_path, "model", found[0].file, found[0].operator, ("LIMIT = 3", "LIMIT = 9")) is None
    (folder / "a.py").write_text("OTHER = 7\n" + source)  # a new line changes neither the others nor their order
    after = [(mutant.before, mutant.after) for mutant in places.sample(tmp_path, "model", 0)]
    assert [one for one in after if "OTHER" not in one[0]] == [(mutant.before, mutant.after) for mutant in found]
