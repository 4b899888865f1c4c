"""What the commands on scores share: their flags, and reading rows from a table or a folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.analysis.read import is_parts, read_scores
from mst_clipiqa.analysis.rows import Row, with_generator
from mst_clipiqa.cli.commands._from_flags import listing_of, load_scorer
from mst_clipiqa.cli.commands._options import encoding_options, list_options, prompt_option, prompts_from_option, stack
from mst_clipiqa.cli.commands._say import say_notes
from mst_clipiqa.cli.commands._types import FILE, NumberRange
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.tables.columns import Table

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
