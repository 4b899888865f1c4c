"""``mst-clipiqa rank``: best first."""

from __future__ import annotations

from typing import Any

import click

from mst_clipiqa.analysis.rank import parse_weights, rank
from mst_clipiqa.cli.commands._deliver import deliver
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._scores import by_option, read_source, table_options
from mst_clipiqa.cli.sections import SectionedCommand


@click.command("rank", cls=SectionedCommand)
@click.argument("source")
@by_option
@click.option("-k", "--top", type=click.IntRange(1), help="Keep the best K, or K per prompt with --per-prompt.")
@click.option("--per-prompt", is_flag=True, help="Rank the images of each prompt separately.")
@table_options
def command(source: str, by: str, top: int | None, per_prompt: bool, **flags: Any) -> int:
    """Sort the rows of SOURCE, best first, and number them in the column rank.

    SOURCE is a table of scores (.csv, .jsonl, .parquet), - for a table on stdin, or a folder of images, which is scored
    first. Rows with equal scores keep their order, also where --top cuts.

    With several columns, rows are sorted by the weighted mean, each score in its own units. Give a column a
    negative weight if lower is better; negative_match has it without being told. Exit code 1 means that rows were
    left out; stderr says which and why.
    """
    check_outputs([source, flags["prompts"]], flags["output"], flags["left_out"])
    weights = parse_weights(by)
    rows = read_source(source, flags)
    ranked = rank(rows, weights, top=top, per_prompt=per_prompt)
    return deliver(ranked.rows, ranked.left_out, flags, rows)
