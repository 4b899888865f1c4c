"""``mst-clipiqa data``: look at a rated set before trusting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mst_clipiqa.cli.commands._options import range_option
from mst_clipiqa.data import load_rated_set
from mst_clipiqa.data.copies import identical
from mst_clipiqa.data.loading import find_images
from mst_clipiqa.data.survey import Survey, TargetSurvey, survey
from mst_clipiqa.errors import counted

if TYPE_CHECKING:
    from rich.console import Console


@click.group("data")
def command() -> None:
    """Check rated sets: images found, images missing, ratings."""


@command.command("check")
@click.argument("name")
@click.option(
    "--root", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of labels and images."
)
@range_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
def check(name: str, root: Path, score_range: tuple[float, float] | None, as_json: bool) -> int:
    """Check the rated set NAME in a folder.

    NAME is agiqa-1k, agiqa-3k, aigciqa2023, aigiqa-20k or pku-aigiqa-4k; for a set of your own, csv, imagefolder,
    pyiqa, parquet or webdataset. Exit code 1 means that images are missing, 2 that the labels cannot be read.
    """
    from dataclasses import replace

    labels = load_rated_set(name, root, images=False, score_range=score_range)
    files = find_images(labels)
    there = [replace(record, file=files[record.name]) for record in labels.records if record.name in files]
    missing = [record.name for record in labels.records if record.name not in files]
    report = survey(labels, len(there), missing, identical(there))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        _print(report)
    return 1 if missing else 0


def _print(report: Survey) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{report.name} in {report.root}")
    labels = ", ".join(_under(path, report.root) for path in report.labels)
    _print_facts(
        console,
        [
            ("labels", f"{labels} (licence: {report.licence})"),
            ("images", _images(report)),
            ("identical", _identical(report)),
            ("prompts", f"{report.prompts:,}; {report.without_prompt:,} images without"),
            ("generators", ", ".join(f"{name} {count:,}" for name, count in report.generators.items())),
            ("split", _parts(report)),
            *(("note", note) for note in report.notes),
            *([("cite", report.citation)] if report.citation else []),
        ],
    )
    for target in report.targets:
        _print_target(console, target)


def _under(path: str, root: str) -> str:
    """Return the path of a label file below the root; two may have one name."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else Path(path).name


def _print_facts(console: Console, facts: list[tuple[str, str]]) -> None:
    for name, text in facts:
        console.print(f"  {name:<11}{text}")


def _images(report: Survey) -> str:
    text = f"{report.found:,} of {report.rated:,} rated images found"
    if not report.missing:
        return text
    more = ", ..." if len(report.missing) > 5 else ""
    return f"{text}, {len(report.missing):,} missing: {', '.join(report.missing[:5])}{more}"


def _parts(report: Survey) -> str:
    """Return the official parts, and how many images are in none of them."""
    if not report.splits:
        return "none published"
    text = ", ".join(f"{name} {count:,}" for name, count in report.splits.items())
    left = report.rated - sum(report.splits.values())
    return f"{text}; {counted(left, 'image')} in no part" if left else text


def _identical(report: Survey) -> str:
    if not report.identical:
        return "no two images"
    images, sets = sum(map(len, report.identical)), counted(len(report.identical), "set")
    return (
        f"{images} images in {sets} are the same file ({report.identical_across_prompts} of "
        f"the sets across prompts): {'; '.join(' = '.join(names) for names in report.identical[:5])}"
        f"{'; ...' if len(report.identical) > 5 else ''}"
    )


def _print_target(console: Console, target: TargetSurvey) -> None:
    """Print one target's figures and a bar for each tenth of its scale."""
    low, high = target.score_range
    console.print(
        f"\n{target.target} on {low:g}..{high:g}: {counted(target.count, 'score')}, lowest {target.minimum:.3f}, "
        f"mean {target.mean:.3f} (sd {target.sd:.3f}), highest {target.maximum:.3f}"
    )
    step, most = (high - low) / len(target.histogram), max(target.histogram)
    for index, count in enumerate(target.histogram):
        bar = "█" * round(40 * count / most) or ("▏" if count else "")
        console.print(f"  {low + index * step:>7g} .. {low + (index + 1) * step:<7g}{count:>7,} {bar}")
