"""Tables of a benchmark: what their figures are, and what the intervals are over."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from mst_clipiqa.benchmark.over_prompts import interval_over_prompts
from mst_clipiqa.benchmark.results import markdown, summarise
from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, BenchmarkRun, OtherSet, run_all
from mst_clipiqa.evaluate import pair_accuracy
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.recipe import FAST
from tests.benchmark.tables import cells_of
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, learning_rates=(3e-3,), epochs=5, batch_size=16)
ENCODERS = {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    rated = rated_set(tmp_path_factory.mktemp("rated"), prompts=20)
    plan = BenchmarkPlan(rated, ("template",), ("quality",), 2, "prompt", QUICK)
    return Bench(plan, encode_records(ImageEncoder(FakePair()), rated.records, prompts=False), TrainedOn())


@pytest.fixture(scope="module")
def runs(bench: Bench) -> list[BenchmarkRun]:
    return run_all(bench)


def test_the_standard_deviation_is_that_of_the_splits(bench: Bench, runs: list[BenchmarkRun]) -> None:
    values = (0.7, 0.9)
    two = [replace(run, srcc=values[run.split]) for run in runs]
    found = summarise(bench.plan, two, ENCODERS, None)
    assert found["summary"][0]["srcc"]["sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert cells_of(markdown(found))["SRCC: standard deviation of splits"] == ["0.1414"]


def test_the_table_says_which_pairs_and_which_baseline(bench: Bench, runs: list[BenchmarkRun]) -> None:
    found = summarise(bench.plan, runs, ENCODERS, None)
    cells, line = cells_of(markdown(found)), found["summary"][0]
    right = cells["better of two images of one prompt, rated over 10 % of the scale apart"]
    assert right == [f"{line['pair_accuracy']['mean']:.3f}"]
    assert cells["SRCC of the mean of generator and setting alone"] == [f"{line['baseline_srcc']['mean']:.3f}"]
    run, (low, high) = runs[0], bench.plan.rated.ranges["quality"]
    counted = pair_accuracy(run.predictions, run.mos, run.groups, 0.1 * (high - low))
    assert run.pair_accuracy == counted.accuracy
    assert counted.pairs < pair_accuracy(run.predictions, run.mos, run.groups).pairs


def test_intervals_of_another_set_are_over_its_prompts(bench: Bench, tmp_path: Path) -> None:
    other = rated_set(tmp_path, prompts=6)
    records = tuple(replace(r, group=f"other/{r.group}") for r in other.records)
    table = encode_records(ImageEncoder(FakePair()), records, prompts=False)
    runs, plan = run_all(replace(bench, other=OtherSet("other", table, other.ranges))), bench.plan
    found = summarise(plan, runs, ENCODERS, "other")
    (line,) = found["summary"]
    for measure in ("srcc", "plcc", "rmse"):
        want = interval_over_prompts([run.predictions for run in runs], runs[0].mos, runs[0].groups, measure)
        ends = [line[measure][key] for key in ("mean", "low", "high")]
        assert ends == pytest.approx([want.value, want.low, want.high])
    assert math.isnan(line["krcc"]["low"])
    assert found["interval_over"] == "prompts"
    assert "a 95 % interval over prompts, as all splits share the test images" in markdown(found)
    assert f"{line['srcc']['low']:.4f} to {line['srcc']['high']:.4f}" in markdown(found)
    alone = [replace(run, groups=tuple(f"other/image {name}" for name in run.names)) for run in runs]
    assert "a 95 % interval over images, as" in markdown(summarise(plan, alone, ENCODERS, "other"))
    flat = [replace(run, srcc=math.nan, predictions=(2.0,) * len(run.names)) for run in runs[:1]]
    mixed = summarise(plan, [*flat, runs[1]], ENCODERS, "other")["summary"][0]["srcc"]
    assert mixed["low"] < mixed["mean"] < mixed["high"]  # of the split that has an SRCC
    assert "(no interval)" in markdown(summarise(plan, flat, ENCODERS, "other"))
