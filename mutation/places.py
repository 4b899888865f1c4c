"""Where the package can be mutated: the operators of cosmic-ray, without mutants that no test could tell apart.

Annotations are left out, because nothing evaluates them. Of the binary operators only the nearest ones are put in place
of each other: a shift in place of a sum would be noticed by anything.
"""

from __future__ import annotations

import ast
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

_NEAR = {("Add", "Sub"), ("Mul", "Div"), ("Div", "FloorDiv"), ("Pow", "Mul"), ("BitOr", "BitAnd"), ("Mod", "Add")}
_LEFT_OUT = {"VariableReplacer", "VariableInserter"}  # need names to be given
Position = tuple[int, int]  # line from 1, column from 0


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        part: of the package.
        file: from the root of the repository.
        line: of the fault, from 1.
        operator: that makes it.
        before, after: the lines that it changes.
        source: of the whole file with the fault.
    """

    part: str
    file: str
    line: int
    operator: str
    before: str
    after: str
    source: str


def sample(root: Path, part: str, seed: int) -> Iterator[Mutant]:
    """Yield one mutant per place of a part in random order: the first n are a random sample, whatever n is.

    A place is drawn by its file and its line's text, so that a change of other lines does not change the sample.
    """
    found = []
    for path in sorted((root / "mst_clipiqa" / part).rglob("*.py")):
        source, file = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        lines, times = source.splitlines(), Counter[str]()
        for (line, column), choices in _places(source):
            text = lines[line - 1]
            key = f"{seed} {file} {column - len(text) + len(text.lstrip())} {text.strip()}"
            times[key] += 1
            found.append((random.Random(f"{key} {times[key]}"), file, source, choices))
    for rng, file, source, choices in sorted(found, key=lambda place: place[0].random()):
        for name, occurrence in rng.sample(choices, len(choices)):
            mutant = _mutant(part, file, source, name, occurrence)
            if mutant is not None:
                yield mutant
                break


def again(root: Path, part: str, file: str, operator: str, change: tuple[str, str]) -> Mutant | None:
    """Return the mutant that an operator makes of a file with this change, text before and after; None if none does."""
    source = (root / file).read_text(encoding="utf-8")
    for _, choices in _places(source):
        for name, occurrence in choices:
            found = _mutant(part, file, source, name, occurrence) if name == operator else None
            if found is not None and (found.before, found.after) == change:
                return found
    return None


def operators() -> dict[str, type[Operator]]:
    """Return the operators that are used, by name."""
    provider, found = OperatorProvider(), {}
    for name in provider:
        kind, *symbols = name.split("_")
        far = kind == "ReplaceBinaryOperator" and not {tuple(symbols), tuple(symbols[::-1])} & _NEAR
        if not far and name not in _LEFT_OUT:
            found[name] = provider[name]
    return found


def _places(source: str) -> list[tuple[Position, list[tuple[str, int]]]]:
    """Return each place of a file with its mutants, in order: operator and occurrence."""
    nodes, skipped = list(ast_nodes(get_ast(source))), list(_not_evaluated(ast.parse(source)))
    found: dict[Position, list[tuple[str, int]]] = defaultdict(list)
    for name, kind in operators().items():
        operator = kind()
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(positions):
            if not any(first <= start <= last for first, last in skipped):
                found[start].append((name, occurrence))
    return sorted(found.items())


def _not_evaluated(tree: ast.Module) -> Iterator[tuple[Position, Position]]:
    """Yield the first and last position of annotations and of ``if TYPE_CHECKING:``."""
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            parts.append(node)
        for part in parts:
            if isinstance(part, ast.expr | ast.stmt):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def _mutant(part: str, file: str, source: str, name: str, occurrence: int) -> Mutant | None:
    """Return the fault that an operator makes; None if it is no Python or no change."""
    code = mutate_code(source, operators()[name](), occurrence)
    try:
        if code is None or ast.dump(ast.parse(code)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    old, new = source.splitlines(), code.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    last = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    before, after = (joined("\n".join(lines[first : max(first + 1, len(lines) - last)])) for lines in (old, new))
    return Mutant(part, file, first + 1, name, before, after, code)


def joined(text: str) -> str:
    """Return text with its lines and spaces joined by single spaces, as mutants hold it."""
    return " ".join(text.split())
