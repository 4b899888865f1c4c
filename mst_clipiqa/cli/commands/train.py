"""``mst-clipiqa train``: a rated set in, a model folder out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._from_flags import image_encoder
from mst_clipiqa.cli.commands._options import encoding_options, trained_encoders_options
from mst_clipiqa.cli.commands._rated import optional_data_options, rated_set_of, recipe_of, recipe_options
from mst_clipiqa.cli.commands._say import say_data_notes, say_notes
from mst_clipiqa.cli.commands._types import FILE, FOLDER
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.data import RATED_TARGETS, PreferenceSet, RatedSet, Split, identical, load_preferences, make_split
from mst_clipiqa.errors import UsageError, counted
from mst_clipiqa.evaluate.caution import say_few_groups
from mst_clipiqa.train.curves import check_drawing
from mst_clipiqa.train.experiment_log import check_log, experiment_log

if TYPE_CHECKING:
    from mst_clipiqa.train.job import TrainingJob
    from mst_clipiqa.train.measure import TrainingResult


@click.command("train", cls=SectionedCommand)
@optional_data_options
@click.option(
    "--pairs",
    type=FILE,
    help="Table of preferences, beside ratings or alone: image_a, image_b, prompt, preferred (a, b, tie), strength.",
)
@click.option("--target", required=True, help="Score to train: quality, correspondence, authenticity or overall.")
@click.option(
    "--head",
    type=click.Choice(["template", "prompt"]),
    required=True,
    help="Head: template (reads no prompt) or prompt (reads it).",
)
@trained_encoders_options
@click.option("-o", "--output", type=FOLDER, required=True, help="Model folder; an existing one gets another target.")
@recipe_options
@click.option("--seed", default=0, show_default=True, help="Random seed of split, initial weights and shuffling.")
@click.option("--split-by", default="prompt", show_default=True, help="Split by: prompt, image, official or a file.")
@click.option("--test-share", default=0.2, show_default=True, help="Share of prompts to test on; 0 trains on all.")
@click.option("--validation-share", default=0.15, show_default=True, help="Share of the rest, for validation.")
@click.option(
    "--leave-out/--no-leave-out",
    default=True,
    show_default=True,
    help="Leave out each generator in turn to calibrate the intervals.",
)
@click.option("--log", metavar="WHERE", help="Log every epoch to tensorboard:FOLDER or wandb:PROJECT.")
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(output: Path, quiet: bool, **flags: Any) -> None:
    """Train the fusion and a head on a rated set, on pairs, or on both, from features of frozen encoders.

    A rated set gives scores in its units. Pairs alone give scores that only order images. The images of --pairs are
    relative to --root or to the folder of the table.

    If it is interrupted, repeat the command: it resumes, and ends with the same weights. Needs the extra "train".
    """
    from mst_clipiqa.train.build import build
    from mst_clipiqa.train.job import TrainingJob

    check_drawing()
    check_log(flags["log"])
    recipe = recipe_of(flags["recipe"], flags["changes"], flags["seed"])
    rated, preferences = _data(flags)
    split = _split(rated, preferences, flags)
    say_data_notes(split.notes)
    job = TrainingJob(
        rated, split, flags["target"], flags["head"], recipe, output, flags["leave_out"], preferences=preferences
    )
    encoder = image_encoder(flags["encoders"], flags)
    kept: list[Path] = []
    run = f"{output.resolve().name}-{flags['target']}"
    with experiment_log(flags["log"], run, recipe, output) as log:
        result = build(job, encoder, lambda label, total: progress(label, total, quiet=quiet), log, kept.append)
    say_notes([f"README.md was not as train writes it; its text is now in {place}." for place in kept])
    if quiet:
        return
    for line in _summary(result, job):
        click.echo(line)
    click.echo(f"Saved in {output}; see {output / 'README.md'}.")


def _data(flags: dict[str, Any]) -> tuple[RatedSet, PreferenceSet | None]:
    """Return the ratings and the pairs that flags name; with pairs alone, their images stand for the rated set."""
    if flags["data"] and not flags["root"]:
        raise UsageError("--data needs --root: name the folder of its labels and images.")
    preferences = None
    if flags["pairs"] is not None:
        preferences = load_preferences(flags["pairs"], flags["root"], allow_missing=flags["allow_missing"])
        say_data_notes(preferences.images.notes)
    if flags["data"]:
        return rated_set_of(flags), preferences
    if preferences is None:
        raise UsageError("Expected --data and --root with a rated set, or --pairs with a table of pairs, got neither.")
    if flags["score_range"] is not None:
        raise UsageError("Expected --range with --data only, got it with --pairs alone: leave it out.")
    return replace(preferences.images, ranges=dict.fromkeys(RATED_TARGETS, (1.0, 5.0))), preferences


def _split(rated: RatedSet, preferences: PreferenceSet | None, flags: dict[str, Any]) -> Split:
    records, by = list(rated.records), flags["split_by"]
    if preferences is not None and by not in ("prompt", "image"):
        raise UsageError(f"Expected --split-by prompt or image with --pairs, got {by!r}: a fixed split has no pairs.")
    if preferences is not None and flags["data"]:
        records += preferences.images.records
    together = identical(records) if by in ("prompt", "image") else ()
    if preferences is not None and by == "image":  # both images of a pair stay in one part
        together += tuple((pair.a, pair.b) for pair in preferences.pairs)
    shares = {"test_share": flags["test_share"], "validation_share": flags["validation_share"]}
    return make_split(records, by, seed=flags["seed"], together=together, **shares)


def _selection(job: TrainingJob) -> list[str]:
    """Return what chose the epoch, in a sentence, if there are ratings but no correlation could choose it."""
    from mst_clipiqa.train.training_file import read_training

    best = read_training(job.out)[job.target]["best"]
    if best["validation_srcc"] is not None or not job.has_ratings:
        return []
    instead = "pairs alone chose it" if best["validation_pairs"] is not None else "the first one was kept"
    return [
        "SRCC and PLCC do not exist on the validation images that choose the epoch, as no two of their ratings of "
        f"{job.target} differ: {instead}. Rate more images, or choose another --seed or --validation-share."
    ]


def _summary(result: TrainingResult | None, job: TrainingJob) -> list[str]:
    """Return the most important results, in sentences."""
    return [*_selection(job), *(_tested(result, job) if result else [])]


def _tested(result: TrainingResult, job: TrainingJob) -> list[str]:
    """Return what the test part shows, and what the model lacks."""
    lines, clean = [], f"; {result.contamination.label}" if result.contamination.label else ""
    if found := result.evaluation:
        known = math.isfinite(result.baseline_srcc)
        baseline = f" (baseline, the mean rating of each generator: SRCC {result.baseline_srcc:.4f})" if known else ""
        correlations = f"SRCC {found.agreement.srcc:.4f}, PLCC {found.agreement.plcc:.4f}"
        why = found.agreement.undefined
        measured = f"SRCC and PLCC are undefined, as {why}" if why else correlations
        prompts = "" if job.usable.leakage is None else f" of {counted(found.groups, 'prompt')}"
        images = f"{counted(found.agreement.n, 'test image')}{prompts}"
        lines.append(f"{job.target} on {images}: {measured}{baseline}{clean}.")
        if found.agreement.rmse > result.mean_rmse:
            advice = "" if job.recipe.on_scale or job.head == "template" else ", or train with --set on_scale=true"
            lines.append(
                f"The RMSE, {found.agreement.rmse:.3f}, is above that of the mean rating, {result.mean_rmse:.3f}: "
                f"compare scores with each other only{advice}."
            )
    elif job.has_ratings:
        lines.append(f"Not tested on ratings: no test image has both a rating and a score of {job.target}.")
    if pairs := result.preferences:
        ends = pairs.undefined or f"95 % {pairs.low:.4f} to {pairs.high:.4f}"
        tested = f"{counted(pairs.pairs, 'test pair')} of {counted(pairs.groups, 'prompt')}"
        lines.append(f"{job.target} on {tested}: {pairs.accuracy:.4f} ordered right ({ends}){clean}.")
        if not pairs.undefined and (few := say_few_groups(pairs.groups)):
            lines.append(few)
    if result.unread:
        lines.append(f"Left out: {counted(result.unread, 'test image')} whose prompt the text encoder does not read.")
    if result.lacks:
        lines.append(
            f"The model has no {' and no '.join(result.lacks)}: half of the validation part calibrates them, and that "
            "takes at least 9 prompts and 20 images there. Rate more images, or raise --validation-share."
        )
    if not job.has_ratings:
        lines.append("The model is uncalibrated: without ratings, its scores only order images.")
    return lines
