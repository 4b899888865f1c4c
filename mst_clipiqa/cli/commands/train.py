"""``mst-clipiqa train``: a rated set in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mst_clipiqa.cli.commands._options import (
    FOLDER,
    data_options,
    encoding_options,
    image_encoder,
    rated_set,
    recipe_of,
    recipe_options,
)


@click.command("train")
@data_options
@click.option("--target", required=True, help="Score to train: quality, correspondence, authenticity or overall.")
@click.option("--head", type=click.Choice(["template", "prompt"]), required=True, help="Head; template uses no prompt.")
@click.option("--encoders", default="mini", show_default=True, help="Encoders: mini, openai or COARSE,FINE.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Model folder; an existing one gets another target.")
@recipe_options
@click.option("--seed", default=0, show_default=True, help="Random seed of split, initial weights and shuffling.")
@click.option("--split-by", default="prompt", show_default=True, help="Split by: prompt, image, official or a file.")
@click.option("--test-share", default=0.2, show_default=True, help="Share of prompts to test on; 0 trains on all.")
@click.option("--validation-share", default=0.15, show_default=True, help="Share of the rest, for validation.")
@click.option("--leave-out/--no-leave-out", default=True, help="Calibrate also on each generator left out in turn.")
@click.option("--log", metavar="WHERE", help="Log every epoch to tensorboard:FOLDER or wandb:PROJECT.")
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(output: Path, quiet: bool, **flags: Any) -> None:
    """Train the fusion and a head on a rated set, from features of frozen encoders.

    If interrupted, the same command resumes and ends with the same weights.
    """
    from mst_clipiqa.cli.progress import progress
    from mst_clipiqa.data import identical, make_split
    from mst_clipiqa.train.build import TrainingJob, build
    from mst_clipiqa.train.curves import check_drawing
    from mst_clipiqa.train.experiment_log import check_log, experiment_log

    check_drawing()
    check_log(flags["log"])
    recipe = recipe_of(flags["recipe"], flags["changes"], flags["seed"])
    rated = rated_set(flags["data"], flags["root"], flags["score_range"], flags["allow_missing"])
    by = flags["split_by"]
    together = identical(rated.records) if by in ("prompt", "image") else ()
    shares = {"test_share": flags["test_share"], "validation_share": flags["validation_share"]}
    split = make_split(rated.records, by, seed=flags["seed"], together=together, **shares)
    job = TrainingJob(rated, split, flags["target"], flags["head"], recipe, output, flags["leave_out"])
    encoder = image_encoder(flags["encoders"], flags)
    run = f"{output.resolve().name}-{flags['target']}"
    with experiment_log(flags["log"], run, recipe, output) as log:
        result = build(job, encoder, lambda label, total: progress(label, total, quiet=quiet), log)
    if quiet or result is None:
        return
    found, clean = result.evaluation, result.contamination.label
    click.echo(
        f"{flags['target']} on {found.agreement.n} test images of {found.groups} prompts: "
        f"SRCC {found.agreement.srcc:.4f}, PLCC {found.agreement.plcc:.4f} "
        f"(generator's mean alone: SRCC {result.baseline_srcc:.4f})" + (f"; {clean}" if clean else "") + "."
    )
    click.echo(f"Saved in {output}; see {output / 'README.md'}.")
