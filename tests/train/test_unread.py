"""Images whose prompt the text encoder does not read get no score, so they neither train nor measure a prompt head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mst_clipiqa.benchmark.assess import assess, choose
from mst_clipiqa.benchmark.results import markdown, summarise
from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, run_all
from mst_clipiqa.cli.commands.train import _summary
from mst_clipiqa.data import RatedSet, make_split
from mst_clipiqa.errors import DataError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model.mst_clipiqa import Head
from mst_clipiqa.model_folder import TrainedOn, load_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.build import build
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.learn import learn
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    """Return a set of which every third prompt is not read."""
    made = rated_set(tmp_path_factory.mktemp("rated"), prompts=45, each=2)
    records = (replace(r, prompt=f"zzz {r.group}") if int(r.group[4:]) % 3 == 0 else r for r in made.records)
    return replace(made, records=tuple(records))


def job(rated: RatedSet, out: Path, head: Head) -> TrainingJob:
    split = make_split(rated.records, seed=2, validation_share=0.25)
    return TrainingJob(rated, split, "correspondence", head, QUICK, out)


def test_the_card_and_evaluate_measure_the_same_images(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "m", "prompt")
    result = build(what, ImageEncoder(FakePair()), no_bar)
    assert result is not None and result.evaluation is not None
    scorer = Scorer(load_model(what.out), ImageEncoder(FakePair()))
    (again,) = assess(scorer, rated, choose(rated, "test", what.out), lambda _: None)
    unread = {
        part: sum(r.prompt is not None and "zzz" in r.prompt for r in getattr(what.split, part))
        for part in ("train", "validation", "test")
    }
    assert all(unread.values())
    assert again.unscored == result.unread == unread["test"]
    assert again.evaluation is not None
    assert result.evaluation.agreement.n == again.evaluation.agreement.n == len(what.split.test) - unread["test"]
    assert result.evaluation.agreement.rmse == pytest.approx(again.evaluation.agreement.rmse, abs=1e-4)
    entry = json.loads((what.out / "training.json").read_text())["correspondence"]
    assert entry["unread"] == sum(unread.values())
    said = f"Left out: {sum(unread.values())} images whose prompt the text encoder does not read."
    assert said in (what.out / "README.md").read_text()
    assert f"Left out: {unread['test']} test images whose prompt the text encoder does not read." in _summary(
        result, what
    )


def test_a_template_head_leaves_none_out(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "m", "template")
    result = build(what, ImageEncoder(FakePair()), no_bar)
    assert result is not None and result.evaluation is not None
    assert (result.unread, result.evaluation.agreement.n) == (0, len(what.split.test))
    assert "left out" not in (what.out / "README.md").read_text()


def test_what_they_hold_changes_no_weight(rated: RatedSet, tmp_path: Path) -> None:
    other = tuple(
        replace(r, targets={**r.targets, "correspondence": 5.0}) if r.prompt and "zzz" in r.prompt else r
        for r in rated.records
    )
    for name, one in (("a", rated), ("b", replace(rated, records=other))):
        build(job(one, tmp_path / name, "prompt"), ImageEncoder(FakePair()), no_bar)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_too_few_that_are_read_is_one_sentence(rated: RatedSet, tmp_path: Path) -> None:
    all_unread = replace(rated, records=tuple(replace(r, prompt=f"zzz {r.group}") for r in rated.records))
    what = job(all_unread, tmp_path, "prompt")
    message = r"^Expected at least 2 images .* with prompts that the text encoder reads, got 0 and 0: choose encoders"
    with pytest.raises(DataError, match=message):
        learn(what.split.for_training(), what, ImageEncoder(FakePair()), no_bar)
    silent = tuple(replace(r, prompt=f"zzz {r.group}") for r in what.split.validation)
    what = replace(job(rated, tmp_path, "prompt"), split=replace(what.split, train=rated.records, validation=silent))
    with pytest.raises(DataError, match=r"reads, got \d\d and 0: choose"):
        learn(what.split.for_training(), what, ImageEncoder(FakePair()), no_bar)


def test_a_test_part_that_is_not_read_is_said(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "m", "prompt")
    silent = tuple(replace(r, prompt=f"zzz {r.group}") for r in what.split.test)
    what = replace(what, split=replace(what.split, test=silent))
    result = build(what, ImageEncoder(FakePair()), no_bar)
    assert result is not None
    assert (result.evaluation, result.unread) == (None, len(silent))
    assert "No image of the test part was scored." in (what.out / "README.md").read_text()
    assert "uncalibrated" not in " ".join(_summary(result, what))


def test_a_benchmark_leaves_them_out_for_the_prompt_head_alone_and_says_so(rated: RatedSet) -> None:
    plan = BenchmarkPlan(rated, ("template", "prompt"), ("correspondence",), 1, "prompt", QUICK)
    bench = Bench(plan, encode_records(ImageEncoder(FakePair()), rated.records, prompts=True), TrainedOn())
    template, prompt = run_all(bench)
    unread = {r.name for r in rated.records if r.prompt and "zzz" in r.prompt}
    assert set(template.names) & unread
    assert set(prompt.names) == set(template.names) - unread
    encoders = {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}
    text = markdown(summarise(plan, [template, prompt], encoders, None, len(unread)))
    assert f"The prompt head leaves out {len(unread)} images whose prompt the text encoder does not read." in text
    assert "leaves out" not in markdown(summarise(plan, [template, prompt], encoders, None))
