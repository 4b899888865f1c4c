"""``train --log``: every epoch in TensorBoard's own reader, and in what Weights & Biases is called with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import pytest

from mst_clipiqa.data import make_split
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.train.build import build
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.experiment_log import check_log, experiment_log
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

RECIPE = replace(FAST, learning_rates=(1e-3, 3e-3), epochs=3, batch_size=16, patience=3)
EPOCHS = [Epoch(rate, n, 2.0 / n, 3.0 / n, n / 10, n / 20) for rate in RECIPE.learning_rates for n in (1, 2, 3)]


def test_tensorboard_reads_every_epoch_of_a_training(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    rated = rated_set(tmp_path / "rated", prompts=12, each=2)
    split = make_split(rated.records, "prompt", test_share=0.0, validation_share=0.4)
    job = TrainingJob(rated, split, "quality", "template", RECIPE, tmp_path / "model", leave_out=False)
    seen: list[Epoch] = []
    with experiment_log(f"tensorboard:{tmp_path / 'runs'}", "toy", RECIPE, tmp_path / "model") as log:

        def both(epoch: Epoch) -> None:
            log(epoch)
            seen.append(epoch)

        build(job, ImageEncoder(FakePair()), no_bar, both)
    found = reader.EventAccumulator(str(tmp_path / "runs" / "toy"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"train/loss", "train/learning_rate", "val/loss", "val/srcc", "val/plcc"}
    for name, field in (
        ("train/loss", "training_loss"),
        ("val/loss", "validation_loss"),
        ("val/srcc", "validation_srcc"),
        ("val/plcc", "validation_plcc"),
    ):
        events = found.Scalars(name)
        assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
        assert [event.value for event in events] == pytest.approx([getattr(one, field) for one in seen], rel=1e-6)
    assert 0 < max(one.validation_plcc for one in seen) <= 1


class Run:
    """A run of Weights & Biases, as far as it is used."""

    def __init__(self, **how: Any) -> None:
        self.how, self.is_finished = how, False
        self.logged: list[tuple[int, dict[str, float]]] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.is_finished = True

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))


def test_wandb_gets_project_name_recipe_and_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, runs = ModuleType("wandb"), []
    module.init = lambda **how: runs.append(Run(**how)) or runs[-1]  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "wandb", module)
    with experiment_log("wandb:aigiqa", "toy", RECIPE, tmp_path / "model") as log:
        for epoch in EPOCHS:
            log(epoch)
    run = runs[0]
    assert (run.how["project"], run.how["name"], run.how["config"]["epochs"]) == ("aigiqa", "toy", 3)
    assert Path(run.how["dir"]) == tmp_path / "model"
    assert [step for step, _ in run.logged] == [1, 2, 3, 4, 5, 6]
    assert run.logged[1][1]["val/srcc"] == 0.2 and run.logged[1][1]["val/plcc"] == 0.1
    assert run.is_finished


def test_wandb_itself_takes_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with experiment_log("wandb:aigiqa", "toy", RECIPE, tmp_path) as log:
        for epoch in EPOCHS:
            log(epoch)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def without_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any import of their packages fail."""
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name in ("wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)


def test_nothing_is_logged_or_imported_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_trackers(monkeypatch)
    with experiment_log(None, "toy", RECIPE, tmp_path) as log:
        log(EPOCHS[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tensorbord:runs", r"got 'tensorbord:runs' \(did you mean 'tensorboard'\?\)"),
        ("wandb:", "Expected --log tensorboard:FOLDER or --log wandb:PROJECT"),
        ("runs", "Expected --log tensorboard:FOLDER or --log wandb:PROJECT"),
        ("wandb:aigiqa", "Expected wandb, which is not installed: pip install wandb"),
        ("tensorboard:runs", r"not installed: pip install \"mst-clipiqa\[tensorboard\]\", or omit --log"),
    ],
)
def test_a_log_that_cannot_be_is_refused_before_the_work(
    where: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_trackers(monkeypatch)
    with pytest.raises(UsageError, match=message):
        check_log(where)
