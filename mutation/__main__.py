"""Mutate a random sample of places, and record in ``docs/mutation.json`` which faults the tests noticed.

    python -m mutation --each 34 [--part tables ...]

Each fault is put into a copy of the repository, and the tests of its part run on it until one fails. The result is
written after each, so it can be stopped at any moment, and the same command resumes: it tries the survivors again, then
new faults, the parts in turn at random. Faults in lines that have changed since are dropped. A line on each survivor is
written by hand, into its ``why``, and kept.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from mutation.parts import EVERYWHERE, PARTS, RESULTS, ROOT, suites_of
from mutation.places import Mutant, again, joined, sample
from mutation.run import applied, copy, load_libraries, run, seconds_of_children

SEED = 0
Row = dict[str, Any]
"""A ``Mutant`` without its source, and: outcome, by (the test that noticed it), cpu_seconds, why (it survived)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=34, help="mutants per part")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to mutate")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    had: list[Row] = json.loads(args.output.read_text(encoding="utf-8"))["mutants"] if args.output.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder).resolve() / "tree", Path(folder).resolve() / "log.txt"
        copy(ROOT, root)
        load_libraries(root)
        rows = {_key(row): row for row in had if _still_there(row, root)}
        for part in args.part:
            require_healthy(part, log)
        for number, mutant in enumerate(_to_try(rows, root, args.part, args.each)):
            row = {key: value for key, value in asdict(mutant).items() if key != "source"}
            key = _key(row)
            rows[key] = row | _outcome(mutant, root, number, log, rows.get(key, {}))
            write(args.output, sorted(rows.values(), key=lambda row: list(PARTS).index(row["part"])))
            print(f"{rows[key]['outcome']}: {mutant.file}:{mutant.line}: {mutant.after}", file=sys.stderr)


def _key(row: Row) -> tuple[str, ...]:
    return row["file"], row["operator"], row["before"], row["after"]


def _still_there(row: Row, root: Path) -> bool:
    path = root / row["file"]
    return path.is_file() and row["before"] in joined(path.read_text(encoding="utf-8"))


def _to_try(rows: dict[tuple[str, ...], Row], root: Path, parts: list[str], each: int) -> list[Mutant]:
    """Return the survivors, and new mutants until each part has ``each``, in random order."""
    survivors: list[Mutant | None] = []
    new: list[Mutant] = []
    for row in rows.values():
        if row["outcome"] == "survived" and row["part"] in parts:
            change = (row["before"], row["after"])
            survivors.append(again(root, row["part"], row["file"], row["operator"], change))
    for part in parts:
        missing = each - sum(row["part"] == part for row in rows.values())
        fresh = (one for one in sample(root, part, SEED) if _key(asdict(one)) not in rows)
        new += islice(fresh, max(0, missing))
    random.Random(SEED).shuffle(new)
    return [one for one in survivors if one is not None] + new


def require_healthy(part: str, log: Path) -> None:
    """Stop if the tests of a part fail without any fault."""
    outcome, failed = run([*PARTS[part], *EVERYWHERE], log)
    if outcome != "survived":
        sys.exit(f"Expected the tests of {part} to pass without a fault, but {failed or outcome}:\n{log.read_text()}")


def _outcome(mutant: Mutant, root: Path, number: int, log: Path, earlier: Row) -> Row:
    before = seconds_of_children()
    with applied(mutant, root, number):
        for tests in suites_of(mutant.part, mutant.file, root):
            outcome, failed = run(tests, log)
            if outcome != "survived":
                break
    why = {"why": earlier.get("why", "")} if outcome == "survived" else {}
    return {"outcome": outcome, "by": failed, "cpu_seconds": round(seconds_of_children() - before, 1), **why}


def write(path: Path, rows: list[Row]) -> None:
    """Write all mutants, one per line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"seed": {SEED}, "mutants": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
