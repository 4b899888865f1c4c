"""``--granularity`` by the command line, with the calibration that ships with mini, and what reads its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mst_clipiqa.cli.commands.report import _scorer_of as scorer_of
from mst_clipiqa.distribute.worker import Work, load_scorer
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.scoring.score_rows import COLUMNS
from tests.commands import csv_rows, run
from tests.fakes import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images, and tables of them at three granularities."""
    folder = tmp_path_factory.mktemp("granular")
    (folder / "in").mkdir()
    for i in range(3):
        draw(i, 0.0, size=96).save(folder / "in" / f"{i}.png")
    (folder / "in" / "bad.png").write_bytes(b"no image")
    for name in ("fine", "coarse", "auto"):
        how = [] if name == "fine" else ["--granularity", name]
        run("score", folder / "in", "--prompt", "a red ball", "-o", folder / f"{name}.csv", *how, code=1)
    return folder


def test_rows_have_a_granularity_only_where_one_was_asked_for(folder: Path) -> None:
    fine, coarse, auto = (csv_rows(folder / f"{name}.csv") for name in ("fine", "coarse", "auto"))
    assert list(fine[0]) == list(COLUMNS)
    assert list(coarse[0]) == [*COLUMNS, "granularity"]
    assert [row["granularity"] for row in coarse] == ["coarse", "coarse", "coarse", ""]
    assert {row["model"] for row in coarse} == {"mini (coarse)"}
    assert {row["model"] for row in auto} == {"mini (auto:0.06)"}
    for row, want in zip(auto, fine, strict=True):
        if row["granularity"] == "fine":
            assert {name: row[name] for name in COLUMNS if name != "model"} == {
                name: want[name] for name in COLUMNS if name != "model"
            }


def test_unfamiliar_images_are_fine_with_auto(folder: Path) -> None:
    assert [row["granularity"] for row in csv_rows(folder / "auto.csv")] == ["fine", "fine", "fine", ""]
    assert all("unlike those of the calibration" in row["reason"] for row in csv_rows(folder / "coarse.csv")[:3])


def test_a_run_says_what_it_did(folder: Path, tmp_path: Path) -> None:
    result = run("score", folder / "in/0.png", "-o", tmp_path / "one.csv", "--granularity", "native:1")
    assert "Granularity: native:1 for 1 of 1 images. In calibration, 95 % of scores differed from" in result.stderr
    assert "Model mini (native:1)" in result.output
    printed = run("score", folder / "in/0.png", "--json", "--granularity", "coarse", "--granularity-check", 1)
    assert json.loads(printed.stdout)["granularity"] == "fine"
    assert "Checked 1 image, which got its fine scores: the largest difference was" in printed.stderr


def test_another_granularity_does_not_resume_a_run(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    asked = ("score", folder / "in", "-o", table, "--granularity")
    run(*asked, "coarse", "--on-error", "fail", code=2)  # leaves unfinished rows
    assert Path(f"{table}.part").exists()
    refused = run(*asked, "auto", "--resume", code=2)
    assert "Expected model 'mini (coarse)' as in" in refused.stderr
    run(*asked, "coarse", "--resume", code=1)
    assert [row["granularity"] for row in csv_rows(table)] == ["coarse", "coarse", "coarse", ""]


def test_tables_of_two_granularities_are_not_compared_unawares(folder: Path) -> None:
    result = run("gate", folder / "coarse.csv", "--not-worse-than", folder / "fine.csv", code=2)
    assert "Expected tables scored by one model, got 'mini" in result.stderr
    assert "mini (coarse)" in run("drift", folder / "fine.csv", folder / "coarse.csv", code=1).output


def test_tables_are_still_read_as_those_of_the_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_name,mos_quality\n0.png,1\n1.png,2\n2.png,4\n")
    found = run("evaluate", folder / "coarse.csv", tmp_path / "labels.csv", "--range", 0, 5, "--json")
    assert json.loads(found.stdout)["targets"][0]["contaminated"] == ""  # it was checked
    run("report", folder / "coarse.csv", "-o", tmp_path / "page.html", "--explain", 0, code=1)
    scorer = scorer_of([{"model": "mini (coarse)"}], {"model": "mini"})  # whose explanations fit
    assert scorer is not None
    assert scorer.predictor.name == "mini"


def test_evaluate_measures_the_agreement_of_a_granularity(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.png").write_bytes((folder / "in" / f"{i}.png").read_bytes())
    (tmp_path / "labels.csv").write_text(
        "file,prompt,mos_quality\n"
        + "".join(f"images/{i}.png,a red ball {i},{rating}\n" for i, rating in enumerate((1, 4, 2)))
    )
    data = ["--data", "csv", "--root", tmp_path, "--range", 0, 5, "--json"]
    base = ["evaluate", "--model", "mini", *data, "--split", "all"]
    coarse = json.loads(run(*base, "--granularity", "coarse").stdout)
    assert "Granularity: coarse for 3 of 3 images." in coarse["protocol"]
    fine = json.loads(run(*base).stdout)
    assert "Granularity" not in fine["protocol"]
    table = json.loads(
        run("evaluate", folder / "coarse.csv", tmp_path / "labels.csv", "--range", 0, 5, "--json").stdout
    )
    rmse, want, other = (found["targets"][0]["agreement"]["rmse"] for found in (coarse, table, fine))
    assert rmse == pytest.approx(want, abs=1e-3)  # tables have three digits
    assert other != rmse
    tables = ["evaluate", folder / "coarse.csv", tmp_path / "labels.csv", "--granularity", "coarse"]
    assert "Expected --granularity only where images are scored" in run(*tables, code=2).stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--granularity", "corse"], "Expected the granularity auto, auto:TOL, coarse, fine, native:K, got 'corse'"),
        (
            ["--granularity", "auto:0.001"],
            "Expected a tolerance at which calibration kept at least 20 images below fine",
        ),
        (
            ["--granularity", "coarse", "--reference", "x.png"],
            "Expected granularity fine beside a reference image, got coarse: drop one.",
        ),
        (
            ["--granularity", "auto", "--negative", "blue"],
            "Expected granularity fine beside a negative prompt, got auto:0.06: drop one.",
        ),
        (["--granularity", "auto", "--merge", "3"], "Expected no --merge beside --granularity"),
        (["--granularity-check", "3"], "--granularity-check needs a --granularity below fine"),
    ],
)
def test_wrong_usage_is_one_sentence(folder: Path, flags: list[str], message: str) -> None:
    assert message in run("score", folder / "in/0.png", *flags, code=2).stderr


def test_mini_is_not_calibrated_in_place() -> None:
    result = run("calibrate", "--data", "csv", "--root", ".", "--model", "mini", code=2)
    assert "Expected a model folder of your own, got mini" in result.stderr


def test_a_cluster_scores_at_a_granularity() -> None:
    work = Work("", "mini", ScoreOptions(device="cpu", precision="fp32", granularity="coarse"))
    scorer = load_scorer(work)
    assert scorer.predictor.name == "mini (coarse)"
    assert scorer_sha256(scorer).endswith(scorer.encoder.policy.described)
