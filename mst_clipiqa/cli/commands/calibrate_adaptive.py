"""``mst-clipiqa calibrate-adaptive``: what ``score --adaptive`` needs to know about a model."""

from __future__ import annotations

from typing import Any

import click

from mst_clipiqa.cli.commands._options import data_options, encoding_options, load_scorer, rated_set
from mst_clipiqa.errors import UsageError


@click.command("calibrate-adaptive")
@data_options
@click.option("--model", required=True, help="Model folder, where the result is stored.")
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(quiet: bool, **flags: Any) -> None:
    """Measure when a model can skip its fine encoder, on the images of a rated set; ratings are not used.

    A third of the prompts fit an estimator, a third calibrate its error bound, and on the last third it is measured
    what holds for the images that it skips. Not for mini: no gain in speed has been measured.
    """
    from mst_clipiqa.cli.progress import progress
    from mst_clipiqa.scoring.fine_estimator import calibrate, estimator_path
    from mst_clipiqa.scoring.folders import pinned_name, trained_folder
    from mst_clipiqa.train.features import encode_records

    folder = trained_folder(flags["model"])
    if folder and pinned_name(folder):
        raise UsageError(
            f"Expected a model folder of your own, got {flags['model']}: copy it with Scorer.save_pretrained first."
        )
    path = estimator_path(folder)
    scorer = load_scorer(flags)
    records = rated_set(flags["data"], flags["root"], flags["score_range"], flags["allow_missing"]).records
    with progress("Encoding", len(records), quiet=quiet) as advance:
        table = encode_records(scorer.encoder, records, prompts=False, progress=advance)
    prompts, groups = [record.prompt for record in records], [record.group for record in records]
    estimator = calibrate(scorer.predictor, table.f_c, table.f_f, prompts, groups)
    estimator.save(path)
    if not quiet:
        click.echo(f"Calibrated on {len(records):,} images of {len(set(groups)):,} prompts; saved {path}.")
