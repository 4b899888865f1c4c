"""Results of a benchmark: JSON, and a table with the published ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np
from scipy import stats

from mst_clipiqa.benchmark.over_prompts import interval_over_prompts, resampled_units
from mst_clipiqa.benchmark.runs import PAIR_GAP, BenchmarkPlan, BenchmarkRun
from mst_clipiqa.data import rated_for
from mst_clipiqa.errors import counted, percent, percent_seen
from mst_clipiqa.evaluate.resampling import possible
from mst_clipiqa.train.contamination import Contamination

RUN_MEASURES = ("srcc", "plcc", "krcc", "rmse", "pair_accuracy", "coverage", "baseline_srcc")
_OVER_PROMPTS = ("srcc", "plcc", "rmse")  # to resample KRCC for every split would take too long


def summarise(
    plan: BenchmarkPlan,
    runs: Sequence[BenchmarkRun],
    encoders: dict[str, Any],
    test_set: str | None,
    unread: int = 0,
) -> dict[str, Any]:
    """Return all results, ready for JSON.

    Intervals are over splits. If another set is tested on, all splits share its images: SRCC, PLCC and RMSE then have
    intervals over its prompts, for the models trained here, and the other measures have none.

    Args:
        plan: what was run.
        runs: its results.
        encoders: source, sha256 and precision of the pair.
        test_set: the other set that was used for testing, if any.
        unread: the number of images left out by the prompt head, because the text encoder does not read the prompt.
    """
    return {
        "data": plan.rated.name,
        "tested_on": test_set or plan.rated.name,
        "another_set": test_set is not None,
        "interval_over": "splits" if test_set is None else resampled_units(runs[0].names, runs[0].groups),
        "pair_gap": PAIR_GAP,
        "encoders": encoders,
        "recipe": asdict(plan.recipe),
        "split_by": plan.split_by,
        "splits": plan.splits,
        "rated": {target: len(rated_for(plan.rated.records, target)) for target in plan.targets},
        "test_share": {target: _test_share(plan, target) for target in plan.targets},
        "protocol": runs[0].protocol,
        "unread": unread,
        "summary": [
            _line(plan, [run for run in runs if (run.target, run.head) == (target, head)], test_set is not None)
            for target in plan.targets
            for head in plan.heads
        ],
        "runs": [asdict(run) | {"contaminated": run.contamination.label} for run in runs],
    }


def interval_over_splits(
    values: Sequence[float], test_share: float, possible: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """Return a 95 % interval of the mean over random splits.

    The splits share images, so the plain interval would be too narrow; the variance is multiplied by
    1/n + test/train instead of 1/n (Nadeau and Bengio, 2003). Each split must have test images of its own: if all share
    them, ``interval_over_prompts`` is the one that counts.

    Args:
        values: one result per split, at least two.
        test_share: share of the set's images in a test part, 0..1.
        possible: the lowest and the highest possible mean. The interval is cut off there, which loses no coverage. Over
            two splits it may fill most of that range.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return math.nan, math.nan
    spread = np.var(finite, ddof=1) * (1 / len(finite) + test_share / (1 - test_share))
    half = float(stats.t.ppf(0.975, len(finite) - 1) * math.sqrt(spread))
    mean, (lowest, highest) = float(np.mean(finite)), possible
    return max(lowest, mean - half), min(highest, mean + half)


def markdown(found: dict[str, Any]) -> str:
    """Return the tables of a benchmark: ours with intervals, then the published results, each with its protocol."""
    encoders, splits, another = found["encoders"], found["splits"], found["another_set"]
    source = f"another {found['data']}" if found["tested_on"] == found["data"] else found["data"]
    tested: dict[str, int] = {}  # a prompt head may leave out some
    for run in found["runs"]:
        tested[run["target"]] = max(run["images"], tested.get(run["target"], 0))
    lines = [
        f"# Benchmark on {found['tested_on']}" + f", trained on {source}" * another,
        "",
        f"Encoders `{encoders['source']}` (sha256 `{encoders['sha256'][:16]}`, {encoders['precision']}), recipe "
        f"`{found['recipe']['name']}`, {counted(splits, 'split')} by {found['split_by']}; "
        f"first: {found['protocol']}.",
        *_rated(found["rated"]),
        *[f"Tested on {_of_each(tested)} of the other set instead of the test part of each split."] * another,
        *([_unread(found["unread"])] if found["unread"] else []),
        _how(found["interval_over"]),
        "",
        *_table([_column(line, found["pair_gap"]) for line in found["summary"]]),
    ]
    labels = sorted({line["contaminated"] for line in found["summary"]} - {""})
    lines += ["", *(f"**{label.capitalize()}**" for label in labels)] if labels else []
    for target in dict.fromkeys(line["target"] for line in found["summary"]):
        lines += ["", *_published(found["tested_on"], target)]
    return "\n".join(lines) + "\n"


def _rated(counts: dict[str, int]) -> list[str]:
    """Return a sentence on how many images have a rating of each target, if the targets differ."""
    if len(set(counts.values())) == 1:
        return []
    return [f"Rated: {_of_each(counts)}; each target is trained and tested on its own."]


def _of_each(counts: dict[str, int]) -> str:
    """Return how many images each target has, or all of them if that is one number."""
    if len(set(counts.values())) == 1:
        return counted(next(iter(counts.values())), "image")
    return " and ".join(f"{counted(count, 'image')} ({target})" for target, count in counts.items())


def _unread(images: int) -> str:
    return f"The prompt head leaves out {counted(images, 'image')} whose prompt the text encoder does not read."


def _how(unit: str) -> str:
    """Return the sentence that explains the figures of the table, by the unit of their intervals."""
    if unit == "splits":
        return "Means over splits; the 95 % interval is corrected for their overlap."
    return (
        f"Means over splits, with a 95 % interval over {unit}, as all splits share the test images: it covers other "
        f"{unit} for the models trained here, not other training."
    )


def _test_share(plan: BenchmarkPlan, target: str) -> float:
    """Return the share of the split set's images with a rating of a target that a test part holds, 0..1."""
    return len(plan.split(0).rated(target).test) / len(rated_for(plan.rated.records, target))


def _line(plan: BenchmarkPlan, own: Sequence[BenchmarkRun], another: bool) -> dict[str, Any]:
    """Return the summary of the runs of one target and head."""
    share = _test_share(plan, own[0].target)
    line: dict[str, Any] = {"target": own[0].target, "head": own[0].head, "splits": len(own)}
    for measure in RUN_MEASURES:
        values = [getattr(run, measure) for run in own]
        low, high = (
            _ends_over_prompts(own, measure) if another else interval_over_splits(values, share, _possible(measure))
        )
        defined = [value for value in values if math.isfinite(value)] or [math.nan]
        mean, median = float(np.mean(defined)), float(np.median(defined))
        sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
        known = int(np.isfinite(values).sum())
        line[measure] = {"mean": mean, "low": low, "high": high, "median": median, "sd": sd, "splits": known}
    leaks = [run.leakage for run in own if run.leakage is not None]
    line["leakage"] = float(np.mean(leaks)) if leaks else None
    line["contaminated"] = _together(own).label
    return line


def _possible(measure: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a measure can have."""
    return (0.0, 1.0) if measure in ("pair_accuracy", "coverage") else possible(measure)


def _ends_over_prompts(own: Sequence[BenchmarkRun], measure: str) -> tuple[float, float]:
    """Return the interval of the mean over splits that share their test images; NaN for a measure without one."""
    defined = [run.predictions for run in own if math.isfinite(getattr(run, measure))]
    if measure not in _OVER_PROMPTS or not defined:
        return math.nan, math.nan
    found = interval_over_prompts(defined, own[0].mos, own[0].groups, measure)
    return found.low, found.high


def _together(runs: Sequence[BenchmarkRun]) -> Contamination:
    """Return the mean contamination of several test parts."""
    found = [run.contamination for run in runs]
    seen = [one for one in found if one.checked and one.by]  # one contaminated part is enough
    by = tuple(dict.fromkeys(who for one in seen or found for who in one.by))
    checked = bool(seen) or all(one.checked for one in found)
    return Contamination(_mean([one.images for one in found]), _mean([one.prompts for one in found]), by, checked)


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _table(columns: list[dict[str, str]]) -> list[str]:
    """Return a table with a column for each target and head, and a row for each figure: it reads well as text too."""
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]


def _column(line: dict[str, Any], pair_gap: float) -> dict[str, str]:
    """Return the figures of one target and head, each under its name."""

    def shown(value: float, digits: int = 4) -> str:
        return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

    srcc, means = line["srcc"], {name: shown(line[name]["mean"], 3) for name in RUN_MEASURES}
    interval = f"{srcc['low']:.4f} to {srcc['high']:.4f}" if math.isfinite(srcc["low"]) else "no interval"
    mark = " (contaminated)" if line["contaminated"] else ""
    some = f" of {srcc['splits']} of {line['splits']} splits" if 0 < srcc["splits"] < line["splits"] else ""
    apart = f"{percent(pair_gap)} of the scale apart"
    return {
        "": f"{line['target']}, {line['head']} head",
        "SRCC (95 % interval)": f"{shown(srcc['mean'])}{some} ({interval}){mark}",
        "SRCC: median of splits": shown(srcc["median"]),
        "SRCC: standard deviation of splits": shown(srcc["sd"]),
        "PLCC": means["plcc"],
        "KRCC": means["krcc"],
        "RMSE": means["rmse"],
        f"better of two images of one prompt, rated over {apart}": means["pair_accuracy"],
        "ratings inside 90 % intervals": means["coverage"],
        "SRCC of the mean of generator and setting alone": means["baseline_srcc"],
        "prompts seen in training": "unknown" if line["leakage"] is None else percent_seen(line["leakage"]),
    }


def _published(data: str, target: str) -> list[str]:
    """Return the published results on a set and target, each with its protocol."""
    text = resources.files("mst_clipiqa.benchmark").joinpath("published.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if (row["data"], row["target"]) == (data, target)]
    if not rows:
        return [f"No published figures are known to us for {target} on {data}."]
    lines = [f"Published figures for {target} on {data}; each has its own protocol:", ""]
    lines += ["| method | SRCC | PLCC | protocol | source |", "|---|---|---|---|---|"]
    return lines + [
        f"| {r['method']} | {r['srcc']} | {r['plcc'] or 'not stated'} | {r['protocol']} | {r['source']} |" for r in rows
    ]
