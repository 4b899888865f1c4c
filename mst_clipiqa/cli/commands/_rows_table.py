"""Rows as a table for a person, which fits the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mst_clipiqa.cli.commands._screen import apart, columns_of, common_folder, for_screen

# Columns that do not fit on a terminal.
_WIDE = {"familiarity", "prompt", "reason", "model", "status", "gate", "width", "height"}
_FIRST = {"file", "quality", "correspondence", "rank"}  # always shown
_NAMES = {"file": "In", "to": "To"}  # columns of files, and what is said before the folder that all of them are in
_SHORTEST_NAME = 24  # columns of a file's name, before other columns give way
_LEAST_NAME = 12  # the same on a narrow terminal, before correspondence gives way
_WIDE_ENDS = ("_low", "_high", "_spread", "_bad", "_poor", "_fair", "_good", "_perfect")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a table that fits the terminal: names give way first, then further columns, from the last on."""
    from rich.console import Console
    from rich.table import Table as Shown
    from rich.text import Text

    if not rows:
        return
    wanted = [name for name in columns if name not in _WIDE and not name.endswith(_WIDE_ENDS)]
    console = Console(highlight=False)
    cells = {name: [for_screen(row.get(name)) for row in rows] for name in wanted}
    folders = {name: common_folder(cells[name]) for name in _NAMES if name in cells}
    cells |= {name: [cell[len(folder) :] for cell in cells[name]] for name, folder in folders.items()}
    widths = {name: max(columns_of(cell) for cell in [name, *cells[name]]) + 2 for name in wanted}
    shown = _fitting(wanted, widths | {name: min(widths[name], _SHORTEST_NAME) for name in folders}, console.width)
    numbers = sum(widths[name] for name in shown if name not in folders)
    name_width = max(_LEAST_NAME, (console.width - numbers) // max(1, len(folders.keys() & set(shown))))
    for name in folders:
        cells[name] = apart(cells[name], name_width - 2)
    console = Console(highlight=False, width=max(console.width, numbers + _LEAST_NAME))  # no number is ever cut
    table = Shown(box=None, header_style="bold")
    for name in shown:
        is_text = any(isinstance(row.get(name), str) for row in rows)
        whole = name in _FIRST or name in folders
        table.add_column(name, justify="left" if is_text else "right", no_wrap=whole, overflow="fold")
    for at in range(len(rows)):
        table.add_row(*(Text(cells[name][at]) for name in shown))
    for name, where in _NAMES.items():
        if folders.get(name):
            console.print(f"{where} {folders[name]}", markup=False, soft_wrap=True)
    console.print(table)
    if hidden := [for_screen(name) for name in wanted if name not in shown]:
        console.print(f"Not shown: {', '.join(hidden)}; -o FILE keeps all columns.", markup=False, soft_wrap=True)


def _fitting(wanted: Sequence[str], widths: Mapping[str, int], width: int) -> list[str]:
    """Return the columns of a table that fit: further columns give way first, from the last on."""
    shown = list(wanted)
    for name in reversed([name for name in wanted if name not in _FIRST]):
        if sum(widths[one] for one in shown) > width:
            shown.remove(name)
    least = sum(min(widths[one], _LEAST_NAME) if one in _NAMES else widths[one] for one in shown)
    return [name for name in shown if name != "correspondence" or least <= width]
