"""The tables of docs/reliability.md, from docs/reliability.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
COMPARED = (
    "| images | stated certainty"
    " | quality: pairs | mean stated | right | correspondence: pairs | mean stated | right |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|\n"
)
DRIFTED = (
    "| tables | score | prompts | covers scores | covers ratings | better or worse | right |\n"
    "|---|---|---:|---:|---:|---:|---:|\n"
)


def compared(found: dict[str, Any]) -> list[str]:
    """Return a row per kind of pair and certainty."""
    quality, correspondence = (found["compare"][target] for target in ("quality", "correspondence"))
    lines = []
    for kind in quality:
        both = [{line["from"]: line for line in of[kind]} for of in (quality, correspondence)]
        for low in sorted(set(both[0]) | set(both[1])):
            high = next(of[low]["to"] for of in both if low in of)
            cells = " | ".join(_compared(of.get(low)) for of in both)
            lines.append(f"| {kind} | {100 * low:.0f} to {100 * high:.0f} % | {cells} |")
    return lines


def drifted(found: dict[str, Any]) -> list[str]:
    """Return a row per kind of tables, score and number of prompts."""
    kinds = list(dict.fromkeys(line["tables"] for line in found["drift"]["quality"]))
    lines = []
    for kind in kinds:
        for target, rows in found["drift"].items():
            for line in (row for row in rows if row["tables"] == kind):
                keys = ("covers_scores", "covers_ratings", "verdicts", "right")
                cells = " | ".join(_percent(line[key]) for key in keys)
                lines.append(f"| {kind} | {target} | {line['prompts']} | {cells} |")
    return lines


def written(text: str, found: dict[str, Any]) -> str:
    """Return the page with its tables written anew."""
    for head, rows in ((COMPARED, compared(found)), (DRIFTED, drifted(found))):
        before, there, after = text.partition(head)
        if not there:
            raise SystemExit(f"Expected a table with this head in {PAGE.name}, got none: put it in.\n{head}")
        text = before + head + "".join(f"{row}\n" for row in rows) + re.sub(r"^(?:\|.*\n)*", "", after)
    return text


def _compared(line: dict[str, float] | None) -> str:
    if line is None:
        return "0 | | "
    return f"{line['pairs']:,} | {100 * line['stated']:.0f} % | {100 * line['right']:.0f} %"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
