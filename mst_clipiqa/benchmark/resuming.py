"""A benchmark that can be stopped: its finished runs are kept in a file, from which it resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mst_clipiqa._version import __version__
from mst_clipiqa.benchmark.runs import Bench, BenchmarkRun, run_all
from mst_clipiqa.data import Record
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.train.checkpoint import check_identity, damaged_checkpoint
from mst_clipiqa.train.contamination import Contamination
from mst_clipiqa.train.features import FeatureTable
from mst_clipiqa.train.identity import sha256_of

FINISHED = "checkpoint.json"
_WHAT = "benchmark"


def run_resumed(
    bench: Bench, checkpoint: Path, processes: int = 1, advance: Callable[[int], None] = lambda _: None
) -> list[BenchmarkRun]:
    """Run a plan as ``run_all`` does, keeping each run when it is finished; runs that are kept are not run again.

    Args:
        bench: plan and features.
        checkpoint: where runs are kept; its folder exists.
        processes: runs at a time.
        advance: called with the number of runs that are kept, then with 1 after each further run.

    Raises:
        UsageError: the file is damaged, or holds runs of another benchmark.
        OSError: the disk is full or gone.
    """
    identity = _identity(bench)
    done = _kept(checkpoint, identity)
    advance(len(done))

    def keep(run: BenchmarkRun) -> None:
        done.append(run)
        written = json.dumps({"identity": identity, "runs": [asdict(one) for one in done]})
        write_atomically(checkpoint, f"{written}\n".encode())
        advance(1)

    return run_all(bench, processes, keep, tuple(done))


def _kept(path: Path, identity: dict[str, str]) -> list[BenchmarkRun]:
    """Return the runs in a file, exactly as they were; none if there is no file."""
    if not path.is_file():
        return []
    try:
        saved = json.loads(path.read_bytes())
        known, runs = dict(saved["identity"]), [_run(one) for one in saved["runs"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged_checkpoint(path, _WHAT, error) from error
    check_identity(path, _WHAT, known, identity)
    return runs


def _run(saved: dict[str, Any]) -> BenchmarkRun:
    tuples = {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
    seen = saved["contamination"]
    return BenchmarkRun(**{**saved, **tuples, "contamination": Contamination(**{**seen, "by": tuple(seen["by"])})})


def _identity(bench: Bench) -> dict[str, str]:
    """Return the hash of each thing that identifies a benchmark, so that none resumes from another one's runs."""
    plan, other = bench.plan, bench.other
    splits = [plan.split(number) for number in range(plan.splits)]
    found = {
        "version": __version__,
        "recipe": plan.recipe,
        "heads": plan.heads,
        "targets": plan.targets,
        "splits": [(split.protocol, split.names()) for split in splits],
        "data": _labels(bench.table.records, plan.rated.ranges),
        "features": _features(bench.table),
        "test_data": other and _labels(other.table.records, other.ranges),
        "test_features": other and _features(other.table),
        "seen": (sorted(bench.seen.images), sorted(bench.seen.prompts)),
    }
    return {what: hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest() for what, value in found.items()}


def _labels(records: Sequence[Record], ranges: dict[str, tuple[float, float]]) -> tuple[Any, ...]:
    return ranges, [(r.name, r.prompt, r.group, r.generator, r.setting, r.targets) for r in records]


def _features(table: FeatureTable) -> str:
    tensors = [table.f_c, table.f_f, table.templates]
    if table.prompts is not None and table.prompt_of is not None:
        tensors += [table.prompts.tokens, table.prompts.mask, table.prompts.read, table.prompt_of]
    return sha256_of(tensors)
