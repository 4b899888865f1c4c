"""`mst-clipiqa pick`: the best pictures of each prompt."""

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


@click.command("pick")
@click.argument("source")
@click.option("-n", "--number", default=1, show_default=True, type=click.IntRange(1), help="Pictures of each prompt.")
@click.option(
    "--by", default="quality", show_default=True, help="A column, or several: quality=2,correspondence=1 (weights)."
)
@output_option
@json_option
@left_out_option
@source_options
def command(
    source: str,
    number: int,
    by: str,
    output: Path | None,
    as_json: bool,
    left_out: Path | None,
    **how: Any,
) -> int:
    """Keep the best pictures of each prompt in SOURCE, prompts in their order.

    SOURCE is a scores table (.csv, .jsonl, .parquet), - for one on stdin, or a folder of pictures, which is scored
    first. To collect the pictures themselves: mst-clipiqa pick scores.csv | mst-clipiqa filter - --copy-to best --yes
    """
    from mst_clipiqa.verbs.order import parse_weights, rank

    weights = parse_weights(by)
    ranked = rank(read_source(source, how), weights, top=number, per_prompt=True)
    write_rows(ranked.rows, output, as_json)
    return finish(ranked.left_out, left_out)
