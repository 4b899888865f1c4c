"""What the commands on scores share: flags, reading rows from a table or a folder, writing rows."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.images import NOT_FOUND
from mst_clipiqa.analysis.read import is_parts, read_scores
from mst_clipiqa.analysis.rows import LeftOut, Row, column_names, say_left_out, with_generator
from mst_clipiqa.analysis.unfamiliar import say_unfamiliar
from mst_clipiqa.cli.commands._options import (
    FILE,
    NumberRange,
    encoding_options,
    list_options,
    listing_of,
    load_scorer,
    prompt_option,
    prompts_from_option,
    stack,
)
from mst_clipiqa.cli.commands._score_table import say_notes, say_written
from mst_clipiqa.cli.commands._screen import apart, columns_of, common_folder, for_screen
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.errors import counted, shown
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.tables.cells import count, csv_header, csv_row, json_row
from mst_clipiqa.tables.columns import Table
from mst_clipiqa.tables.table import write_table

if TYPE_CHECKING:
    from mst_clipiqa.evaluate.resampling import Resampling

# Columns that do not fit on a terminal.
_WIDE = {"familiarity", "prompt", "reason", "model", "status", "gate", "width", "height"}
_FIRST = {"file", "quality", "correspondence", "rank"}  # always shown
_NAMES = {"file": "In", "to": "To"}  # columns of files, and what is said before the folder that all of them are in
_SHORTEST_NAME = 24  # columns of a file's name, before other columns give way
_LEAST_NAME = 12  # the same on a narrow terminal, before correspondence gives way
_WIDE_ENDS = ("_low", "_high", "_spread", "_bad", "_poor", "_fair", "_good", "_perfect")

output_option = click.option(
    "-o", "--output", type=FILE, help="Write the table to this file (.csv, .jsonl, .parquet), not to stdout."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON lines to stdout instead of CSV.")
left_out_option = click.option("--left-out", type=FILE, help="Write rows that cannot be used to this file.")
generator_option = click.option(
    "--generator-from",
    type=click.Choice(["column", "name", "folder"]),
    default="column",
    show_default=True,
    help="Where to find the generator: a column, the part of the file name before the first _, or the folder.",
)
pair_by_option = click.option(
    "--pair-by", multiple=True, metavar="COLUMN", help="Column that a pair must share, such as seed; repeatable."
)
resampling_options = stack(
    click.option("--level", default=95.0, show_default=True, type=NumberRange(50, 99.9), help="Confidence, in %."),
    click.option("--seed", default=0, show_default=True, help="Random seed for the resampling."),
)
by_option = click.option(
    "--by",
    default="quality",
    show_default=True,
    help="Column to rank by, or columns with weights: quality=2,correspondence=1.",
)
# How a folder is scored; these flags do not matter if SOURCE is a table.
source_options = stack(
    click.option("--model", default="mini", show_default=True, help="Model that scores the images of a folder."),
    click.option(
        "--prompts", type=FILE, help="Prompts for the images of a folder: .csv, .tsv, .json, .jsonl or .parquet."
    ),
    prompt_option("--prompt", "The prompt of every image of a folder."),
    prompts_from_option,
    list_options,
    click.option("--recursive", is_flag=True, help="Include subfolders."),
    encoding_options,
)
# For a command that reads and writes rows; ``deliver`` uses those for the output.
table_options = stack(output_option, json_option, left_out_option, source_options)


def read_source(source: str, flags: Mapping[str, Any], *, intervals: bool = False) -> Table:
    """Return the rows of a table, of stdin ("-"), or of a folder, which is scored now.

    ``flags`` holds the values of ``source_options`` and, where a command has it, of ``generator_option``; ``intervals``
    adds those of a folder's scores.
    """
    is_table = not Path(source).is_dir() or is_parts(Path(source))
    rows = read_scores(source) if is_table else Table(_score_folder(source, flags, intervals))
    return with_generator(rows, flags.get("generator_from", "column"))


def resampling_of(flags: Mapping[str, Any]) -> Resampling:
    """Return how the intervals of a comparison are made; ``flags`` has the values of ``resampling_options``."""
    from mst_clipiqa.evaluate.resampling import Resampling

    return Resampling(flags["level"] / 100, resamples=2000, seed=flags["seed"])


def _score_folder(folder: str, flags: Mapping[str, Any], intervals: bool) -> list[Row]:
    from mst_clipiqa.scoring.score_rows import FurtherColumns, ScoreRow, columns, score_rows

    items = expand(folder, **listing_of(flags))
    scorer = load_scorer(flags)
    rows: list[Row] = []
    with progress("Scoring", items.count() if sys.stderr.isatty() else None) as advance:
        taken = columns(scorer, intervals=intervals)
        passed = [name for name in items.columns if name not in taken]

        def more(item: Item) -> ScoreRow:
            return {name: item.more.get(name) for name in passed}

        for row in score_rows(scorer, items, intervals=intervals, more=FurtherColumns(more)):
            rows.append(row)
            advance(1)
    say_notes(items.notes)
    return rows


def warn_of_models(models: Sequence[str]) -> None:
    """Warn on stderr that scores come from several models, if they do."""
    if len(models) > 1:
        click.echo(
            f"Warning: the scores come from different models ({', '.join(map(shown, models))}), so a difference may be "
            "theirs and not the images'.",
            err=True,
        )


def write_rows(rows: Sequence[Row], output: Path | None, as_json: bool, first: Iterable[str] = ()) -> None:
    """Write rows to a file, or to stdout: a table for a person, CSV or JSON lines for a pipe.

    The columns ``first`` come first, even if no row has them.
    """
    columns = list(dict.fromkeys([*first, *column_names(rows)])) or ["file"]  # a table has a header
    table = Table.of(rows)
    counts = {"width", "height", "rank"} & {*table.head}
    whole = table.with_columns({name: list(map(count, table.column(name))) for name in counts})
    if output is not None:
        replaced = output.exists()
        write_table(output, columns, whole)
        say_written(output, counted(len(whole), "row"), replaced=replaced)
    elif sys.stdout.isatty() and not as_json:
        _print(whole, columns)
    else:
        _to_stdout(whole, columns, as_json)


def deliver(rows: Sequence[Row], left: Sequence[LeftOut], flags: Mapping[str, Any], source: Sequence[Row]) -> int:
    """Write the rows and those left out as ``table_options`` say, and return the exit code.

    They keep the columns of ``source``, the rows that the command read, even if none of them is left.
    Unfamiliar images are noted on stderr, unless the rows go into a pipe: they keep their familiarity and reason, and
    the last command of the pipe notes those that are left.
    """
    columns = column_names(source)
    write_rows(rows, flags["output"], flags["as_json"], columns)
    if (flags["output"] is not None or not _is_piped()) and (note := say_unfamiliar(rows)):
        say_notes([note])
    return finish(left, flags["left_out"], columns=columns)


def _is_piped() -> bool:
    """Return whether stdout is a pipe to another program."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):  # no file behind it
        return False


def finish(
    left: Sequence[LeftOut], left_file: Path | None = None, what: str = "left out", columns: Sequence[str] = ()
) -> int:
    """Report on stderr which rows were left out and why, write them to a file if given, and return the exit code.

    The file has these columns and ``left_out``, even if no row is left out.
    """
    for line in say_left_out(left, what):
        click.echo(line, err=True)
    if any(one.why == NOT_FOUND for one in left):
        click.echo("Name the folder that the images are in with --images.", err=True)
    if left_file is not None:
        write_rows([{**one.row, "left_out": one.why} for one in left], left_file, False, [*columns, "left_out"])
    return 1 if left else 0


def _to_stdout(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    if not as_json:
        click.echo(csv_header(columns), nl=False)
    write = json_row if as_json else csv_row
    click.echo(b"".join(write(row, columns) for row in rows), nl=False)


def _fitting(wanted: Sequence[str], widths: Mapping[str, int], width: int) -> list[str]:
    """Return the columns of a table that fit: further columns give way first, from the last on."""
    shown = list(wanted)
    for name in reversed([name for name in wanted if name not in _FIRST]):
        if sum(widths[one] for one in shown) > width:
            shown.remove(name)
    least = sum(min(widths[one], _LEAST_NAME) if one in _NAMES else widths[one] for one in shown)
    return [name for name in shown if name != "correspondence" or least <= width]


def _print(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
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
