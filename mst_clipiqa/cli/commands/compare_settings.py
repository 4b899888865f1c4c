"""``mst-clipiqa compare-settings``: what did a generation setting change?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mst_clipiqa.analysis.rows import column_names
from mst_clipiqa.analysis.verdict import say_by_chance
from mst_clipiqa.cli.commands._deliver import finish, write_rows
from mst_clipiqa.cli.commands._from_flags import resampling_of
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._say import say_without_value
from mst_clipiqa.cli.commands._scores import pair_by_option, read_source, resampling_options, table_options
from mst_clipiqa.cli.commands._screen import for_screen
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import shown


@click.command("compare-settings", cls=SectionedCommand)
@click.argument("source")
@click.option("--by", default="setting", show_default=True, metavar="COLUMN", help="Column of settings, such as steps.")
@click.option("--baseline", required=True, help="Setting that all others are compared with.")
@click.option("--from-names", is_flag=True, help="Read generator and setting from file names: sd1.5_lowstep_003.jpg.")
@pair_by_option
@click.option(
    "--targets",
    default="quality,correspondence",
    show_default=True,
    help="Columns of numbers to compare; higher is better, except for negative_match.",
)
@resampling_options
@table_options
def command(
    source: str,
    by: str,
    baseline: str,
    from_names: bool,
    pair_by: tuple[str, ...],
    targets: str,
    output: Path | None,
    as_json: bool,
    left_out: Path | None,
    **flags: Any,
) -> int:
    """Compare the images of SOURCE with those of the same generator and prompt that were made with other settings.

    SOURCE is a table of scores (.csv, .jsonl, .parquet), - for a table on stdin, or a folder of images. Each pair
    counts once; intervals are over prompts. If an interval contains zero, no difference was found.
    """
    from mst_clipiqa.analysis.settings import SettingPairs, compare_settings, with_names

    check_outputs([source, flags["prompts"]], output, left_out)
    rows = read_source(source, flags)
    columns = [name.strip() for name in targets.split(",") if name.strip()]
    found = compare_settings(
        with_names(rows) if from_names else rows, SettingPairs(by, baseline, pair_by), columns, resampling_of(flags)
    )
    if output is None and not as_json:
        for effect in found.effects:
            click.echo(for_screen(effect.sentence()))
    else:
        write_rows([effect.to_row() for effect in found.effects], output, as_json)
    if caution := say_by_chance([effect.verdict for effect in found.effects], found.effects[0].level):
        click.echo(caution, err=True)
    if found.unpaired:
        names = ", ".join(shown(" ".join(filter(None, pair)), 60) for pair in found.unpaired)
        click.echo(f"Left out, as nothing of the baseline matches: {names}", err=True)
    say_without_value((effect.target for effect in found.effects), {"": rows})
    return finish(found.left_out, left_out, columns=column_names(rows))
