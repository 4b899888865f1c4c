"""Reads the table that a benchmark writes."""

from __future__ import annotations


def cells_of(text: str) -> dict[str, list[str]]:
    """Return the figures under each name, a column for each target and head; the targets and heads are under ""."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    width = len(lines[0])
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines if len(cells) == width - 1}
