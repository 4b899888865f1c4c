"""``mst-clipiqa adapt``: a model and images of another domain in, an adapted model out, if it is better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.rows import LeftOut, say_left_out
from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import FAILED_GATE, encoding_options
from mst_clipiqa.cli.commands._rated import rated_set
from mst_clipiqa.cli.commands._types import FILE_OR_FOLDER, FOLDER, NumberRange
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.data import LikelyScales
from mst_clipiqa.errors import UsageError, as_reason, counted
from mst_clipiqa.inputs.expand import expand

if TYPE_CHECKING:
    from mst_clipiqa.adapt.build import Adapted

_NO_FILE = "expected an image file of its own, got one inside another file: unpack it"


@click.command("adapt", cls=SectionedCommand)
@click.argument("model")
@click.option("--images", required=True, type=FILE_OR_FOLDER, help="Folder or list of images to adapt to.")
@click.option("--recursive", is_flag=True, help="Include subfolders.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the adapted model; a new one.")
@click.option("--train", default="fusion", show_default=True, help="What to train: fusion, norm or lora:RANK.")
@click.option(
    "--signal",
    default="ladders",
    show_default=True,
    help="What to learn from: ladders, or teacher:MODEL,MODEL to learn from other models too.",
)
@click.option("--target", default="quality", show_default=True, help="Score to adapt; it must read no prompt.")
@click.option("--check", type=FILE_OR_FOLDER, help="Rated images (.csv) on which SRCC must not fall.")
@click.option(
    "--range", "score_range", type=(float, float), metavar="LOW HIGH", help="Rating scale of --check, such as 1 5."
)
@click.option(
    "--labels",
    default=0.0,
    show_default=True,
    type=NumberRange(0, 0.9),
    help="Share of the rated images of --check to train on.",
)
@click.option("--steps", default=150, show_default=True, type=click.IntRange(0), help="Steps of training.")
@click.option(
    "--anchor", default=1.0, show_default=True, type=NumberRange(0), help="Weight of staying near the scores of MODEL."
)
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@encoding_options
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
def command(model: str, images: Path, output: Path, quiet: bool, **flags: Any) -> int:
    """Adapt MODEL to other images without their ratings, and keep the result only if it is better.

    Images are distorted more and more; the adapted model learns to order each such ladder, and is held to the scores of
    MODEL on the images as they are. A third of the images that --labels does not train on is held out. If neither their
    ladders nor the SRCC on the ratings of --check improves by more than chance, or if either becomes worse, nothing is
    written, and the exit code is 3. The new model has no intervals for what was adapted. Exit code 1 means that images
    were left out; stderr says which and why.
    """
    from mst_clipiqa.adapt.build import build_adapted, check_new
    from mst_clipiqa.adapt.fit import AdaptRecipe
    from mst_clipiqa.adapt.gate import NotBetter
    from mst_clipiqa.adapt.job import AdaptJob
    from mst_clipiqa.adapt.moving import parse_train
    from mst_clipiqa.adapt.signal import parse_signal

    kind, _ = parse_train(flags["train"])
    if flags["labels"] and flags["check"] is None:
        raise UsageError("--labels needs --check: name the rated images.")
    check_new(output)
    recipe = AdaptRecipe(steps=flags["steps"], anchor=flags["anchor"], seed=flags["seed"])
    precision = "fp32" if kind != "fusion" and flags["precision"] == "auto" else flags["precision"]
    items = list(expand(images, recursive=flags["recursive"]))
    scorer = load_scorer(flags | {"model": model, "precision": precision})
    likely = LikelyScales(scorer.model.config.scales)
    job = AdaptJob(
        scorer,
        [Path(item.path) for item in items if item.path],
        output,
        flags["train"],
        parse_signal(flags["signal"]),
        flags["target"],
        flags["check"] and rated_set("csv", flags["check"], flags["score_range"], True, likely),
        flags["labels"],
        recipe,
    )
    without_file = {item.file: as_reason(item.problem or _NO_FILE) for item in items if not item.path}
    try:
        found = build_adapted(job, lambda label, total: progress(label, total, quiet=quiet))
    except NotBetter as error:
        click.echo(f"{error}", err=True)
        _say_left_out(without_file | error.skipped)
        return FAILED_GATE
    if not quiet:
        _say(found, output)
    left = without_file | found.skipped
    _say_left_out(left)
    return 1 if left else 0


def _say_left_out(left: Mapping[str, str]) -> None:
    for line in say_left_out([LeftOut({"file": file}, why) for file, why in left.items()], noun="image"):
        click.echo(line, err=True)


def _say(found: Adapted, output: Path) -> None:
    """Write what was seen to stdout."""
    ladders, (trained, held) = found.verdict.ladders, found.images
    click.echo(f"Adapted on {counted(trained, 'image')}; held out: {held}, with {counted(ladders.ladders, 'ladder')}.")
    if found.labelled:
        click.echo(f"Labelled: {counted(len(found.labelled), 'rated image')} trained with their ratings.")
    click.echo(f"Rungs in the right order: {ladders.before:.3f} before, {ladders.after:.3f} after.")
    for name, one in found.verdict.ratings.items():
        were = "was" if one.unscored == 1 else "were"
        left = f" ({counted(one.unscored, 'image')} got no score and {were} left out)" if one.unscored else ""
        click.echo(
            f"SRCC of {name} with {counted(one.images, 'rating')}{left}: {one.before:.4f} before, "
            f"{one.after:.4f} after."
        )
    for sentence in found.notes():
        click.echo(sentence)
    changed = " and ".join(found.changed)
    click.echo(f"There are no intervals for {changed}: those of the original model no longer hold.")
    click.echo(
        f"{counted(len(found.moved), 'tensor')} moved; {sum(found.seconds.values()):.0f} s in all. Saved in {output}."
    )
