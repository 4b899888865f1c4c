"""``mst-clipiqa benchmark``: many splits, heads and targets, beside published figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._from_flags import image_encoder
from mst_clipiqa.cli.commands._options import encoding_options, trained_encoders_options
from mst_clipiqa.cli.commands._rated import data_options, rated_set_of, recipe_of, recipe_options
from mst_clipiqa.cli.commands._say import say_data_notes
from mst_clipiqa.cli.commands._types import FILE_OR_FOLDER, FOLDER
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.data import LikelyScales, RatedSet, identical, load_rated_set, rated_for
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.tables.atomic import write_together
from mst_clipiqa.train.curves import check_drawing, draw_scatter

if TYPE_CHECKING:
    from mst_clipiqa.benchmark.runs import BenchmarkPlan, BenchmarkRun, OtherSet
    from mst_clipiqa.features.image_encoder import ImageEncoder


@click.command("benchmark", cls=SectionedCommand)
@data_options
@trained_encoders_options
@click.option("--heads", default="template,prompt", show_default=True, help="Heads to train.")
@click.option("--targets", help="Targets to train for; default: all in the set.")
@click.option("--splits", default=10, show_default=True, type=click.IntRange(1), help="Number of splits.")
@click.option("--split-by", default="prompt", show_default=True, help="Split by: prompt, image, official or a file.")
@click.option("--test-data", help="Test on this other rated set.")
@click.option("--test-root", type=FILE_OR_FOLDER, help="Folder of that set.")
@click.option(
    "--test-range", type=(float, float), metavar="LOW HIGH", help="Rating scale of that set, if it is your own."
)
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder for results.json, results.md and scatter.png.")
@click.option(
    "--processes", default=0, show_default=True, type=click.IntRange(0), help="Trainings in parallel; 0: one per core."
)
@click.option("--fail-on-contamination", is_flag=True, help="Exit 1 if the encoders had seen test images or prompts.")
@recipe_options
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(output: Path, quiet: bool, **flags: Any) -> int:
    """Train and test on many splits of a rated set, and compare the results with published ones.

    If it is interrupted, run it again: it resumes, keeping the splits that are finished. Needs the extra "train".
    """
    from mst_clipiqa.benchmark.results import markdown, summarise
    from mst_clipiqa.benchmark.resuming import FINISHED, run_resumed
    from mst_clipiqa.benchmark.runs import Bench
    from mst_clipiqa.evaluate import json_ready
    from mst_clipiqa.train.contamination import encoders_trained_on
    from mst_clipiqa.train.features import encode_records

    check_drawing()
    plan = _plan(rated_set_of(flags), flags)
    say_data_notes(plan.split(0).notes)
    encoder = image_encoder(flags["encoders"], flags)
    output.mkdir(parents=True, exist_ok=True)
    prompts = "prompt" in plan.heads
    with progress("Encoding", len(plan.rated), quiet=quiet) as advance:
        table = encode_records(encoder, plan.rated.records, prompts=prompts, progress=advance)
    other = _other(plan, encoder, flags, quiet)
    bench = Bench(plan, table, encoders_trained_on(encoder.encoders.source, encoder.encoders.sha256), other)
    total = len(plan.targets) * len(plan.heads) * plan.splits
    with progress("Training and testing", total, quiet=quiet) as advance:
        runs = run_resumed(bench, output / FINISHED, flags["processes"] or os.cpu_count() or 1, advance)
    pair = encoder.encoders
    named = {"source": pair.source, "sha256": pair.sha256, "precision": pair.precision}
    tables = [table, *([other.table] if other else [])]
    unread = sum(len(one.records) - len(one.scored(one.records, "prompt")) for one in tables)
    found = summarise(plan, runs, named, other.name if other else None, unread)
    text = markdown(found)
    results = {
        "results.json": f"{json.dumps(json_ready(found))}\n".encode(),
        "results.md": text.encode(),
        "scatter.png": _scatter(runs[0]),
    }
    write_together({output / name: data for name, data in results.items()})
    (output / FINISHED).unlink(missing_ok=True)
    click.echo(text, nl=False)
    contaminated = any(line["contaminated"] for line in found["summary"])
    return 1 if flags["fail_on_contamination"] and contaminated else 0


def _plan(rated: RatedSet, flags: dict[str, Any]) -> BenchmarkPlan:
    from mst_clipiqa.benchmark.runs import BenchmarkPlan

    heads = tuple(flags["heads"].split(","))
    targets = tuple(flags["targets"].split(",")) if flags["targets"] else rated.targets
    for kind, given, known in (("heads", heads, ("template", "prompt")), ("targets", targets, rated.targets)):
        if wrong := [name for name in given if name not in known]:
            raise UsageError(f"Expected --{kind} of {', '.join(known)}, got {wrong[0]!r}.")
        if len(set(given)) < len(given):  # each run would count twice, as if there were more splits
            raise UsageError(f"Expected each of --{kind} once, got {','.join(given)}: leave out the second.")
    by, splits = flags["split_by"], flags["splits"]
    if by not in ("prompt", "image"):
        splits = 1  # a fixed split is one split
    together = tuple(identical(rated.records)) if by in ("prompt", "image") else ()
    plan = BenchmarkPlan(rated, heads, targets, splits, by, recipe_of(flags["recipe"], flags["changes"]), together)
    parts = ("train", "validation") if flags["test_data"] else ("train", "validation", "test")
    for split in map(plan.split, range(splits)):
        for target in targets:
            split.check_rated(target, *parts)
    return plan


def _other(plan: BenchmarkPlan, encoder: ImageEncoder, flags: dict[str, Any], quiet: bool) -> OtherSet | None:
    """Return the set to test on, where it is another one."""
    from mst_clipiqa.benchmark.runs import OtherSet
    from mst_clipiqa.train.features import encode_records

    data, root, scale = flags["test_data"], flags["test_root"], flags["test_range"]
    if data is None and root is None and scale is None:
        return None
    if data is None or root is None:
        raise UsageError("Expected --test-data and --test-root together, got one or none: give both.")
    likely = LikelyScales(plan.rated.ranges, "--test-range")  # models trained on --data score on these
    rated = load_rated_set(data, root, allow_missing=flags["allow_missing"], score_range=scale, likely=likely)
    say_data_notes(rated.notes)
    if absent := [target for target in plan.targets if target not in rated.ranges]:
        raise UsageError(f"Expected the target {absent[0]} in {rated.name}, which has {', '.join(rated.targets)}.")
    for target, count in {target: len(rated_for(rated.records, target)) for target in plan.targets}.items():
        if count < 2:
            raise DataError(
                f"Expected at least 2 images with a rating of {target} in {rated.name}, got {count}: rate more images, "
                "or leave it out with --targets."
            )
    with progress("Encoding the test set", len(rated), quiet=quiet) as advance:
        table = encode_records(encoder, rated.records, prompts="prompt" in plan.heads, progress=advance)
    return OtherSet(rated.name, table, rated.ranges)


def _scatter(run: BenchmarkRun) -> bytes:
    return draw_scatter(run.predictions, run.mos, f"{run.target}, {run.head} head, split {run.split}")
