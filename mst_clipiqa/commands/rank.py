"""`mst-clipiqa rank`: best first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mst_clipiqa.commands._scores import (
    finish,
    json_option,
    left_out_option,
    output_option,
    read_source,
    source_options,
    write_rows,
)


@click.command("rank")
@click.argument("source")
@click.option(
    "--by", default="quality", show_default=True, help="A column, or several: quality=2,correspondence=1 (weights)."
)
@click.option("-k", "--top", type=click.IntRange(1), help="Keep this many, of each prompt with --per-prompt.")
@click.option("--per-prompt", is_flag=True, help="Rank the pictures of each prompt among themselves.")
@output_option
@json_option
@left_out_option
@source_options
def command(
    source: str,
    by: str,
    top: int | None,
    per_prompt: bool,
    output: Path | None,
    as_json: bool,
    left_out: Path | None,
    **how: Any,
) -> int:
    """Order the rows of SOURCE, best first, and number them in a column rank.

    SOURCE is a scores table (.csv, .jsonl, .parquet), - for one on stdin, or a folder of pictures, which is scored
    first. Equal scores stay in the order they came in.

    With several columns, rows are ordered by the weighted mean, each score in its own units; a negative weight is
    for a column where lower is better. Exit code 1 means that rows had to be left out; stderr says which and why.
    """
    from mst_clipiqa.verbs.order import parse_weights, rank

    weights = parse_weights(by)
    ranked = rank(read_source(source, how), weights, top=top, per_prompt=per_prompt)
    write_rows(ranked.rows, output, as_json)
    return finish(ranked.left_out, left_out)
