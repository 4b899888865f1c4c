"""Rows out of a command: into a file or onto stdout, with what was left out and an exit code."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.analysis.images import NOT_FOUND
from mst_clipiqa.analysis.rows import LeftOut, Row, column_names, say_left_out
from mst_clipiqa.analysis.unfamiliar import say_unfamiliar
from mst_clipiqa.cli.commands._rows_table import print_rows
from mst_clipiqa.cli.commands._say import say_notes, say_written
from mst_clipiqa.errors import counted
from mst_clipiqa.tables.cells import csv_header, csv_row, json_row, whole_as_int
from mst_clipiqa.tables.columns import Table
from mst_clipiqa.tables.table import write_table


def write_rows(rows: Sequence[Row], output: Path | None, as_json: bool, first: Iterable[str] = ()) -> None:
    """Write rows to a file, or to stdout: a table for a person, CSV or JSON lines for a pipe.

    The columns ``first`` come first, even if no row has them.
    """
    columns = list(dict.fromkeys([*first, *column_names(rows)])) or ["file"]  # a table has a header
    table = Table.of(rows)
    counts = {"width", "height", "rank"} & {*table.head}
    whole = table.with_columns({name: list(map(whole_as_int, table.column(name))) for name in counts})
    if output is not None:
        replaced = output.exists()
        write_table(output, columns, whole)
        say_written(output, counted(len(whole), "row"), replaced=replaced)
    elif sys.stdout.isatty() and not as_json:
        print_rows(whole, columns)
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
