"""`mst-clipiqa report`: one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mst_clipiqa.commands._scores import finish, generator_option, read_source, source_options

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command("report")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="The page.",
)
@click.option("--images", type=_FOLDER, help="Where the pictures lie that the table names.")
@click.option("--no-images", is_flag=True, help="Leave the pictures out.")
@click.option("--title", help="Heading of the page; the table's name otherwise.")
@click.option("--max-mb", default=38.0, show_default=True, help="Largest size; thumbnails shrink to keep it.")
@generator_option
@source_options
def command(
    source: str,
    output: Path,
    images: Path | None,
    no_images: bool,
    title: str | None,
    max_mb: float,
    generator_from: str,
    **how: Any,
) -> int:
    """Write the scores of SOURCE as one self-contained page that opens in any browser without a network.

    SOURCE is a scores table (.csv, .jsonl, .parquet), - for one on stdin, or a folder of pictures, which is scored
    first. The page has a gallery to sort, search and filter, distributions, generators and prompts with intervals,
    and the failed rows. Exit code 1 means that pictures are missing from it; stderr says which and why.
    """
    from mst_clipiqa.progress import progress
    from mst_clipiqa.report import write_report
    from mst_clipiqa.verbs.reading import folders_of
    from mst_clipiqa.verbs.scores import with_generator

    rows = with_generator(read_source(source, how, intervals=True), generator_from)  # type: ignore[arg-type]
    folders = [] if no_images else folders_of(source, images)
    with progress("thumbnails", len(rows)) as advance:
        written = write_report(
            rows,
            output,
            folders=folders,
            title=title or (Path(source).stem if source != "-" else "Scores"),
            limit=int(max_mb * 1e6),
            advance=advance,
        )
    pictures = "" if no_images else f", thumbnails up to {written.side} pixels"
    size = f"{written.size / 1e6:.1f} MB" if written.size >= 1e6 else f"{written.size / 1e3:.0f} kB"
    click.echo(f"{output}: {len(rows):,} rows, {size}{pictures}.", err=True)
    return finish(written.left_out)
