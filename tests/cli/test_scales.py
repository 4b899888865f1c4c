"""The scale of a rated set without --range: that of the model it is compared with, if it holds all ratings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mst_clipiqa.data import LikelyScales, load_rated_set
from tests.commands import run
from tests.fakes import rated_set
from tests.rated_files import write

QUICK = ["--set", "epochs=1", "--quiet", "--precision", "fp32"]
SAID = "is guessed from the scores and the model; give the right one with --range if it differs.\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a set rated from 1 to 5, whose ratings a scale from 0 to 5 would hold too."""
    root = tmp_path_factory.mktemp("data")
    rows = [f"{r.name},{r.prompt},{1 + 0.8 * r.targets['quality']}" for r in rated_set(root, prompts=8, each=3).records]
    write(root / "labels.csv", "file,prompt,quality", *rows)
    return root


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "toy"
    asked = ["--target", "quality", "--head", "template", "--validation-share", 0.3]
    run("train", "--data", "csv", "--root", data, "--range", 1, 5, *asked, "-o", out, *QUICK)
    return out


def test_evaluate_repeats_the_rmse_of_the_card_without_the_range(model: Path, data: Path, tmp_path: Path) -> None:
    want = json.loads((model / "training.json").read_text())["quality"]["test"]["agreement"]["rmse"]
    asked = ["evaluate", "--model", model, "--precision", "fp32", "--json"]
    found = run(*asked, "--data", "csv", "--root", data)
    assert json.loads(found.stdout)["targets"][0]["agreement"]["rmse"] == pytest.approx(want, abs=1e-6)
    assert found.stderr.startswith(f"Note: the scale 1..5 {SAID}")
    scores = tmp_path / "scores.csv"
    run("score", data, "--model", model, "-o", scores, "--precision", "fp32", "--quiet")
    given, guessed = (run(*asked, scores, data / "labels.csv", *how) for how in (["--range", 1, 5], []))
    assert guessed.stderr.startswith(f"Note: the scale 1..5 {SAID}")
    assert guessed.stdout == given.stdout


def test_adapt_takes_the_scale_of_the_model(model: Path, data: Path, tmp_path: Path) -> None:
    asked = ["--images", data, "--check", data / "labels.csv", "--steps", 0, "--precision", "fp32", "--quiet"]
    assert f"the scale 1..5 {SAID}" in run("adapt", model, *asked, "-o", tmp_path / "out", code=3).stderr


def test_benchmark_takes_the_scale_of_the_training_set_or_the_one_given(data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    base = ["benchmark", "--data", "csv", "--root", data, "--range", 1, 5, "--splits", 1, "--processes", 1, *QUICK]
    base += ["--heads", "template", "--cache", tmp_path / "cache", "--test-data", "csv", "--test-root", other]
    said = run(*base, "-o", tmp_path / "a").stderr
    assert f"the scale 1..5 {SAID.replace('--range', '--test-range')}" in said
    assert "scale" not in run(*base, "-o", tmp_path / "b", "--test-range", 0, 10).stderr
    refused = run(*base, "-o", tmp_path / "c", "--test-range", 5, 1, code=2).stderr
    assert "as the rating scale (--test-range), the lower one first, got 5 and 1" in refused
    guessed, given = (json.loads((tmp_path / name / "results.json").read_text())["runs"][0] for name in "ab")
    assert guessed["srcc"] == pytest.approx(given["srcc"])
    as_given = [(value - 1) * 10 / 4 for value in guessed["predictions"]]
    assert given["predictions"] == pytest.approx(as_given, abs=1e-4)


@pytest.mark.parametrize(
    ("scores", "own", "want"),
    [
        (("1.2", "4.9"), (1, 5), (1, 5)),
        (("0.8", "4.9"), (1, 5), (0, 5)),  # not all ratings are on it
        (("0.2", "0.9"), (0, 5), (0, 1)),  # a narrower scale holds all
        (("1.2", "4.9"), (0, 100), (0, 5)),
        (("-1.5", "2.5"), (-4, 4), (-4, 4)),
        (("20", "80"), (1, 100), (1, 100)),
    ],
)
def test_the_scale_of_a_model_counts_as_a_common_one(
    tmp_path: Path, scores: tuple[str, str], own: tuple[int, int], want: tuple[int, int]
) -> None:
    write(tmp_path / "mine.csv", "name,mos", f"a.png,{scores[0]}", f"b.png,{scores[1]}")
    likely = LikelyScales({"quality": own, "overall": (3, 4)})
    found = load_rated_set("csv", tmp_path, images=False, likely=likely)
    assert found.ranges == {"quality": want}
