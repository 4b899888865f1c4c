"""Writes the tables of docs/mutants.md from docs/mutation.json: ``python -m mutation.page``."""

from __future__ import annotations

import json
import re
from typing import Any

from mutation.parts import PARTS, RESULTS, ROOT

PAGE = ROOT / "docs" / "mutants.md"
SCORES = "| part | faults | noticed | share |\n|---|---:|---:|---:|\n"
SURVIVORS = "| where | was | became | why no test fails |\n|---|---|---|---|\n"


def scores(mutants: list[dict[str, Any]]) -> list[str]:
    """Return a row per part, and one for all."""
    lines = []
    for part in (*PARTS, "all"):
        outcomes = [row["outcome"] for row in mutants if part in (row["part"], "all")]
        noticed = len(outcomes) - outcomes.count("survived")
        if outcomes:
            lines.append(f"| {part} | {len(outcomes)} | {noticed} | {noticed / len(outcomes):.0%} |")
    return lines


def survivors(mutants: list[dict[str, Any]]) -> list[str]:
    """Return a row per fault that was not noticed."""
    lines = []
    for row in mutants:
        if row["outcome"] == "survived":
            cells = (f"`{row['file'].removeprefix('mst_clipiqa/')}`", _code(row["before"]), _code(row["after"]))
            lines.append(f"| {' | '.join((*cells, row['why']))} |")
    return lines


def written(text: str, mutants: list[dict[str, Any]]) -> str:
    """Return the page with its tables written anew."""
    for head, rows in ((SCORES, scores(mutants)), (SURVIVORS, survivors(mutants))):
        before, found, after = text.partition(head)
        after = re.sub(r"^(?:\|.*\n)*", "", after)
        text = before + found + "".join(f"{row}\n" for row in rows) + after
    return text


def _code(line: str) -> str:
    return "`" + line.replace("|", "\\|").replace("`", "'") + "`"


def main() -> None:
    mutants = json.loads(RESULTS.read_text(encoding="utf-8"))["mutants"]
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), mutants), encoding="utf-8")


if __name__ == "__main__":
    main()
