"""``mst-clipiqa evaluate``: how well scores agree with people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.analysis.read import read_scores
from mst_clipiqa.cli.commands._from_flags import load_scorer
from mst_clipiqa.cli.commands._options import encoding_options, granularity_option, range_option
from mst_clipiqa.cli.commands._rated import rated_set_of
from mst_clipiqa.cli.commands._say import say_data_notes
from mst_clipiqa.cli.commands._types import FILE, FILE_OR_FOLDER
from mst_clipiqa.cli.progress import progress
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.data import LikelyScales, load_preferences, load_rated_set
from mst_clipiqa.errors import UsageError, counted, percent_seen
from mst_clipiqa.evaluate.caution import say_few_groups

if TYPE_CHECKING:
    from rich.table import Table

    from mst_clipiqa.benchmark.assess import Assessed
    from mst_clipiqa.benchmark.assess_pairs import AssessedPairs
    from mst_clipiqa.evaluate import Evaluation
    from mst_clipiqa.model_folder import TrainedModel
    from mst_clipiqa.scoring.scorer import Scorer


_NAME_IT = " for contamination: name the model with --model"


@click.command("evaluate", cls=SectionedCommand)
@click.argument("tables", nargs=-1, metavar="[SCORES [LABELS]]", type=click.Path(path_type=Path))
@click.option("--model", help="Model: mini, a folder or ORG/NAME[@REVISION] of the hub.")
@click.option("--data", help="Rated set; with LABELS, the default is csv.")
@click.option("--root", type=FILE_OR_FOLDER, help="Folder of that set.")
@click.option("--pairs", type=FILE, help="Table of preferences to compare scores with, as for train.")
@range_option
@click.option("--split", "part", default="test", show_default=True, help="Part: test, validation, train or all.")
@click.option("--allow-missing", is_flag=True, help="Continue without missing images.")
@click.option("--fail-on-contamination", is_flag=True, help="Exit 1 if the model had seen any image or prompt.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
@encoding_options
@granularity_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(tables: tuple[Path, ...], as_json: bool, **flags: Any) -> int:
    """Measure SRCC, PLCC, KRCC and RMSE against human ratings, with intervals over prompts, or over images without one.

    Either score a rated set with a model (--model, --data, --root), or compare a table SCORES with a file LABELS.
    Images match by path, then by base name. With --model, the table is checked for images and prompts that the model
    had seen in training, and its scores are converted to the scale of the ratings; a table of mini always is. The scale
    of other tables is unknown, so they have no RMSE.

    With --pairs, the result is the share of pairs in which the preferred image has the higher score: that of --model,
    or that in the table SCORES, where nothing is scored again and all pairs count.
    """
    for flag, usual in (("granularity", "fine"), ("merge", 0)):
        if tables and flags[flag] != usual:
            raise UsageError(f"Expected --{flag} only where images are scored, got it beside {tables[0]}: drop one.")
    if flags["pairs"] is not None:
        return _pairs(tables, as_json, flags)
    if tables:
        words, found = _from_tables(tables, flags)
    else:
        words, found = _from_model(flags)
    if as_json:
        targets = [
            {
                "target": a.target,
                "unscored": a.unscored,
                "unrated": a.unrated,
                "contaminated": a.contamination.label,
                "interval_over": a.interval_over,
                **(a.evaluation.to_json() if a.evaluation else {}),
            }
            for a in found
        ]
        click.echo(json.dumps({"protocol": words, "targets": targets}, indent=1))
    else:
        _print(words, found)
    return _contaminated(found, flags)


def _pairs(tables: tuple[Path, ...], as_json: bool, flags: dict[str, Any]) -> int:
    """Compare a model with pairs, print the result, and return the exit code."""
    if flags["data"] or len(tables) > 1 or not (tables or flags["model"]):
        raise UsageError("--pairs needs --model or one table of scores, and no --data: name the model or the table.")
    protocol, found = _pairs_from_table(tables[0], flags) if tables else _pairs_from_model(flags)
    if as_json:
        click.echo(json.dumps({"protocol": protocol, "targets": [one.to_json() for one in found]}, indent=1))
    else:
        click.echo(protocol)
        for one in found:
            click.echo(_pair_sentence(one))
            if not one.accuracy.undefined and (few := say_few_groups(one.accuracy.groups)):
                click.echo(few)
    return _contaminated(found, flags)


def _pairs_from_model(flags: dict[str, Any]) -> tuple[str, list[AssessedPairs]]:
    from mst_clipiqa.benchmark.assess import choose
    from mst_clipiqa.benchmark.assess_pairs import assess_pairs
    from mst_clipiqa.model_folder import load_config
    from mst_clipiqa.scoring.folders import trained_folder

    if folder := trained_folder(flags["model"]):
        load_config(folder)  # without a model, the lack of its split is not what is wrong
    preferences = load_preferences(flags["pairs"], flags["root"], allow_missing=flags["allow_missing"])
    part = choose(preferences.images, flags["part"], folder)
    say_data_notes(part.notes)
    scorer = load_scorer(flags)
    with progress("Scoring", len(part.records), quiet=flags["quiet"]) as advance:
        found = assess_pairs(scorer, preferences, part, advance)
    return _said(part.protocol, scorer), found


def _pairs_from_table(scores: Path, flags: dict[str, Any]) -> tuple[str, list[AssessedPairs]]:
    from mst_clipiqa.benchmark.assess_pairs import assess_pair_table

    preferences = load_preferences(flags["pairs"], flags["root"], images=False)
    found = assess_pair_table(read_scores(scores), preferences, _model_of(flags))
    return f"{scores} against all {len(preferences.pairs):,} pairs of {flags['pairs']}", found


def _contaminated(found: Sequence[Assessed | AssessedPairs], flags: dict[str, Any]) -> int:
    """Return the exit code: 1 if the user asked to fail and the model had seen anything."""
    unknown = [one.contamination for one in found if not one.contamination.checked]
    if flags["fail_on_contamination"] and unknown:
        advice = "choose another, or drop the flag" if unknown[0].by else "name it with --model"
        raise UsageError(f"--fail-on-contamination needs a model whose training data is known: {advice}.")
    return 1 if flags["fail_on_contamination"] and any(one.contamination.by for one in found) else 0


def _model_of(flags: dict[str, Any]) -> TrainedModel | None:
    """Return the model that --model names as the origin of a table."""
    from mst_clipiqa.model_folder import load_model
    from mst_clipiqa.scoring.folders import trained_folder

    folder = trained_folder(flags["model"]) if flags["model"] else None
    return load_model(folder) if folder else None


def _pair_sentence(one: AssessedPairs) -> str:
    """Return the result for one target in words."""
    right = one.accuracy
    ends = right.undefined or f"95 % {right.low:.4f} to {right.high:.4f} over {counted(right.groups, 'prompt')}"
    left = [(one.ties, "tie", ""), (one.unscored, "pair", " without both scores")]
    out = "".join(f"; {counted(count, what)}{more} left out" for count, what, more in left if count)
    clean = f"; {one.contamination.label}" if one.contamination.label else ""
    clean += "" if one.contamination.checked or one.contamination.by else _NAME_IT
    pairs = counted(right.pairs, "pair")
    return f"{one.target}: {right.accuracy:.4f} of {pairs} ordered as people prefer ({ends}{out}){clean}."


def _from_tables(tables: tuple[Path, ...], flags: dict[str, Any]) -> tuple[str, list[Assessed]]:
    from mst_clipiqa.benchmark.assess import assess_table

    if len(tables) != 2:
        raise UsageError("Expected a table of scores and a file of labels, or --model, --data and --root.")
    model = _model_of(flags)
    rated = load_rated_set(
        flags["data"] or "csv",
        tables[1],
        images=False,
        score_range=flags["score_range"],
        likely=LikelyScales(model.config.scales) if model else None,
    )
    say_data_notes(rated.notes)
    return f"{tables[0]} against {tables[1]}", assess_table(read_scores(tables[0]), rated, model)


def _from_model(flags: dict[str, Any]) -> tuple[str, list[Assessed]]:
    from mst_clipiqa.benchmark.assess import assess, choose
    from mst_clipiqa.model_folder import load_config
    from mst_clipiqa.scoring.folders import trained_folder

    if not (flags["model"] and flags["data"] and flags["root"]):
        raise UsageError("Expected --model, --data and --root, or a table of scores and a file of labels.")
    folder = trained_folder(flags["model"])
    rated = rated_set_of(flags, LikelyScales(load_config(folder).scales) if folder else None)
    images = choose(rated, flags["part"], folder)
    say_data_notes(images.notes)
    scorer = load_scorer(flags)
    with progress("Scoring", len(images.records), quiet=flags["quiet"]) as advance:
        found = assess(scorer, rated, images, advance)
    protocol = images.protocol
    if images.leakage is not None:
        protocol += f"; {percent_seen(images.leakage)} of them have a prompt that was seen in training"
    return _said(protocol, scorer), found


def _said(protocol: str, scorer: Scorer) -> str:
    """Return the protocol, and what was encoded of the images if it was not all."""
    return ". ".join(filter(None, [protocol, scorer.encoder.policy.summary()]))


def _print(words: str, found: list[Assessed]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(words)
    for one in found:
        if one.evaluation is None:
            console.print(f"{one.target}: no image could be scored, of {one.unscored:,}.")
            continue
        console.print(_measures(one, one.evaluation))
        for name, lines in one.evaluation.tables.items():
            scores = ["mean score"] * one.scaled
            inner = Table(name, "images", "mean rating", *scores, "srcc")
            for line in lines:
                means = [line.mean_mos, *[line.mean_prediction] * one.scaled]
                values = (_number(v, 3) for v in (*means, line.agreement.srcc))
                inner.add_row(line.label or "(none)", str(line.agreement.n), *values)
            console.print(inner)
        for sentence in _notes(one):
            console.print(sentence)


def _measures(one: Assessed, found: Evaluation) -> Table:
    """Return the table of what was measured over all images."""
    from rich.table import Table

    over = f"95 % interval over {one.interval_over}"
    table = Table("measure", "value", over, title=f"{one.target}, {counted(found.agreement.n, 'image')}")
    for measure, interval in found.intervals.items():
        if measure != "rmse" or one.scaled:
            ends = interval.undefined or f"{interval.low:.4f} to {interval.high:.4f}"
            table.add_row(measure, _number(interval.value, 4), ends)
    if (pairs := found.pairs) and not pairs.undefined:
        table.add_row(
            "better of two images of one prompt", f"{pairs.accuracy:.4f}", f"{pairs.low:.4f} to {pairs.high:.4f}"
        )
    if found.coverage is not None:
        table.add_row("90 % intervals cover", f"{found.coverage:.4f}", "")
    return table


def _notes(one: Assessed) -> Iterator[str]:
    """Yield what limits the figures of a target, one sentence each."""
    from mst_clipiqa.benchmark.assess import UNKNOWN_SCALE

    if (found := one.evaluation) and not one.scaled:
        why = found.intervals["rmse"].undefined
        yield f"No RMSE and no mean score: {why}{'; name their model with --model' if why == UNKNOWN_SCALE else ''}."
    if found and (few := say_few_groups(found.groups, one.interval_over)):
        yield few
    if one.unscored:
        yield f"Left out: {counted(one.unscored, 'image')} without a score of {one.target}."
    if one.unrated:
        yield f"Left out: {counted(one.unrated, 'image')} without a rating of {one.target}."
    if not one.contamination.checked and not one.contamination.by:
        yield f"Not checked{_NAME_IT}."
    elif one.contamination.label:
        yield one.contamination.label.capitalize() + "."


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "undefined"
