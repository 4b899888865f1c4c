"""A benchmark that is killed: no finished run is lost, none of another benchmark is taken for its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mst_clipiqa.benchmark import runs
from mst_clipiqa.benchmark.resuming import FINISHED, run_resumed
from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, BenchmarkRun, OtherSet
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import TrainedOn
from mst_clipiqa.train.contamination import trained_on
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, learning_rates=(3e-3,), epochs=2, batch_size=16)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    rated = rated_set(tmp_path_factory.mktemp("rated"), prompts=20)
    plan = BenchmarkPlan(rated, ("template", "prompt"), ("quality",), 2, "prompt", QUICK)
    return Bench(plan, encode_records(ImageEncoder(FakePair()), rated.records, prompts=True), trained_on(rated.records))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Return a list that gets each run when it starts."""
    found: list[tuple[str, str, int]] = []
    real = runs.run_one

    def noted(bench: Bench, *job: Any) -> BenchmarkRun:
        found.append(job)
        return real(bench, *job)

    monkeypatch.setattr(runs, "run_one", noted)
    return found


def kill_at(bench: Bench, path: Path, count: int) -> None:
    """Run a benchmark that is killed when this many runs are kept."""
    kept = 0

    def advance(more: int) -> None:
        nonlocal kept
        kept += more
        if kept == count:
            raise Killed

    with pytest.raises(Killed):
        run_resumed(bench, path, advance=advance)


def test_a_killed_benchmark_resumes_and_ends_with_the_same_runs(
    bench: Bench, tmp_path: Path, started: list[tuple[str, str, int]]
) -> None:
    whole = runs.run_all(bench)
    path, jobs = tmp_path / FINISHED, [run.key for run in whole]
    started.clear()
    kill_at(bench, path, 1)
    kill_at(bench, path, 3)
    assert started == jobs[:3]
    counts: list[int] = []
    found = run_resumed(bench, path, advance=counts.append)
    assert started == jobs
    assert counts == [3, 1]
    assert [repr(run) for run in found] == [repr(run) for run in whole]  # coverage may be NaN
    assert [path.name for path in tmp_path.iterdir()] == [FINISHED]
    assert [repr(run) for run in run_resumed(bench, path)] == [repr(run) for run in whole]
    assert started == jobs


def with_plan(**changes: Any) -> Callable[[Bench], Bench]:
    return lambda bench: replace(bench, plan=replace(bench.plan, **changes))


def with_records(**changes: Any) -> Callable[[Bench], Bench]:
    def changed(bench: Bench) -> Bench:
        records = (replace(bench.table.records[0], **changes), *bench.table.records[1:])
        return replace(bench, table=replace(bench.table, records=records))

    return changed


def with_other(bench: Bench) -> Bench:
    return replace(bench, other=OtherSet("other", bench.table, bench.plan.rated.ranges))


def with_other_texts(bench: Bench) -> Bench:
    assert bench.table.prompts is not None
    prompts = replace(bench.table.prompts, tokens=bench.table.prompts.tokens + 1)
    return replace(bench, table=replace(bench.table, prompts=prompts))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (with_plan(recipe=replace(QUICK, epochs=3)), "recipe"),
        (with_plan(heads=("template",)), "heads"),
        (with_plan(targets=("quality", "correspondence")), "targets"),
        (with_plan(splits=3), "splits"),
        (with_plan(split_by="image"), "splits"),
        (with_records(targets={"quality": 1.0}), "data"),
        (with_records(setting="another"), "data"),
        (lambda bench: replace(bench, table=replace(bench.table, f_f=bench.table.f_f + 1)), "features"),
        (with_other_texts, "features"),
        (with_other, "test_data, test_features"),
        (lambda bench: replace(bench, seen=TrainedOn()), "seen"),
    ],
)
def test_runs_of_another_benchmark_are_not_taken(
    bench: Bench, tmp_path: Path, change: Callable[[Bench], Bench], what: str
) -> None:
    path = tmp_path / FINISHED
    kill_at(bench, path, 1)
    kept = path.read_bytes()
    with pytest.raises(UsageError) as found:
        run_resumed(change(bench), path)
    assert str(found.value) == (
        f"Expected a checkpoint of this benchmark in {path}, got that of another (changed: {what}): "
        "choose another folder, or delete the file to start over."
    )
    assert path.read_bytes() == kept


def test_runs_of_another_version_are_not_taken(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(bench, tmp_path / FINISHED, 1)
    monkeypatch.setattr("mst_clipiqa.benchmark.resuming.__version__", "0.0.0")
    with pytest.raises(UsageError, match=r"\(changed: version\)"):
        run_resumed(bench, tmp_path / FINISHED)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"identity": {}, "runs": [{"contamination": {"by": []}}]}'])
def test_a_damaged_checkpoint_is_named(bench: Bench, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FINISHED).write_bytes(damage)
    message = r"^Expected a checkpoint of a benchmark in .*\.json, got a damaged file \(\w+\): delete it to start over"
    with pytest.raises(UsageError, match=message):
        run_resumed(bench, tmp_path / FINISHED)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_workers_end_with_a_killed_benchmark() -> None:
    code = (
        "import multiprocessing, time\n"
        "from mst_clipiqa.benchmark.runs import _start_worker\n"
        "def work(): _start_worker(None); print('ready', flush=True); time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('fork').Process(target=work)\n"
        "    worker.start(); worker.join()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        assert parent.communicate(timeout=30)[0] == b""  # the output ends when the worker has closed it, too
        assert parent.returncode == -signal.SIGKILL
