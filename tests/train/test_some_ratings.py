"""Images that have only some of the ratings: each counts for the targets that it has, and all targets share a split."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mst_clipiqa.benchmark.assess import Assessed, assess, assess_table, choose
from mst_clipiqa.benchmark.results import markdown, summarise
from mst_clipiqa.benchmark.runs import Bench, BenchmarkPlan, OtherSet, run_all
from mst_clipiqa.cli import group
from mst_clipiqa.data import RatedSet, Record, make_split, rated_for
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import generator_mean, srcc
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model_folder import HASH_DIGITS, TrainedOn, load_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.build import build
from mst_clipiqa.train.features import encode_records
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, epochs=2, batch_size=8)
TARGETS = ("quality", "correspondence")


def lacking(record: Record, number: int) -> Record:
    """Return a record without quality for every fourth number, without correspondence for every third of the others."""
    gone = "quality" if number % 4 == 0 else "correspondence" if number % 3 == 0 else ""
    return replace(record, targets={name: value for name, value in record.targets.items() if name != gone})


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    made = rated_set(tmp_path_factory.mktemp("rated"), prompts=45, each=2)
    return replace(made, records=tuple(lacking(r, i) for i, r in enumerate(made.records)))


def job(rated: RatedSet, out: Path, target: str, test_share: float = 0.2) -> TrainingJob:
    split = make_split(rated.records, seed=2, validation_share=0.25, test_share=test_share)
    return TrainingJob(rated, split, target, "template", QUICK, out)


def without(rated: RatedSet, target: str, keep: int = 0) -> RatedSet:
    """Return a set in which only the first images keep their rating of a target."""
    records = (
        r if i < keep else replace(r, targets={t: v for t, v in r.targets.items() if t != target})
        for i, r in enumerate(rated.records)
    )
    return replace(rated, records=tuple(records))


@pytest.fixture(scope="module")
def folder(rated: RatedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "m"
    for target in TARGETS:
        build(job(rated, out, target), ImageEncoder(FakePair()), no_bar)
    return out


def test_both_targets_join_one_folder_and_say_how_many_images_each_had(rated: RatedSet, folder: Path) -> None:
    split = job(rated, folder, "quality").split
    entries = json.loads((folder / "training.json").read_text())
    assert json.loads((folder / "split.json").read_text())["train"] == [r.name for r in split.train]
    card = (folder / "README.md").read_text()
    for target in TARGETS:
        parts = {name: (part, rated_for(part, target)) for name, part in vars(split).items() if name in split.names()}
        assert all(0 < len(some) < len(part) for part, some in parts.values())
        entry = entries[target]
        assert entry["images"] == {name: len(part) for name, (part, _) in parts.items()}
        assert entry["rated"] == {name: len(some) for name, (_, some) in parts.items()}
        assert entry["test"]["agreement"]["n"] == len(parts["test"][1])
        counts = " / ".join(f"{len(some)} of {len(part)}" for part, some in parts.values())
        assert f"Images with a rating of {target}, the only ones used: {counts} (train / validation / test)." in card
        learnt, test = [*parts["train"][1], *parts["validation"][1]], parts["test"][1]
        baseline = generator_mean(
            [r.targets[target] for r in learnt], [r.setting for r in learnt], [r.setting for r in test]
        )
        assert entry["test"]["baseline_srcc"] == pytest.approx(srcc(baseline, [r.targets[target] for r in test]))


def test_a_set_with_all_ratings_has_no_such_line(tmp_path: Path) -> None:
    made = rated_set(tmp_path / "rated", prompts=12, each=2)
    build(job(made, tmp_path / "m", "quality"), ImageEncoder(FakePair()), no_bar)
    assert "the only ones used" not in (tmp_path / "m" / "README.md").read_text()


def test_only_images_with_the_rating_count_as_trained_on(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "m", "quality")
    build(what, ImageEncoder(FakePair()), no_bar)
    used = rated_for([*what.split.train, *what.split.validation], "quality")
    assert load_model(what.out).trained_on.images == {r.sha256[:HASH_DIGITS] for r in used}
    assert len(used) < len(what.split.train) + len(what.split.validation)


def test_images_without_the_rating_change_no_weight(rated: RatedSet, folder: Path, tmp_path: Path) -> None:
    split = job(rated, folder, "quality").split.rated("quality")
    alone = TrainingJob(rated, split, "quality", "template", QUICK, tmp_path / "m")
    build(alone, ImageEncoder(FakePair()), no_bar)
    ours, theirs = (load_model(one).parts["quality"].state_dict() for one in (folder, tmp_path / "m"))
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_too_few_ratings_are_refused_before_anything_is_encoded(rated: RatedSet, tmp_path: Path) -> None:
    few = without(rated, "quality", keep=2)
    message = r"at least 2 images with a rating of quality in each .* used, got \d \(train\), 0 \(validation\): rate"
    with pytest.raises(DataError, match=message):
        build(job(few, tmp_path / "m", "quality"), ImageEncoder(FakePair()), no_bar)
    assert not (tmp_path / "m").exists()


def test_a_test_part_without_the_rating_is_said(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "m", "quality")
    tests = {r.name for r in what.split.test}
    records = tuple(replace(r, targets={"correspondence": 1.0}) if r.name in tests else r for r in rated.records)
    result = build(job(replace(rated, records=records), what.out, "quality"), ImageEncoder(FakePair()), no_bar)
    assert result is not None and result.evaluation is None
    assert "No image of the test part was scored." in (what.out / "README.md").read_text()


def counts(found: list[Assessed]) -> list[tuple[str, int, int, int]]:
    return [(a.target, a.evaluation.agreement.n if a.evaluation else 0, a.unscored, a.unrated) for a in found]


def test_evaluate_counts_the_images_of_each_target(rated: RatedSet, folder: Path) -> None:
    scorer, part = Scorer(load_model(folder), ImageEncoder(FakePair())), choose(rated, "test", folder)
    n = {target: len(rated_for(part.records, target)) for target in TARGETS}
    found = assess(scorer, rated, part, lambda _: None)
    assert counts(found) == [(target, n[target], 0, len(part.records) - n[target]) for target in TARGETS]


def test_a_table_is_compared_with_the_ratings_that_there_are(rated: RatedSet) -> None:
    rows = [{"file": r.name, "quality": 1.0 + i, "correspondence": 2.0 + i} for i, r in enumerate(rated.records[:20])]
    n = {target: len(rated_for(rated.records, target)) for target in TARGETS}
    own = {target: len(rated_for(rated.records[:20], target)) for target in TARGETS}
    assert counts(assess_table(rows, rated)) == [
        (target, own[target], n[target] - own[target], len(rated) - n[target]) for target in TARGETS
    ]


def test_a_benchmark_counts_the_images_of_each_target(rated: RatedSet) -> None:
    table = encode_records(ImageEncoder(FakePair()), rated.records, prompts=False)
    plan = BenchmarkPlan(rated, ("template",), TARGETS, 2, "prompt", QUICK)
    runs = run_all(Bench(plan, table, TrainedOn()))
    for run in runs:
        test = rated_for(plan.split(run.split).test, run.target)
        assert (run.images, run.names) == (len(test), tuple(r.name for r in test))
    found = summarise(plan, runs, {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}, None)
    n = {target: len(rated_for(rated.records, target)) for target in TARGETS}
    assert found["rated"] == n
    first = {run.target: run.images for run in runs if run.split == 0}
    assert found["test_share"] == {target: first[target] / n[target] for target in TARGETS}
    said = f"Rated: {n['quality']} images (quality) and {n['correspondence']} images (correspondence);"
    assert said in markdown(found)

    other = Bench(plan, table, TrainedOn(), OtherSet("other", table, rated.ranges))
    runs = run_all(other)
    assert {(run.target, run.images) for run in runs} == set(n.items())
    text = markdown(summarise(plan, runs, {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}, "other"))
    assert f"Tested on {n['quality']} images (quality) and {n['correspondence']} images (correspondence) of the" in text


def test_a_benchmark_refuses_a_target_with_too_few_ratings(rated: RatedSet, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "prompt", "quality", "correspondence"])
        for i, r in enumerate(rated.records):
            lines.writerow([r.file, r.prompt, 1 + i % 3, 2 if i < 2 else ""])
    flags = ["--root", str(tmp_path / "labels.csv"), "--splits", "2", "-o", str(tmp_path / "out"), "--quiet"]
    few = CliRunner().invoke(group, ["benchmark", "--data", "csv", *flags])
    assert few.exit_code == 2
    assert "Expected at least 2 images with a rating of correspondence in each part" in few.output
    assert re.search(r"got \d \(train\), \d \(validation\), \d \(test\): rate", few.output)
    assert not (tmp_path / "out").exists()


def test_a_benchmark_refuses_another_set_with_too_few_ratings(
    rated: RatedSet, small_encoders: Path, tmp_path: Path
) -> None:
    for name, count in (("own", len(rated)), ("other", 1)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["file", "prompt", "quality", "correspondence"])
            for i, r in enumerate(rated.records):
                lines.writerow([r.file, r.prompt, 1 + i % 3, 2 if i < count else ""])
    flags = ["--root", str(tmp_path / "own.csv"), "--test-data", "csv", "--test-root", str(tmp_path / "other.csv")]
    flags += ["--encoders", str(small_encoders), "-o", str(tmp_path / "out"), "--quiet"]
    result = CliRunner().invoke(group, ["benchmark", "--data", "csv", *flags])
    assert result.exit_code == 2
    assert "Expected at least 2 images with a rating of correspondence in csv, got 1: rate" in result.output


def test_images_of_another_set_are_counted_by_the_head_that_tests_most(rated: RatedSet) -> None:
    table = encode_records(ImageEncoder(FakePair()), rated.records, prompts=False)
    plan = BenchmarkPlan(rated, ("template",), ("quality",), 2, "prompt", QUICK)
    runs = run_all(Bench(plan, table, TrainedOn(), OtherSet("other", table, rated.ranges)))
    fewer = [replace(run, head="prompt", images=run.images - 3) for run in runs]
    found = summarise(plan, [*runs, *fewer], {"source": "fake", "sha256": "f" * 64, "precision": "fp32"}, "other")
    assert f"Tested on {runs[0].images} images of the other set" in markdown(found)
