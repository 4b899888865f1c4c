"""`mst-clipiqa rank`: best first."""

from __future__ import annotations

from typing import Any

import click

from mst_clipiqa.cli.commands._scores import by_option, deliver, read_source, table_options


@click.command("rank")
@click.argument("source")
@by_option
@click.option("-k", "--top", type=click.IntRange(1), help="Keep this many, of each prompt with --per-prompt.")
@click.option("--per-prompt", is_flag=True, help="Rank the images of each prompt among themselves.")
@table_options
def command(
    source: str,
    by: str,
    top: int | None,
    per_prompt: bool,
    **how: Any,
) -> int:
    """Order the rows of SOURCE, best first, and number them in a column rank.

    SOURCE is a scores table (.csv, .jsonl, .parquet), - for one on stdin, or a folder of images, which is scored
    first. Equal scores stay in the order they came in.

    With several columns, rows are ordered by the weighted mean, each score in its own units; a negative weight is
    for a column where lower is better. Exit code 1 means that rows had to be left out; stderr says which and why.
    """
    from mst_clipiqa.analysis.rank import parse_weights, rank

    weights = parse_weights(by)
    ranked = rank(read_source(source, how), weights, top=top, per_prompt=per_prompt)
    return deliver(ranked.rows, ranked.left_out, how)
