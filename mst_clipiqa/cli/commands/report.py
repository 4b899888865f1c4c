"""``mst-clipiqa report``: one page to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.read import image_folders
from mst_clipiqa.analysis.rows import Row, models_of, need_columns, split_failed, text
from mst_clipiqa.cli.commands._deliver import finish
from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._outputs import keep_apart
from mst_clipiqa.cli.commands._say import say_written, warn_of_models
from mst_clipiqa.cli.commands._scores import generator_option, read_source, source_options
from mst_clipiqa.cli.commands._types import FILE, NumberRange
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, counted, shown

if TYPE_CHECKING:
    from mst_clipiqa.report import ExplainOptions
    from mst_clipiqa.scoring.scorer import Scorer

EACH = 2
"""Images to explain per list by default; each takes a few seconds."""
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command("report", cls=SectionedCommand)
@click.argument("source")
@click.option("-o", "--output", type=FILE, default="report.html", show_default=True, help="File to write the page to.")
@click.option("--images", type=_FOLDER, help="Folder to look for the images in; by default here and beside the table.")
@click.option("--no-images", is_flag=True, help="Leave out the images.")
@click.option("--title", help="Heading of the page; default: the table's name.")
@click.option(
    "--max-mb",
    default=38.0,
    show_default=True,
    type=NumberRange(0, 1e6),
    help="Largest size of the page in MB; thumbnails shrink to fit.",
)
@click.option(
    "--explain", type=click.IntRange(0), help=f"Images to explain in each list, such as the best; default: {EACH}."
)
@click.option(
    "--by", metavar="COLUMN[,COLUMN]", help="Also compare the groups of these columns, such as steps,sampler."
)
@generator_option
@source_options
def command(
    source: str,
    output: Path,
    images: Path | None,
    no_images: bool,
    title: str | None,
    max_mb: float,
    explain: int | None,
    by: str | None,
    **flags: Any,
) -> int:
    """Write the scores of SOURCE as one page that opens in any browser, offline.

    SOURCE is a table of scores (.csv, .jsonl, .parquet), - for a table on stdin, or a folder of images, which is
    scored first. The page has a gallery to sort, search and filter; distributions; generators, prompts and the
    groups of --by with intervals; and the failed rows. If --model is the model that scored the table, bars run over
    its scale, and the best, worst and least certain images open with an explanation. Names are shown without the
    folder that all images are in. Exit code 1 means that something is missing from the page; stderr says what and
    why.
    """
    from mst_clipiqa.report import ReportOptions, write_report

    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"Expected a page whose name ends in .html, got {shown(output)}: name another output.")
    keep_apart([source, flags["prompts"]], output)
    _make_folder(output)
    rows = read_source(source, flags, intervals=True)
    if columns := [name for name in (by or "").split(",") if name.strip()]:
        need_columns(rows, columns)
    scorer = _scorer_of(rows, flags)
    replaced = output.exists()
    written = write_report(
        rows,
        output,
        folders=[] if no_images else image_folders(source, images),
        options=ReportOptions(
            title or (Path(source).stem if source != "-" else "Scores"),
            int(max_mb * 1e6),
            ranges=scorer.ranges if scorer else {},
            by=tuple(name.strip() for name in columns),
        ),
        explain=None if no_images else _explaining(scorer, rows, explain, flags),
        bar=progress,
    )
    shown_images = "" if no_images else f", thumbnails up to {written.side} pixels"
    shown_images += f", {written.explained} explained" if written.explained else ""
    size = f"{written.size / 1e6:.1f} MB" if written.size >= 1e6 else f"{written.size / 1e3:.0f} kB"
    say_written(output, f"{counted(len(rows), 'row')}, {size}{shown_images}", replaced=replaced)
    warn_of_models(models_of(split_failed(rows)[0]))
    return finish(written.left_out, what="shown without an image or an explanation")


def _make_folder(output: Path) -> None:
    """Make the folder of the page before hours of work rather than after."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Expected to write the report to {shown(output)}, but: {error.strerror or error}; name another place."
        ) from error


def _scorer_of(rows: Sequence[Row], flags: Mapping[str, Any]) -> Scorer | None:
    """Return the model that scored the rows, or None if it is not the one that is given."""
    from mst_clipiqa.scoring.granularity import without_setting

    models = {without_setting(text(row, "model")) for row in rows}
    if flags["model"] == "mini" and "mini" not in models:  # the default, so nothing to load
        return None
    scorer = load_scorer({name: value for name, value in flags.items() if name != "cache"})
    return scorer if scorer.model.config.name in models else None


def _explaining(
    scorer: Scorer | None, rows: Sequence[Row], each: int | None, flags: Mapping[str, Any]
) -> ExplainOptions | None:
    """Return how to explain images with the model that scored them; None if it is not given."""
    from mst_clipiqa.report import ExplainOptions

    models = {name for row in rows if (name := text(row, "model"))}
    if each == 0 or (each is None and not models):
        return None
    if scorer is not None:
        return ExplainOptions(scorer, EACH if each is None else each, _say_explaining)
    names = ", ".join(shown(name, 60) for name in sorted(models)[:3]) or "it names none"
    message = f"Expected --model to be the model that scored the table ({names}), got {flags['model']}"
    if each is not None:
        raise UsageError(f"{message}: name its folder, or leave --explain out.")
    click.echo(f"No image is explained. {message}: name its folder.", err=True)
    return None


def _say_explaining(count: int) -> None:
    """Say on stderr what takes long, and how to do without."""
    click.echo(f"Explaining {counted(count, 'image')}, which takes most of the time; --explain 0 skips it.", err=True)
