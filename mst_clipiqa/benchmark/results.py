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

from mst_clipiqa.benchmark.runs import BenchmarkPlan, BenchmarkRun
from mst_clipiqa.train.contamination import Contamination

RUN_MEASURES = ("srcc", "plcc", "krcc", "rmse", "pair_accuracy", "coverage", "baseline_srcc")


def summarise(
    plan: BenchmarkPlan, runs: Sequence[BenchmarkRun], encoders: dict[str, Any], test_set: str | None
) -> dict[str, Any]:
    """Return all results, ready for JSON.

    Args:
        plan: what was run.
        runs: its results.
        encoders: source, sha256 and precision of the pair.
        test_set: the other set that was used for testing, if any.
    """
    return {
        "data": plan.rated.name,
        "tested_on": test_set or plan.rated.name,
        "another_set": test_set is not None,
        "encoders": encoders,
        "recipe": asdict(plan.recipe),
        "split_by": plan.split_by,
        "splits": plan.splits,
        "test_share": _test_share(plan),
        "protocol": runs[0].protocol,
        "summary": [_line(plan, runs, target, head) for target in plan.targets for head in plan.heads],
        "runs": [asdict(run) | {"contaminated": run.contamination.label} for run in runs],
    }


def interval_over_splits(values: Sequence[float], test_share: float) -> tuple[float, float]:
    """Return a 95 % interval of the mean over random splits.

    The splits share images, so the plain interval would be too narrow; the variance is multiplied by
    1/n + test/train instead of 1/n (Nadeau and Bengio, 2003).

    Args:
        values: one result per split, at least two.
        test_share: share of the split set's images in a test part, 0..1, also where another set is tested on: it
            says how much the training parts overlap.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return math.nan, math.nan
    spread = np.var(finite, ddof=1) * (1 / len(finite) + test_share / (1 - test_share))
    half = float(stats.t.ppf(0.975, len(finite) - 1) * math.sqrt(spread))
    return float(np.mean(finite)) - half, float(np.mean(finite)) + half


def markdown(found: dict[str, Any]) -> str:
    """Return the tables of a benchmark: ours with intervals, then the published results, each with its protocol."""
    encoders, splits, another = found["encoders"], found["splits"], found["another_set"]
    source = f"another {found['data']}" if found["tested_on"] == found["data"] else found["data"]
    images = max(run["images"] for run in found["runs"])
    lines = [
        f"# Benchmark on {found['tested_on']}" + f", trained on {source}" * another,
        "",
        f"Encoders `{encoders['source']}` (sha256 `{encoders['sha256'][:16]}`, {encoders['precision']}), recipe "
        f"`{found['recipe']['name']}`, {splits} split{'s' * (splits != 1)} by {found['split_by']}; "
        f"first: {found['protocol']}.",
        *[f"Tested on {images:,} images of the other set instead of the test part of each split."] * another,
        "Mean over splits with a 95 % interval corrected for their overlap; median; standard deviation.",
        "",
        "| target | head | SRCC | median | sd | PLCC | KRCC | RMSE | pairs of a prompt | 90 % interval covers |"
        " generator's mean alone | prompts seen in training |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(line) for line in found["summary"]]
    labels = sorted({line["contaminated"] for line in found["summary"]} - {""})
    lines += ["", *(f"**{label.capitalize()}**" for label in labels)] if labels else []
    for target in dict.fromkeys(line["target"] for line in found["summary"]):
        lines += ["", *_published(found["tested_on"], target)]
    return "\n".join(lines) + "\n"


def _test_share(plan: BenchmarkPlan) -> float:
    """Return the share of the split set's images that a test part holds, 0..1."""
    return len(plan.split(0).test) / len(plan.rated)


def _line(plan: BenchmarkPlan, runs: Sequence[BenchmarkRun], target: str, head: str) -> dict[str, Any]:
    own = [run for run in runs if (run.target, run.head) == (target, head)]
    share = _test_share(plan)
    line: dict[str, Any] = {"target": target, "head": head, "splits": len(own)}
    for measure in RUN_MEASURES:
        values = [getattr(run, measure) for run in own]
        low, high = interval_over_splits(values, share)
        defined = [value for value in values if math.isfinite(value)] or [math.nan]
        mean, median, sd = (float(f(defined)) for f in (np.mean, np.median, np.std))
        sd = sd if len(defined) > 1 else math.nan
        line[measure] = {"mean": mean, "low": low, "high": high, "median": median, "sd": sd}
    leaks = [run.leakage for run in own if run.leakage is not None]
    line["leakage"] = float(np.mean(leaks)) if leaks else None
    line["contaminated"] = _together(own).label
    return line


def _together(runs: Sequence[BenchmarkRun]) -> Contamination:
    """Return the mean contamination of several test parts."""
    found = [run.contamination for run in runs]
    by = tuple(dict.fromkeys(who for one in found for who in one.by))
    return Contamination(_mean([one.images for one in found]), _mean([one.prompts for one in found]), by)


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _row(line: dict[str, Any]) -> str:
    def shown(value: float, digits: int = 4) -> str:
        return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"

    srcc = line["srcc"]
    interval = f"{srcc['low']:.4f} to {srcc['high']:.4f}" if math.isfinite(srcc["low"]) else "no interval"
    leakage = "unknown" if line["leakage"] is None else f"{line['leakage']:.0%}"
    mark = " (contaminated)" if line["contaminated"] else ""
    ranked = f"{shown(srcc['mean'])} ({interval}){mark}"
    cells = [line["target"], line["head"], ranked, shown(srcc["median"]), shown(srcc["sd"])]
    cells += [shown(line[m]["mean"], 3) for m in ("plcc", "krcc", "rmse", "pair_accuracy", "coverage", "baseline_srcc")]
    return "| " + " | ".join([*cells, leakage]) + " |"


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
