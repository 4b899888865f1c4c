"""Mutate a random sample of places, and record in ``docs/mutation.json`` which faults the tests noticed.

    python -m mutation --each 34 [--part tables ...]

Each fault is put into a copy of the repository, and the tests of its part run on it until one fails. The result is
written after each, so it can be stopped at any moment, and the same command resumes; only survivors are tried again. A
line on each survivor is written by hand, into its ``why``, and kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from mutation.parts import PARTS, RESULTS, ROOT
from mutation.places import Mutant, sample
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
        found = {part: [row for row in had if row["part"] == part] for part in PARTS}
        for part in args.part:
            known = {_key(row): row for row in found[part]}
            found[part] = []
            require_healthy(part, log)
            for number, mutant in enumerate(islice(sample(root, part, SEED), args.each)):
                row = {key: value for key, value in asdict(mutant).items() if key != "source"}
                earlier = known.get(_key(row), {})
                tried = earlier.get("outcome") in ("killed", "stopped")
                found[part].append({**earlier, **row} if tried else row | _outcome(mutant, root, number, log, earlier))
                write(args.output, [row for rows in found.values() for row in rows])
                print(f"{found[part][-1]['outcome']}: {mutant.file}:{mutant.line}: {mutant.after}", file=sys.stderr)


def _key(row: Row) -> tuple[str, ...]:
    return row["file"], row["operator"], row["before"], row["after"]


def require_healthy(part: str, log: Path) -> None:
    """Stop if the tests of a part fail without any fault."""
    outcome, failed = run(PARTS[part], log)
    if outcome != "survived":
        sys.exit(f"Expected the tests of {part} to pass without a fault, but {failed or outcome}:\n{log.read_text()}")


def _outcome(mutant: Mutant, root: Path, number: int, log: Path, earlier: Row) -> Row:
    before = seconds_of_children()
    with applied(mutant, root, number):
        outcome, failed = run(PARTS[mutant.part], log)
    why = {"why": earlier.get("why", "")} if outcome == "survived" else {}
    return {"outcome": outcome, "by": failed, "cpu_seconds": round(seconds_of_children() - before, 1), **why}


def write(path: Path, rows: list[Row]) -> None:
    """Write all mutants, one per line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"seed": {SEED}, "mutants": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
