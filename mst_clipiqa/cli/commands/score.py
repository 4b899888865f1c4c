"""``mst-clipiqa score``: images in, a table of scores out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._controls import CONTROL_FLAGS, control_options, controls_of
from mst_clipiqa.cli.commands._from_flags import listing_of, load_scorer
from mst_clipiqa.cli.commands._options import (
    encoding_options,
    frames_option,
    granularity_option,
    list_options,
    model_options,
    prompt_option,
    prompts_from_option,
)
from mst_clipiqa.cli.commands._outputs import check_outputs
from mst_clipiqa.cli.commands._say import say_notes, say_written
from mst_clipiqa.cli.commands._score_table import Seen, print_table
from mst_clipiqa.cli.commands._types import FILE
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, are, counted, shown
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.scoring.resume import Finished, is_finished, refuse_unfinished, table_of
from mst_clipiqa.scoring.stop import Stop, Stopped
from mst_clipiqa.tables.cells import csv_header, csv_row, json_row
from mst_clipiqa.tables.table import TableWriter

if TYPE_CHECKING:
    from mst_clipiqa.scoring.score_rows import FurtherColumns, ScoreRow
    from mst_clipiqa.scoring.scorer import Scorer


@click.command("score", cls=SectionedCommand)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--recursive", is_flag=True, help="Include subfolders.")
@prompt_option("--prompt", "The prompt of every image.")
@click.option("--prompts", type=FILE, help="File with a prompt for each image: .csv, .tsv, .json, .jsonl or .parquet.")
@model_options
@prompts_from_option
@list_options
@control_options
@click.option("--keep-metadata", is_flag=True, help="Add columns on how each image was generated.")
@frames_option
@click.option("-o", "--output", type=FILE, help="Write the table to this file: .csv, .jsonl or .parquet.")
@click.option("--resume", is_flag=True, help="Continue an unfinished run of the same command.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to stdout.")
@click.option(
    "--intervals",
    is_flag=True,
    help="Add 90 % intervals, and the probabilities of the quality levels with their spread.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="After a failed row, continue (skip) or stop (fail).",
)
@encoding_options
@click.option("--backend", default="torch", show_default=True, help="Backend: torch, or an exported ONNX folder.")
@granularity_option
@click.option(
    "--granularity-check",
    default=0,
    metavar="N",
    help="Encode the first N images below fine in full too, and report the change.",
)
@click.option("--fast-decode", is_flag=True, help="Decode large JPEGs at reduced size; scores change slightly.")
@click.option("--quiet", is_flag=True, help="Show no progress and no table.")
def command(paths: tuple[str, ...], output: Path | None, as_json: bool, quiet: bool, **flags: Any) -> int:
    """Score images: how good they look, and how well they show their prompt. Higher is better.

    PATH is an image, a folder, a list of images (such as .csv), or - for a list on stdin, which is read to its end
    first. Other columns of a list or of the prompts are kept. In a folder, prompts are read from metadata.csv,
    .jsonl or .parquet. Every image gets a row, in order; if it cannot be read, the row says why. Without -o, the rows
    go to stdout: as a table on a terminal, else as CSV. Exit codes: 0 success, 1 some rows failed, 2 wrong usage.

    With -o, Ctrl-C finishes the current batch (exit code 130). Repeat the command with --resume to continue, also after
    a kill or a full disk: rows whose file and prompt have not changed are kept, and the others are scored.
    """
    _check_resume(output, flags["resume"])
    check_outputs([*paths, flags["prompts"]], output)
    replaced = output is not None and output.exists()
    items = expand(paths, **listing_of(flags))
    scorer = load_scorer(flags)
    # Imported here, as it imports torch: load_scorer does so faster.
    from mst_clipiqa.scoring.score_rows import FurtherColumns, columns, origin

    controls = controls_of(flags, scorer, items, paths)
    names = columns(scorer, intervals=flags["intervals"]) | _more_columns(flags)
    names |= controls.columns if controls else {}
    passed = [name for name in items.columns if name not in names]
    if taken := [shown(name, 60) for name in items.columns if name in names]:
        click.echo(f"Note: the list's {', '.join(taken)} {are(len(taken))} left out: the table has its own.", err=True)
    names |= dict.fromkeys(passed, int)  # or whatever holds their values
    if output is not None and flags["resume"] and is_finished(output):
        return _say_finished(output, origin(scorer, names), items)
    total = items.count() if sys.stderr.isatty() and not quiet else None
    further = FurtherColumns(_more_cells(passed, flags["keep_metadata"]), controls)
    try:
        with Stop.listening(output is not None) as stop, progress("Scoring", total, quiet=quiet) as advance:
            seen = _scored(scorer, items, _Sink(names, output, as_json, stop, advance), further, flags)
    except Stopped as stopped:
        click.echo(f"Stopped. Repeat the command with --resume to continue. {stopped}", err=True)
        return 128 + stop.asked
    if summary := scorer.encoder.policy.summary():
        click.echo(summary, err=True)
    say_notes(items.notes, seen.without_prompt if scorer.predictor.reads_prompts else 0, seen.rows - seen.failed)
    if not quiet and not as_json and (output or sys.stdout.isatty()):
        print_table(seen, scorer, output)
    if seen.failed:
        click.echo(f"{counted(seen.failed, 'row')} could not be scored; the table says why.", err=True)
    if output is not None and not quiet:
        say_written(output, seen.summary(), replaced=replaced)
    return 1 if seen.failed else 0


def _more_columns(flags: dict[str, Any]) -> dict[str, type]:
    """Return the columns that further flags add."""
    from mst_clipiqa.scoring.metadata_columns import METADATA_COLUMNS

    return ({"frame": int} if flags["frame"] == "all" else {}) | (METADATA_COLUMNS if flags["keep_metadata"] else {})


def _more_cells(passed: list[str], keep_metadata: bool) -> Callable[[Item], ScoreRow]:
    """Return a function from an item to the cells of those columns, and of those that are passed on from its list."""
    from mst_clipiqa.scoring.metadata_columns import metadata_row

    def cells(item: Item) -> ScoreRow:
        row: ScoreRow = {} if item.frame is None else {"frame": item.frame + 1}
        row |= {name: item.more.get(name) for name in passed}
        return row | (metadata_row(item) if keep_metadata else {})

    return cells


def _check_resume(output: Path | None, resume: bool) -> None:
    if resume and output is None:
        raise UsageError("--resume needs -o: name the file of the run to resume.")
    if output is not None and not resume:
        refuse_unfinished(output)


def _say_finished(output: Path, origin: Mapping[str, str], items: Iterable[Item]) -> int:
    """Say that there is nothing to resume, and return the exit code of the run that wrote the table."""
    found = Finished.read(output)
    found.check(origin, ((item.file, item.prompt, item.opened) for item in items), output)
    click.echo(
        f"Nothing is left to do: {shown(output)} is finished, with this model and these columns. Omit --resume to "
        "score its images again, as with other settings, which a table does not record.",
        err=True,
    )
    return 1 if found.failed else 0


@dataclass(frozen=True)
class _Sink:
    """Where rows go, and what is updated with each of them."""

    names: dict[str, type]
    output: Path | None
    as_json: bool
    stop: Stop
    advance: Callable[[int], None]


def _scored(scorer: Scorer, items: Iterable[Item], sink: _Sink, further: FurtherColumns, flags: dict[str, Any]) -> Seen:
    """Score items, write the rows, and return what the terminal needs of them."""
    from mst_clipiqa.inputs.each_frame import each_frame
    from mst_clipiqa.scoring.score_rows import origin, score_rows

    items = each_frame(items) if flags["frame"] == "all" else items
    scored = partial(score_rows, scorer, items, intervals=flags["intervals"], more=further)
    if sink.output is None:
        return _write(_watched(scored(), sink, flags, scorer), sink, None)
    from_where = _asked(flags) | origin(scorer, sink.names)  # flags first: a difference is named by its flag
    with table_of(sink.output, sink.names, from_where, resume=flags["resume"]) as (table, earlier):
        if earlier is not None:
            click.echo(f"Resuming after {counted(len(earlier), 'row')} of earlier runs.", err=True)
        return _write(_watched(scored(stamped=True, earlier=earlier), sink, flags, scorer), sink, table)


def _asked(flags: dict[str, Any]) -> dict[str, str]:
    """Return the flags that decide the rows."""
    decisive = ("intervals", "keep_metadata", "granularity_check", "fast_decode", "color", *CONTROL_FLAGS)
    values = {f"--{name.replace('_', '-')}": str(flags[name]) for name in decisive}
    return values | {"--frames": flags["frame"], "--max-megapixels": f"{flags['max_pixels'] / 1e6:g}"}


def _watched(rows: Iterable[ScoreRow], sink: _Sink, flags: dict[str, Any], scorer: Scorer) -> Iterator[ScoreRow]:
    """Yield the rows and advance the bar; with ``--on-error fail``, stop at the first failed one."""
    for row in sink.stop.between(rows, scorer.encoder.batch_size):
        if row["status"] == "error" and flags["on_error"] == "fail":
            raise UsageError(f"Expected every row to be scored, got {row['file']}: {row['reason']}.")
        sink.advance(1)
        yield row


def _write(rows: Iterable[ScoreRow], sink: _Sink, table: TableWriter | None) -> Seen:
    """Write rows to their destination, and return what the terminal needs of them."""
    seen = Seen()
    piped = not sink.as_json and table is None and not sys.stdout.isatty()
    if piped:
        click.echo(csv_header(sink.names), nl=False)
    for row in rows:
        seen.add(row)
        if table:
            table.append(row)
        if sink.as_json:
            click.echo(json_row(row, sink.names), nl=False)
        elif piped:
            click.echo(csv_row(row, sink.names), nl=False)
    return seen
