"""``mst-clipiqa calibrate-adaptive``: what ``score --adaptive`` needs to know about a model."""

from __future__ import annotations

from typing import Any

import click

from mst_clipiqa.cli.commands._options import data_options, encoding_options, open_cache, rated_set


@click.command("calibrate-adaptive")
@data_options
@click.option("--model", default="mini", show_default=True, help="Model: mini or a folder, where the result is stored.")
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(quiet: bool, **flags: Any) -> None:
    """Measure when a model can skip its fine encoder, on the images of a rated set; ratings are not used.

    Half of the prompts fit an estimator, the other half calibrate its error bound.
    """
    from mst_clipiqa.cli.progress import progress
    from mst_clipiqa.scoring.adaptive import FILE, calibrate, home
    from mst_clipiqa.scoring.scorer import ScoreOptions, Scorer
    from mst_clipiqa.train.features import encode_records

    folder = home(flags["model"])
    names = ("device", "precision", "batch_size", "workers")
    options = ScoreOptions(**{n: flags[n] for n in names}, cache=open_cache(flags["cache"]))
    scorer = Scorer.load(flags["model"], options)
    records = rated_set(flags["data"], flags["root"], flags["score_range"], flags["allow_missing"]).records
    with progress("Encoding", len(records), quiet=quiet) as advance:
        table = encode_records(scorer.encoder, records, prompts=False, progress=advance)
    prompts, groups = [record.prompt for record in records], [record.group for record in records]
    estimator = calibrate(scorer.predictor, table.f_c, table.f_f, prompts, groups)
    estimator.save(folder / FILE)
    if not quiet:
        click.echo(f"Calibrated on {len(records):,} images of {len(set(groups)):,} prompts; saved {folder / FILE}.")
