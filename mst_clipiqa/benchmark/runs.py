"""Many splits, heads and targets of one rated set, trained and tested on features that are encoded once.

Each split trains a new model and tests it on prompts (or images) that were not used in training. The runs are
independent, so they run in parallel as processes with one thread each.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.benchmark.coverage import coverage_elsewhere, crossed_coverage
from mst_clipiqa.data import RatedSet, Record, Split, make_split, rated_for
from mst_clipiqa.encoders.torch_threads import on_one_thread
from mst_clipiqa.evaluate import Resampling, agreement, pair_accuracy
from mst_clipiqa.model.mst_clipiqa import Head, to_native
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.train.agreement import baseline_srcc
from mst_clipiqa.train.contamination import Contamination, contamination, trained_on
from mst_clipiqa.train.features import FeatureTable, rated_features
from mst_clipiqa.train.fit import fit
from mst_clipiqa.train.intervals import clipped_scores
from mst_clipiqa.train.recipe import Recipe

_VALIDATION_SHARE = 0.1  # less than train takes: here, validation images select the epoch and calibrate nothing
_FEW_RESAMPLES = Resampling(resamples=20)  # intervals are reported over splits, not for a run
_MOST_PROCESSES = 61 if os.name == "nt" else sys.maxsize  # Windows cannot wait for more
RunKey = tuple[str, Head, int]  # target, head, split
PAIR_GAP = 0.1  # share of the scale: two images of a prompt are compared if their ratings differ by more


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to compare on one rated set."""

    rated: RatedSet
    heads: tuple[Head, ...]
    targets: tuple[str, ...]
    splits: int
    split_by: str
    recipe: Recipe
    together: tuple[tuple[Record, ...], ...] = ()  # byte-identical images, which no split may separate

    def split(self, number: int) -> Split:
        """Return split ``number``; the same for every head and target."""
        together = self.together if self.split_by in ("prompt", "image") else ()
        return make_split(
            self.rated.records,
            self.split_by,
            seed=number,
            validation_share=_VALIDATION_SHARE,
            together=together,
        )


@dataclass(frozen=True)
class BenchmarkRun:
    """One training and its test; scores in native units.

    ``coverage`` is the share of ratings inside 90 % intervals that other test prompts calibrated, because the
    validation part selects the epoch (``coverage.py``); where another set is tested on, the whole test part calibrates.
    It is NaN with too few prompts. ``pair_accuracy`` is of the pairs of a prompt whose ratings differ by more than
    ``PAIR_GAP`` of the scale; ``baseline_srcc`` is that of the mean rating of each generator and setting.
    """

    target: str
    head: Head
    split: int
    protocol: str
    leakage: float | None
    images: int
    srcc: float
    plcc: float
    krcc: float
    rmse: float
    pair_accuracy: float
    coverage: float
    baseline_srcc: float
    contamination: Contamination
    names: tuple[str, ...]
    groups: tuple[str, ...]
    mos: tuple[float, ...]
    predictions: tuple[float, ...]

    @property
    def key(self) -> RunKey:
        """Return which run of a plan it is."""
        return self.target, self.head, self.split


@dataclass(frozen=True)
class OtherSet:
    """Images to test on from another set: its name, records, and features from the same encoders."""

    name: str
    table: FeatureTable
    ranges: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Bench:
    """All that a run needs besides its own target, head and split."""

    plan: BenchmarkPlan
    table: FeatureTable
    seen: TrainedOn  # by the encoders
    other: OtherSet | None = None


def run_all(
    bench: Bench,
    processes: int = 1,
    report: Callable[[BenchmarkRun], None] = lambda _: None,
    done: Sequence[BenchmarkRun] = (),
) -> list[BenchmarkRun]:
    """Run a plan: every target, head and split, in this order.

    Args:
        bench: plan and features.
        processes: runs at a time, each in a process of one thread; 1 stays in this process.
        report: called with each run when it is finished.
        done: runs of an earlier process, which are not run again.
    """
    plan = bench.plan
    jobs: list[RunKey] = list(product(plan.targets, plan.heads, range(plan.splits)))
    runs = {run.key: run for run in done}
    left = [job for job in jobs if job not in runs]
    for run in _spread(bench, left, min(processes, len(left), _MOST_PROCESSES)):
        runs[run.key] = run
        report(run)
    return [runs[job] for job in jobs]


def _spread(bench: Bench, jobs: Sequence[RunKey], processes: int) -> Iterator[BenchmarkRun]:
    if processes <= 1:
        with on_one_thread():  # as in the other processes, so that the figures are the same
            yield from (run_one(bench, *job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in an unknown state
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(bench,)) as pool:
        yield from pool.map(_work, jobs)


_bench: list[Bench] = []  # the data of a worker process, sent once


def _start_worker(bench: Bench) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _bench[:] = [bench]


def _end_with_parent() -> None:
    """End this worker if the benchmark is killed, as it would wait for the next job forever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _work(job: RunKey) -> BenchmarkRun:
    return run_one(_bench[0], *job)


def run_one(bench: Bench, target: str, head: Head, number: int) -> BenchmarkRun:
    """Train on one split and test it; the test part is not used before the weights are fixed."""
    plan, table = bench.plan, bench.table
    split, scale = _scored(plan.split(number).rated(target), table, head), plan.rated.ranges[target]
    parts = split.for_training()
    training, validation = (rated_features(table, p, target, head, scale) for p in (parts.train, parts.validation))
    fitted = fit(training, validation, head, replace(plan.recipe, seed=number))
    own = rated_features(table, split.test, target, head, scale)
    q = clipped_scores(fitted.model, own)
    errors, groups = (q - own.y).numpy(), [record.group for record in split.test]
    if bench.other is None:
        return _measured(bench, split, (target, head, number), q, crossed_coverage(errors, groups))
    split = replace(split, test=bench.other.table.scored(rated_for(bench.other.table.records, target), head))
    other = rated_features(bench.other.table, split.test, target, head, bench.other.ranges[target])
    q = clipped_scores(fitted.model, other)
    coverage = coverage_elsewhere(errors, groups, (q - other.y).numpy())
    return _measured(bench, split, (target, head, number), q, coverage)


def _scored(split: Split, table: FeatureTable, head: Head) -> Split:
    """Return a split without the images that a head does not score."""
    train, validation = table.scored_parts(split.train, split.validation, head)
    return replace(split, train=train, validation=validation, test=table.scored(split.test, head))


def _measured(bench: Bench, split: Split, job: RunKey, q: Tensor, coverage: float) -> BenchmarkRun:
    """Compare scores ``q`` of the test part, on 1..5, with its ratings, in native units: those of its own set."""
    target, _, _ = job
    low, high = (bench.other or bench.plan.rated).ranges[target]
    predicted = to_native(q, low, high).numpy()
    mos = np.array([record.targets[target] for record in split.test])
    groups = [record.group for record in split.test]
    learnt = [*split.train, *split.validation]
    found = agreement(predicted, mos)
    # A split says itself what its parts share; another set may hold the same images under other names.
    seen = ({"the model": trained_on(learnt)} if bench.other else {}) | {"its encoders": bench.seen}
    return BenchmarkRun(
        *job,
        protocol=split.protocol,
        leakage=split.leakage,
        images=len(mos),
        srcc=found.srcc,
        plcc=found.plcc,
        krcc=found.krcc,
        rmse=found.rmse,
        pair_accuracy=pair_accuracy(predicted, mos, groups, PAIR_GAP * (high - low), _FEW_RESAMPLES).accuracy,
        coverage=coverage,
        baseline_srcc=baseline_srcc(learnt, split.test, target),
        contamination=contamination(split.test, seen),
        names=tuple(record.name for record in split.test),
        groups=tuple(groups),
        mos=tuple(mos.tolist()),
        predictions=tuple(predicted.tolist()),
    )
