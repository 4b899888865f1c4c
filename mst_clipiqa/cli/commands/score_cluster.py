"""``mst-clipiqa score-cluster``: the images of a data lake in, partitioned Parquet out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.cli.commands._controls import control_options, sources_of
from mst_clipiqa.cli.commands._from_flags import listing_of, score_options
from mst_clipiqa.cli.commands._options import (
    batch_options,
    color_option,
    device_options,
    frames_option,
    granularity_option,
    list_options,
    merge_option,
    model_options,
    prompt_option,
    prompts_from_option,
    size_option,
)
from mst_clipiqa.cli.commands._outputs import keep_apart
from mst_clipiqa.cli.commands._say import say_notes
from mst_clipiqa.cli.commands._types import FILE, FOLDER, PLACE, NumberRange
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, counted, shown


@click.command("score-cluster", cls=SectionedCommand)
@click.argument("given", metavar="INPUT")
@click.option("-o", "--output", required=True, type=PLACE, help="Folder for the Parquet parts.")
@click.option("--recursive", is_flag=True, help="Include subfolders.")
@click.option("--address", default="local", show_default=True, help="Ray cluster: local, auto, or an address.")
@click.option(
    "--actors", default=1, show_default=True, type=click.IntRange(1), help="Number of actors, each with its own model."
)
@click.option(
    "--gpus-per-actor",
    default=0.0,
    show_default=True,
    type=NumberRange(0),
    help="GPUs per actor, or a fraction of one.",
)
@click.option(
    "--threads", default=0, show_default=True, type=click.IntRange(0), help="Threads per actor; 0: as torch decides."
)
@click.option("--part-size", default=256, show_default=True, type=click.IntRange(1), help="Images per Parquet file.")
@model_options
@device_options
@merge_option
@batch_options
@click.option("--cache", type=FOLDER, help="Folder to cache features in, which every machine sees.")
@prompt_option("--prompt", "The prompt of every image.")
@click.option("--prompts", type=FILE, help="File with a prompt for each image, as for score.")
@prompts_from_option
@list_options
@control_options
@frames_option
@color_option
@size_option
@click.option(
    "--intervals",
    is_flag=True,
    help="Add 90 % intervals, and the probabilities of the quality levels with their spread.",
)
@granularity_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(given: str, output: str, quiet: bool, **flags: Any) -> int:
    """Score images on a Ray cluster, with the rows of mst-clipiqa score, each exactly once. Needs the extra "ray".

    INPUT is a folder or list as for score, Parquet (a list, or with the images in a column), one WebDataset tar shard
    or a pattern for several, or a URL that fsspec supports. Other columns of a list or of the prompts are kept. Every
    machine must see INPUT, model and output under the same names. To resume, repeat the command. Exit codes: 0 success,
    1 some rows failed, 2 wrong usage.
    """
    from mst_clipiqa.distribute import ClusterJob, Listing, run
    from mst_clipiqa.distribute.worker import Work

    folder = _output_folder([given, flags["prompts"]], output)
    work = Work(
        str(folder),
        flags["model"],
        score_options(flags),
        threads=flags["threads"],
        cache=None if flags["cache"] is None else str(flags["cache"].absolute()),
        intervals=flags["intervals"],
        controls=sources_of(flags, [given]),
    )
    listing = Listing(**listing_of(flags), each_frame=flags["frame"] == "all")
    job = ClusterJob(
        given,
        folder,
        work,
        address=flags["address"],
        actors=flags["actors"],
        gpus=flags["gpus_per_actor"],
        part_size=flags["part_size"],
        listing=listing,
    )
    try:
        with progress("Scoring", quiet=quiet or not sys.stderr.isatty()) as advance:
            summary = run(job, advance, lambda note: say_notes([note]))
    except KeyboardInterrupt:
        click.echo("Stopped. Repeat the command to continue: finished parts are kept.", err=True)
        return 130
    say_notes(summary.notes, summary.without_prompt, summary.rows - summary.failed)
    if not quiet:
        parts = f"{counted(summary.rows, 'row')} in {counted(summary.parts, 'part')}"
        click.echo(f"{parts}, {summary.scored:,} of them new.", err=True)
    if summary.failed:
        click.echo(f"{counted(summary.failed, 'row')} could not be scored; the table says why.", err=True)
    return 1 if summary.failed else 0


def _output_folder(inputs: list[str | Path | None], output: str) -> Path:
    """Return the output as an absolute path; UsageError for a URL, the name of another kind of table, or an input."""
    if "://" in output:
        raise UsageError(f"Expected a folder that every machine sees, got {output!r}: mount it and name the mount.")
    folder = Path(output)
    if folder.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
        raise UsageError(
            f"Expected a folder for Parquet parts, got the name of another kind of table, {shown(folder)}: name it "
            f"{folder.stem}.parquet."
        )
    keep_apart(inputs, folder)
    return folder.absolute()
