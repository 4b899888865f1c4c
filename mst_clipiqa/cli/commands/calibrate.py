"""``mst-clipiqa calibrate``: what ``--granularity`` needs to know about a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import whole_encoding_options
from mst_clipiqa.cli.commands._rated import data_options, rated_set_of
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError, counted, percent, percent_seen

if TYPE_CHECKING:
    from mst_clipiqa.scoring.calibration import Calibration

_TOLERANCES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1)


@click.command("calibrate", cls=SectionedCommand)
@data_options
@click.option("--model", required=True, help="Model folder, where the result is stored.")
@whole_encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(quiet: bool, **flags: Any) -> None:
    """Measure what each --granularity of a model costs and changes, on the images of a rated set.

    Ratings are not used, only images and prompts. The prompts are divided into six parts. For each part in turn, the
    other five decide when a coarser granularity is enough for an image; the tables show how well that holds for the
    part.
    """
    from mst_clipiqa.scoring.calibration_file import calibration_path, save_calibration
    from mst_clipiqa.scoring.folders import pinned_name, trained_folder
    from mst_clipiqa.train.granularity import calibrate_granularity

    folder = trained_folder(flags["model"])
    if flags["model"] == "mini" or (folder and pinned_name(folder)):
        raise UsageError(
            f"Expected a model folder of your own, got {flags['model']}: copy it with Scorer.save_pretrained first."
        )
    path = calibration_path(folder)
    scorer = load_scorer(flags)
    rated = rated_set_of(flags)
    with progress("Encoding", len(rated.records), quiet=quiet) as advance:
        found = calibrate_granularity(scorer, rated.records, rated.name, advance)
    save_calibration(found, path)
    if not quiet:
        _say(found, path)


def _say(found: Calibration, path: Path) -> None:
    """Print both tables, and where the calibration is."""
    from rich.box import MARKDOWN
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("granularity", "encoders' time", *(f"{name}, 95 %" for name in found.on.targets), box=MARKDOWN)
    for name, cost in found.on.costs.items():
        sizes = found.differences(name).values()
        table.add_row(name, percent(cost), *(percent(size, 1) for size in sizes))
    console.print("Differences from scores at fine granularity, as shares of the scale:", table, sep="\n")
    table = Table("tolerance", *found.estimators, "fine", "within", "encoders' time", box=MARKDOWN)
    for tolerance in _TOLERANCES:
        one = found.promise(tolerance)
        shares = (percent(count / one.images) for count in one.counts.values())
        table.add_row(f"{tolerance:g}", *shares, percent(one.within, 1) if one.below else "", percent(one.time))
    console.print("Images at each granularity with auto, and those below fine within the tolerance:", table, sep="\n")
    on = found.on
    click.echo(f"Calibrated on {counted(on.images, 'image')} of {counted(on.prompts, 'prompt')}; saved {path}.")
    if on.seen:
        click.echo(
            f"Note: the model or its encoders had seen {percent_seen(on.seen)} of the images in training or "
            "validation; on others it may differ more.",
            err=True,
        )
