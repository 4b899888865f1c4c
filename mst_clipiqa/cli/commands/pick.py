"""``mst-clipiqa pick``: the best images of each prompt."""

from __future__ import annotations

from typing import Any

import click

from mst_clipiqa.analysis.rank import parse_weights, rank
from mst_clipiqa.cli.commands._deliver import deliver
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._scores import by_option, read_source, table_options
from mst_clipiqa.cli.sections import SectionedCommand


@click.command("pick", cls=SectionedCommand)
@click.argument("source")
@click.option("-n", "--number", default=1, show_default=True, type=click.IntRange(1), help="Images to keep per prompt.")
@by_option
@table_options
def command(source: str, number: int, by: str, **flags: Any) -> int:
    """Keep the best images of each prompt in SOURCE, in the order of the prompts; of equal ones, the first.

    SOURCE is a table of scores (.csv, .jsonl, .parquet), - for a table on stdin, or a folder of images, which is scored
    first. To copy the images themselves, pipe the rows: mst-clipiqa pick scores.csv | mst-clipiqa filter - --copy-to
    best --yes.
    """
    check_outputs([source, flags["prompts"]], flags["output"], flags["left_out"])
    weights = parse_weights(by)
    rows = read_source(source, flags)
    ranked = rank(rows, weights, top=number, per_prompt=True)
    return deliver(ranked.rows, ranked.left_out, flags, rows)
