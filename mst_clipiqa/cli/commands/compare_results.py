"""``mst-clipiqa compare-results``: is B better than A?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.cli.commands._outputs import same_file
from mst_clipiqa.cli.commands._say import say_notes
from mst_clipiqa.cli.commands._types import FILE
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import DataError, UsageError, are, counted, shown


@click.command("compare-results", cls=SectionedCommand)
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of sentences.")
def command(a: Path, b: Path, as_json: bool) -> None:
    """Compare two benchmark results (results.json) split by split; data, splits and ratings must be the same.

    For every target and head that both have, prints the mean difference in SRCC over the splits that both have, with a
    95 % interval, and a sentence. The interval is over splits; over prompts if all splits share the test images, as
    with --test-data.
    """
    from dataclasses import asdict

    from mst_clipiqa.benchmark.compare_results import compare_results
    from mst_clipiqa.evaluate import json_ready

    if same_file(a, b):
        raise UsageError(f"Expected two results, got one file as both, {shown(a)}: name the one to compare it with.")
    left, right = _read(a), _read(b)
    lines = []
    pairs = {(run["target"], run["head"]) for run in left["runs"]} & {(r["target"], r["head"]) for r in right["runs"]}
    for target, head in sorted(pairs):
        found = compare_results(left, right, target, head)
        about = {"target": target, "head": head, "interval_over": found.interval_over}
        counts = {"splits": found.splits, "splits_left_out": found.splits_left_out}
        lines.append({**about, **counts, **asdict(found.difference)})
        if not as_json:
            click.echo(f"{target}, {head} head: {found.difference.sentence}")
            if left_out := found.splits_left_out:
                click.echo(
                    f"{counted(found.splits, 'split')} compared; {left_out} more {are(left_out)} in one result alone."
                )
    if not lines:
        raise DataError(f"Expected a target and head that {a} and {b} share, got none: run both with the same ones.")
    if left == right:
        say_notes([f"{shown(a)} and {shown(b)} hold the same results, so no difference can show."])
    if as_json:
        click.echo(json.dumps(json_ready(lines), indent=1))
    elif (unit := lines[0]["interval_over"]) != "splits":
        click.echo(
            f"All splits share the test images, so the intervals are over {unit}: they cover other {unit} for the "
            "models that were trained, not other training."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"runs": list, "test_share": dict}
        if isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
            return found
    except OSError as error:
        raise DataError(
            f"Expected results.json of a benchmark at {shown(path)}, got {error.strerror}: check the path."
        ) from error
    except (ValueError, RecursionError):  # it is something else
        pass
    raise DataError(
        f"Expected results.json of a benchmark at {shown(path)}, got another file, or one of an earlier version: run "
        "benchmark again."
    )
