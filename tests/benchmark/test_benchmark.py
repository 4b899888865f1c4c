"""Benchmarks: what is reported is what was measured, on what was never trained on."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mst_clipiqa.benchmark.compare_results import compare_results
from mst_clipiqa.benchmark.coverage import coverage_elsewhere, crossed_coverage
from mst_clipiqa.benchmark.results import RUN_MEASURES, _possible, _together, interval_over_splits, markdown, summarise
from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, BenchmarkRun, OtherSet, run_all, run_one
from mst_clipiqa.data import RatedSet, Record
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import json_ready, paired_difference
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.train.contamination import Contamination, trained_on
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.recipe import FAST
from tests.benchmark.tables import cells_of
from tests.fakes import FakePair, rated_set
from tests.forked import context

QUICK = replace(FAST, learning_rates=(3e-3,), epochs=5, batch_size=16)
ENCODERS = {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    return rated_set(tmp_path_factory.mktemp("rated"), prompts=20)


@pytest.fixture(scope="module")
def bench(rated: RatedSet) -> Bench:
    plan = BenchmarkPlan(rated, ("template", "prompt"), ("quality", "correspondence"), 2, "prompt", QUICK)
    return Bench(plan, encode_records(ImageEncoder(FakePair()), rated.records, prompts=True), TrainedOn())


@pytest.fixture(scope="module")
def runs(bench: Bench) -> list[BenchmarkRun]:
    return run_all(bench)


def test_every_target_head_and_split_is_run_once(runs: list[BenchmarkRun]) -> None:
    jobs = [(run.target, run.head, run.split) for run in runs]
    assert len(set(jobs)) == len(jobs) == 8
    assert {run.names for run in runs if run.split == 0} == {runs[0].names}  # the same test part for all


def test_figures_are_those_of_the_predictions(runs: list[BenchmarkRun]) -> None:
    for run in runs:
        assert run.srcc == pytest.approx(stats.spearmanr(run.predictions, run.mos).statistic)
        assert run.plcc == pytest.approx(stats.pearsonr(run.predictions, run.mos).statistic)
        assert run.leakage == 0
        assert run.images == len(run.names) == len(run.groups)
        assert math.isnan(run.coverage)  # of four test prompts


def test_splits_by_image_say_that_they_leak(bench: Bench) -> None:
    run = run_one(replace(bench, plan=replace(bench.plan, split_by="image")), "quality", "template", 0)
    assert run.leakage is not None
    assert run.leakage > 0.9


def test_processes_change_nothing(bench: Bench, runs: list[BenchmarkRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are forked from one that has imported what they need, which each would do for seconds."""
    asked, forking = list[str](), context()

    def forked(kind: str) -> BaseContext:
        asked.append(kind)
        return forking

    monkeypatch.setattr(multiprocessing, "get_context", forked)
    small = replace(bench, plan=replace(bench.plan, heads=("template",), targets=("quality",)))
    alone = [r for r in runs if (r.target, r.head) == ("quality", "template")]
    assert [repr(run) for run in run_all(small, processes=2)] == [repr(run) for run in alone]  # coverage may be NaN
    assert asked == ["spawn"]


def test_encoders_that_have_seen_the_test_part_are_named_everywhere(bench: Bench, rated: RatedSet) -> None:
    seen = replace(bench, seen=trained_on(rated.records), plan=replace(bench.plan, splits=1, heads=("template",)))
    found = summarise(seen.plan, run_all(seen), ENCODERS, None)
    label = "contaminated: its encoders had seen 100 % of the images and 100 % of the prompts"
    assert {line["contaminated"] for line in found["summary"]} == {label}
    assert {run["contaminated"] for run in found["runs"]} == {label}
    assert label.capitalize() in markdown(found)
    assert "(contaminated)" in markdown(found)


def swapped(bench: Bench, change: Callable[[Record, float], float]) -> Bench:
    """Return the bench with other ratings; features and parts stay."""
    records = tuple(replace(r, targets={"quality": change(r, r.targets["quality"])}) for r in bench.plan.rated.records)
    rated = replace(bench.plan.rated, records=records)
    return replace(bench, plan=replace(bench.plan, rated=rated), table=replace(bench.table, records=records))


def test_what_chose_the_epoch_does_not_calibrate(tmp_path: Path) -> None:
    rated = rated_set(tmp_path, prompts=60, each=2)
    plan = BenchmarkPlan(rated, ("template",), ("quality",), 1, "image", replace(QUICK, epochs=1))
    plain = Bench(plan, encode_records(ImageEncoder(FakePair()), rated.records, prompts=False), TrainedOn())
    split = plan.split(0)
    # With ratings of its own far off, the validation part would make any interval wide enough for everything.
    validation = {record.name for record in split.validation}
    other = swapped(plain, lambda r, y: 5 - y if r.name in validation else y)
    runs = [run_one(bench, "quality", "template", 0) for bench in (plain, other)]
    assert runs[0].predictions == runs[1].predictions  # one epoch: there was nothing to choose
    assert runs[0].coverage == runs[1].coverage
    assert 0.8 <= runs[0].coverage < 1


def test_coverage_is_measured_on_other_prompts_than_those_that_calibrate() -> None:
    groups = [i // 2 for i in range(40)]
    errors = np.array([1.0 if group % 2 else 2.0 for group in groups])
    assert crossed_coverage(errors, groups) == 0.5  # widths 1 and 2: one half is covered, the other is not
    assert crossed_coverage(-errors, groups) == 0.5
    assert math.isnan(crossed_coverage(errors[:34], groups[:34]))  # 9 and 8 prompts
    assert coverage_elsewhere(errors, groups, np.array([1.9, -2.1])) == 0.5
    assert math.isnan(coverage_elsewhere(errors[:16], groups[:16], errors))


def test_coverage_of_new_prompts_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    groups = [i // 5 for i in range(250)]
    shares = [crossed_coverage(rng.normal(size=250) + rng.normal(size=50)[groups], groups) for _ in range(200)]
    assert np.mean(shares) == pytest.approx(0.92, abs=0.02)  # at least .90, and at most .04 more with 25 prompts


def test_summary_and_tables(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = summarise(bench.plan, runs, ENCODERS, None)
    line = found["summary"][0]
    own = [r.srcc for r in runs if (r.target, r.head) == (line["target"], line["head"])]
    assert line["srcc"]["mean"] == pytest.approx(sum(own) / 2)
    text = markdown(found)
    cells = cells_of(text)
    assert cells[""] == [f"{one['target']}, {one['head']} head" for one in found["summary"]]
    assert sum(name.startswith("quality, ") for name in cells[""]) == 2
    assert "No published figures are known to us for quality on toy." in text
    assert f"Encoders `fake` (sha256 `{'f' * 16}`, fp32)" in text
    assert cells["SRCC: standard deviation of splits"][0] == f"{line['srcc']['sd']:.4f}"
    for measure in ("plcc", "krcc", "rmse"):
        assert cells[measure.upper()] == [f"{one[measure]['mean']:.3f}" for one in found["summary"]]
    assert json.loads(json.dumps(json_ready(found)))["splits"] == 2


def test_published_figures_stand_beside_ours_with_their_protocol(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = summarise(bench.plan, runs, ENCODERS, None) | {"tested_on": "agiqa-3k"}
    assert "| IPCE | 0.8841 | 0.9246 | 10 prompt-disjoint splits |" in markdown(found)


def test_interval_over_splits_by_hand() -> None:
    low, high = interval_over_splits([0.7, 0.8, 0.9], test_share=0.2)
    half = 4.302653 * math.sqrt(0.01 * (1 / 3 + 0.25))
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=1e-6)
    assert all(math.isnan(end) for end in interval_over_splits([0.7], 0.2))


def test_an_interval_over_two_splits_ends_where_the_measure_does() -> None:
    low, high = interval_over_splits([0.5, 0.7], test_share=0.2)
    assert low < -0.4 and high > 1.6
    assert interval_over_splits([0.5, 0.7], 0.2, (-1.0, 1.0)) == (low, 1.0)
    assert interval_over_splits([-0.9, -0.2], 0.2, (-1.0, 1.0)) == (-1.0, 1.0)
    assert interval_over_splits([0.70, 0.71, 0.72], 0.2, (-1.0, 1.0)) == interval_over_splits([0.70, 0.71, 0.72], 0.2)
    correlations = dict.fromkeys(("srcc", "plcc", "krcc", "baseline_srcc"), (-1.0, 1.0))
    shares = dict.fromkeys(("pair_accuracy", "coverage"), (0.0, 1.0))
    ranges = correlations | shares | {"rmse": (0.0, math.inf)}
    assert {measure: _possible(measure) for measure in RUN_MEASURES} == ranges


def test_better_and_worse_are_told_apart(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = json_ready(summarise(bench.plan, runs, ENCODERS, None))
    truth = {**found, "runs": [{**run, "predictions": run["mos"]} for run in found["runs"]]}
    same = compare_results(found, found, "quality", "prompt").difference
    assert same.difference == 0
    assert same.better is None
    reversed_ = {**found, "runs": [{**run, "predictions": [-y for y in run["mos"]]} for run in found["runs"]]}
    won = compare_results(reversed_, truth, "quality", "prompt").difference
    assert (won.a, won.b, won.low, won.better) == (-1, 1, 2, "b")
    with pytest.raises(DataError, match="Expected two results with splits in common"):
        compare_results(found, {**found, "runs": []}, "quality", "prompt")


def test_another_set_is_tested_on_its_own_scale(bench: Bench, tmp_path: Path) -> None:
    other = rated_set(tmp_path, prompts=4)

    def run(low: float, high: float) -> BenchmarkRun:
        records = tuple(
            replace(r, targets={t: low + v / 5 * (high - low) for t, v in r.targets.items()}, group=f"other/{r.group}")
            for r in other.records
        )
        table = encode_records(ImageEncoder(FakePair()), records, prompts=True)
        tested = OtherSet("other", table, {"quality": (low, high), "correspondence": (low, high)})
        return run_one(replace(bench, other=tested), "quality", "template", 0)

    plain, found = run(0.0, 5.0), run(400.0, 500.0)
    assert found.images == 16
    assert found.predictions == pytest.approx([400 + 20 * q for q in plain.predictions])
    assert found.rmse == pytest.approx(20 * plain.rmse)
    assert 0 < plain.pair_accuracy == found.pair_accuracy  # of pairs that differ by a tenth of the scale


def test_predictions_stay_on_the_scale_as_scores_do(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mst_clipiqa.train.intervals.predict", lambda _, part: 3 * part.y - 6)
    run = run_one(bench, "quality", "template", 0)
    assert run.predictions == pytest.approx(np.clip(3 * np.array(run.mos) - 5, 0, 5), abs=1e-5)
    assert 0.0 in run.predictions or 5.0 in run.predictions


def test_one_split_has_no_interval_and_no_deviation(bench: Bench, runs: list[BenchmarkRun]) -> None:
    first = [run for run in runs if run.split == 0]
    text = markdown(summarise(replace(bench.plan, splits=1), first, ENCODERS, None))
    assert "nan" not in text
    cells = cells_of(text)
    assert cells["SRCC (95 % interval)"][0] == f"{first[0].srcc:.4f} (no interval)"
    assert cells["SRCC: median of splits"][0] == f"{first[0].srcc:.4f}"
    assert cells["SRCC: standard deviation of splits"][0] == "unknown"
    assert ", 1 split by prompt; first:" in text
    plan = replace(bench.plan, splits=1, targets=("quality",), heads=("template",))
    alone = summarise(plan, first[:1], ENCODERS, None)
    assert alone["protocol"] == first[0].protocol


def test_what_is_undefined_is_not_printed_as_nan(bench: Bench, runs: list[BenchmarkRun]) -> None:
    text = markdown(summarise(bench.plan, [replace(run, srcc=math.nan, plcc=math.nan) for run in runs], ENCODERS, None))
    assert "nan" not in text
    cells = cells_of(text)
    assert cells[""][0] == "quality, template head" and cells["SRCC (95 % interval)"][0] == "unknown (no interval)"
    for name in ("SRCC: median of splits", "SRCC: standard deviation of splits", "PLCC"):
        assert cells[name][0] == "unknown"


def test_a_mean_over_some_of_the_splits_says_so(bench: Bench, runs: list[BenchmarkRun]) -> None:
    one = [replace(run, srcc=math.nan) if run.split == 0 else run for run in runs]
    found = summarise(bench.plan, one, ENCODERS, None)
    cells = cells_of(markdown(found))
    assert cells[""][0] == "quality, template head"
    assert cells["SRCC (95 % interval)"][0] == f"{runs[1].srcc:.4f} of 1 of 2 splits (no interval)"
    assert found["summary"][0]["srcc"]["splits"] == 1
    assert " of 2 splits" not in markdown(summarise(bench.plan, runs, ENCODERS, None))


def test_a_test_on_other_files_says_so_though_both_sets_are_called_alike(
    bench: Bench, runs: list[BenchmarkRun]
) -> None:
    assert markdown(summarise(bench.plan, runs, ENCODERS, None)).startswith("# Benchmark on toy\n")
    text = markdown(summarise(bench.plan, [replace(run, images=7) for run in runs], ENCODERS, "toy"))
    assert text.startswith("# Benchmark on toy, trained on another toy\n")
    assert "Tested on 7 images of the other set instead of the test part of each split." in text
    text = markdown(summarise(bench.plan, runs, ENCODERS, "other"))
    assert text.startswith("# Benchmark on other, trained on toy\n")


def test_images_of_another_set_that_were_trained_on_are_named(bench: Bench, rated: RatedSet) -> None:
    tested = OtherSet("other", bench.table, rated.ranges)
    run = run_one(replace(bench, other=tested), "quality", "template", 0)
    assert run.contamination.by == ("the model",)
    assert run.contamination.images == pytest.approx(0.8)  # a fifth is the test part of the split
    assert run.contamination.prompts == pytest.approx(0.8)


def test_results_are_compared_split_by_split(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = json_ready(summarise(bench.plan, runs, ENCODERS, None))
    # Each split has a model of its own: what one adds to all its scores changes no order within its test part.
    shifted = [{**run, "predictions": [q + 100 * run["split"] for q in run["predictions"]]} for run in found["runs"]]
    same = compare_results(found, {**found, "runs": shifted}, "quality", "prompt").difference
    line = next(one for one in found["summary"] if (one["target"], one["head"]) == ("quality", "prompt"))
    assert same.a == same.b == pytest.approx(line["srcc"]["mean"])
    assert same.difference == 0
    assert same.better is None
    backwards = {**found, "runs": found["runs"][::-1]}
    for line in found["summary"]:  # each target and head has runs of its own, in any order
        own = compare_results(found, backwards, line["target"], line["head"]).difference
        assert own.a == own.b == pytest.approx(line["srcc"]["mean"])


def test_a_single_split_is_compared_over_its_prompts(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = json_ready(summarise(bench.plan, runs, ENCODERS, None))
    (run,) = (r for r in found["runs"] if (r["split"], r["target"], r["head"]) == (0, "quality", "prompt"))
    backwards = {**run, "predictions": [-q for q in run["predictions"]]}
    got = compare_results({**found, "runs": [run]}, {**found, "runs": [backwards]}, "quality", "prompt").difference
    assert got == paired_difference(run["predictions"], backwards["predictions"], run["mos"], run["groups"])
    assert [got.a, got.b] == pytest.approx([run["srcc"], -run["srcc"]])


@pytest.mark.parametrize(
    ("changes", "of_runs", "named"),
    [
        ({"data": "another"}, {}, "data"),
        ({"tested_on": "another"}, {}, "tested_on"),
        ({"split_by": "image"}, {}, "split_by"),
        ({}, {"names": lambda run: [*run["names"][1:], "new"]}, "test images"),
        ({}, {"mos": lambda run: [-y for y in run["mos"]]}, "ratings"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(
    bench: Bench, runs: list[BenchmarkRun], changes: dict[str, Any], of_runs: dict[str, Any], named: str
) -> None:
    found = json_ready(summarise(bench.plan, runs, ENCODERS, None))
    other = [{**run, **{key: change(run) for key, change in of_runs.items()}} for run in found["runs"]]
    with pytest.raises(DataError, match=f"Expected two results .*{named}"):
        compare_results(found, {**found, **changes, "runs": other}, "quality", "prompt")


def test_one_contaminated_test_part_labels_all_whether_or_not_the_others_were_checked() -> None:
    clean, unknown = Contamination(0.0, 0.0, ()), Contamination(None, None, ("its encoders",), checked=False)
    seen = Contamination(0.5, None, ("the model",))

    def label(*found: Contamination) -> str:
        return _together([SimpleNamespace(contamination=one) for one in found]).label  # type: ignore[misc]

    assert label(clean, clean) == ""
    assert label(clean, unknown).startswith("not checked for contamination: nothing says what its encoders saw")
    assert label(seen, unknown) == "contaminated: the model had seen 50 % of the images"
