"""The researcher's commands, by the command line, on a small rated set and the embedded encoders."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from mst_clipiqa.cli.commands._rated import rated_set as loaded_set
from tests.commands import run
from tests.fakes import rated_set

QUICK = ["--set", "epochs=2", "--set", "learning_rates=1e-3", "--quiet", "--precision", "fp32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a rated set as a plain CSV beside its images."""
    root = tmp_path_factory.mktemp("data")
    rated = rated_set(root, prompts=8, each=3)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "prompt", "mos_quality", "mos_align"])
        for r in rated.records:
            writer.writerow([r.name, r.prompt, r.targets["quality"], r.targets["correspondence"]])
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "toy"
    base = ["train", "--data", "csv", "--root", data, "--range", 0, 5, "-o", out, "--cache", cache, *QUICK]
    run(*base, "--target", "quality", "--head", "template", "--validation-share", 0.3)
    run(*base, "--target", "correspondence", "--head", "prompt", "--validation-share", 0.3)
    return out


def test_train_says_where_an_edited_card_went(model: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    out = shutil.copytree(model, tmp_path / "toy")
    again = ["--data", "csv", "--root", data, "--range", 0, 5, "-o", out, "--cache", cache, *QUICK, "--quiet"]
    again += ["--target", "quality", "--head", "template", "--validation-share", 0.3]
    assert "README" not in run("train", *again).stderr
    (out / "README.md").write_text("My own words.")
    said = run("train", *again).stderr
    assert f"Note: README.md was not as train writes it; its text is now in {out / 'README.old.md'}." in said
    assert (out / "README.old.md").read_text() == "My own words."


def test_train_makes_a_folder_of_two_targets_that_scores(model: Path, data: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert list(config["targets"]) == ["quality", "correspondence"]
    card = (model / "README.md").read_text()
    assert "## quality" in card
    assert "'none' means fewer than 9 prompts or 20 images." in card
    assert "## correspondence" in card
    out = tmp_path / "scores.jsonl"
    run("score", data, "--model", model, "--prompt", "an image of thing1", "-o", out, "--quiet", "--intervals")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 24
    assert all({"quality_low", "quality_high"} <= row.keys() for row in rows)  # empty: too few images to calibrate
    assert {row["model"] for row in rows} == {"toy"}


def test_train_says_what_the_set_is_too_small_for(data: Path, cache: Path, tmp_path: Path) -> None:
    base = ["train", "--data", "csv", "--root", data, "--range", 0, 5, "-o", tmp_path / "m", "--cache", cache]
    result = run(*base, *QUICK[:4], "--target", "quality", "--head", "template", "--validation-share", 0.3)
    assert "The model has no intervals and no familiarity: half of the validation part calibrates them" in result.stdout


def test_evaluate_uses_the_part_that_the_model_never_saw(model: Path, data: Path, cache: Path) -> None:
    base = ["evaluate", "--model", model, "--data", "csv", "--root", data, "--range", 0, 5, "--cache", cache, "--json"]
    base += ["--precision", "fp32"]
    found = json.loads(run(*base).stdout)
    assert found["protocol"].startswith("test part")
    assert "0 % of them have a prompt that was seen in training" in found["protocol"]
    trained = json.loads((model / "training.json").read_text())
    quality, correspondence = found["targets"]
    want = trained["quality"]["test"]["agreement"]["srcc"]
    assert quality["agreement"]["srcc"] == pytest.approx(want, abs=1e-6)
    assert quality["contaminated"] == ""
    assert correspondence["unscored"] == 0
    assert "srcc" in correspondence["agreement"]
    run(*base, "--fail-on-contamination")
    seen = json.loads(run(*base, "--split", "train", "--fail-on-contamination", code=1).stdout)
    assert seen["targets"][0]["contaminated"].startswith("contaminated: the model had seen 100 % of the images")


def test_evaluate_says_what_the_split_of_the_model_leaves_out(
    model: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    grown = shutil.copytree(data, tmp_path / "grown")
    first = next(grown.rglob("*.png"))
    (grown / first.name).with_name("new.png").write_bytes(first.read_bytes())
    with (grown / "labels.csv").open("a") as file:
        file.write("new.png,another prompt,2,3\n")
    base = ["evaluate", "--model", model, "--data", "csv", "--range", 0, 5, "--cache", cache, "--precision", "fp32"]
    assert "leaves out" not in run(*base, "--root", data).stderr
    assert "Note: the split file leaves out 1 image.\n" in run(*base, "--root", grown).stderr


def test_evaluate_says_if_a_set_has_other_images_under_the_same_names(model: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    for file in other.rglob("*.png"):
        with Image.open(file) as image:
            image.transpose(Image.Transpose.ROTATE_180).save(file)
    base = ["evaluate", "--model", model, "--data", "csv", "--range", 0, 5, "--cache", tmp_path, "--precision", "fp32"]
    assert "under these names" not in run(*base, "--root", data).stderr
    assert (
        "Note: the model was trained on other images under these names, to judge by "
        in run(*base, "--root", other).stderr
    )


def test_evaluate_says_how_to_measure_on_another_set(model: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    text = (other / "labels.csv").read_text().replace(".png", "-new.png")
    (other / "labels.csv").write_text(text)
    for file in other.rglob("*.png"):
        file.rename(file.with_name(f"{file.stem}-new.png"))
    base = ["evaluate", "--model", model, "--data", "csv", "--range", 0, 5, "--cache", tmp_path, "--precision", "fp32"]
    said = run(*base, "--root", other, code=2).stderr
    assert said.endswith(
        "Error: Expected the set that the model was trained on, or one with an official split, got another: add "
        "--split all to measure on all 24 images of csv.\n"
    )
    assert "all 24 images of csv" in run(*base, "--root", other, "--split", "all").stdout
    rows = [f"{line},{part}" for line, part in zip(text.splitlines(), ["split", *["train", "test"] * 12], strict=True)]
    (other / "labels.csv").write_text("\n".join(rows) + "\n")
    assert run(*base, "--root", other).stdout.startswith("test part, the official split")


def test_evaluate_compares_two_tables(model: Path, data: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    run("score", data, "--model", model, "-o", scores, "--quiet")
    guessed = run("evaluate", scores, data / "labels.csv")
    said = "the scale 0..5 is guessed from the scores; give the right one with --range if it differs"
    assert f"Note: {said}.\n" in guessed.stderr
    text = run("evaluate", scores, data / "labels.csv", "--range", 0, 5).stdout
    assert "quality, 24 images" in text
    assert "srcc" in text
    assert "Intervals over 8 prompts say little: test on 9 or more.\n" in text
    result = run("evaluate", scores, code=2)
    assert "Error: Expected a table of scores and a file of labels" in result.stderr


def test_pairs_train_a_model_and_are_evaluated(data: Path, cache: Path, tmp_path: Path) -> None:
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_a", "image_b", "prompt", "preferred", "strength"])
        for a, b in pairwise(rows):
            if a["prompt"] == b["prompt"]:
                better = "a" if a["mos_quality"] > b["mos_quality"] else "b"
                writer.writerow([a["image_name"], b["image_name"], a["prompt"], better, 2])
    given = ["--pairs", tmp_path / "pairs.csv", "--root", data, "--cache", cache]
    how = ["--target", "quality", "--head", "template", "--validation-share", 0.4, *QUICK[:4], "--precision", "fp32"]
    result = run("train", *given, *how, "-o", tmp_path / "m")
    assert "ordered right (95 % " in result.stdout
    assert "The model is uncalibrated: without ratings, its scores only order images." in result.stdout
    asked = ["evaluate", *given, "--model", tmp_path / "m", "--precision", "fp32", "--quiet"]
    result = run(*asked)
    assert "test part, random split by prompt, seed 0" in result.stdout
    found = json.loads(run(*asked, "--split", "all", "--json").stdout)
    (one,) = found["targets"]
    assert (one["target"], one["accuracy"]["pairs"], one["unscored"]) == ("quality", 16, 0)
    assert one["contaminated"].startswith("contaminated: the model had seen ")
    scores = tmp_path / "scores.csv"
    run("score", data, "--model", tmp_path / "m", "-o", scores, "--quiet", "--precision", "fp32", "--cache", cache)
    again = json.loads(run("evaluate", scores, "--pairs", tmp_path / "pairs.csv", "--json").stdout)
    assert again["protocol"].endswith("against all 16 pairs of " + str(tmp_path / "pairs.csv"))
    (two,) = again["targets"]
    assert (two["accuracy"], two["contaminated"]) == (one["accuracy"], "not checked")
    named = run("evaluate", scores, "--pairs", tmp_path / "pairs.csv", "--model", tmp_path / "m").stdout
    assert "contaminated: the model had seen" in named
    assert "Intervals over 8 prompts say little: test on 9 or more.\n" in named
    run("evaluate", scores, "--pairs", tmp_path / "pairs.csv", "--fail-on-contamination", code=2)
    result = run("evaluate", scores, scores, "--pairs", tmp_path / "pairs.csv", code=2)
    assert "Error: --pairs needs --model or one table of scores, and no --data" in result.stderr
    result = run("score", data / rows[0]["image_name"], "--model", tmp_path / "m", "--precision", "fp32")
    assert result.stderr.startswith("Note: the model is uncalibrated, so its scores only order images.\n")


def test_evaluate_on_pairs_says_if_a_folder_holds_no_model(data: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in data.rglob("*.png"))[:2]
    (tmp_path / "pairs.csv").write_text(f"image_a,image_b,preferred\n{names[0]},{names[1]},a\n")
    (tmp_path / "empty").mkdir()
    asked = ["evaluate", "--pairs", tmp_path / "pairs.csv", "--root", data, "--model", tmp_path / "empty"]
    assert "Error: Expected a model folder with config.json at " in run(*asked, code=2).stderr


def test_benchmark_writes_its_results_and_compares_them(data: Path, cache: Path, tmp_path: Path) -> None:
    base = ["benchmark", "--data", "csv", "--root", data, "--range", 0, 5, "--splits", 2, "--processes", 1]
    for name, head in (("a", "template"), ("b", "template,prompt")):
        run(*base, "--heads", head, "--cache", cache, "-o", tmp_path / name, *QUICK)
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"results.json", "results.md", "scatter.png"}
    found = json.loads((tmp_path / "b" / "results.json").read_text())
    assert len(found["runs"]) == 8
    text = run("compare-results", tmp_path / "a" / "results.json", tmp_path / "b" / "results.json").stdout
    assert text.count("template head:") == 2
    assert "test images" not in text  # each split has its own
    assert "in one result alone" not in text
    first = tmp_path / "a" / "results.json"
    for again in (first, tmp_path / "b" / ".." / "a" / "results.json"):
        said = run("compare-results", first, again, code=2).stderr
        assert f"Error: Expected two results, got one file as both, '{first}': name the one to compare it with." in said
    copy = Path(shutil.copy(first, tmp_path / "copy.json"))
    same = run("compare-results", first, copy, "--json")
    assert same.stderr == f"Note: '{first}' and '{copy}' hold the same results, so no difference can show.\n"
    assert [line["difference"] for line in json.loads(same.stdout)] == [0, 0]
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps({**found, "runs": [one for one in found["runs"] if one["split"] == 0]}))
    result = run("compare-results", fewer, first)
    text = result.stdout
    assert result.stderr == ""
    assert text.count("1 split compared; 1 more is in one result alone.") == 2
    line = json.loads(run("compare-results", fewer, tmp_path / "a" / "results.json", "--json").stdout)[0]
    assert (line["splits"], line["splits_left_out"]) == (1, 1)
    quality = fewer.with_name("quality.json")  # as --targets quality leaves it
    runs = [one for one in found["runs"] if one["target"] == "quality"]
    quality.write_text(json.dumps({**found, "runs": runs, "test_share": {"quality": found["test_share"]["quality"]}}))
    assert "quality, template head:" in run("compare-results", quality, tmp_path / "a" / "results.json").stdout
    wrong = run("compare-results", data / "labels.csv", tmp_path / "a" / "results.json", code=2)
    assert "got another file, or one of an earlier version: run benchmark again." in wrong.stderr
    gone = run("compare-results", tmp_path / "gone.json", first, code=2)
    assert f"a benchmark at '{tmp_path / 'gone.json'}', got No such file or directory: check the path." in gone.stderr


@pytest.mark.parametrize(("flag", "twice"), [("--heads", "template,template"), ("--targets", "quality,quality")])
def test_a_benchmark_takes_each_head_and_target_once(data: Path, tmp_path: Path, flag: str, twice: str) -> None:
    asked = ["benchmark", "--data", "csv", "--root", data, "--range", 0, 5, "-o", tmp_path / "a", flag, twice]
    said = run(*asked, code=2).stderr
    assert f"Error: Expected each of {flag} once, got {twice}: leave out the second.\n" in said


def test_a_benchmark_on_another_set_has_intervals_over_its_prompts(data: Path, cache: Path, tmp_path: Path) -> None:
    base = ["benchmark", "--data", "csv", "--root", data, "--range", 0, 5, "--splits", 2, "--processes", 1]
    base += ["--targets", "quality", "--heads", "template", "--test-data", "csv", "--test-root", data]
    text = run(*base, "--cache", cache, "-o", tmp_path / "a", *QUICK).stdout
    assert "with a 95 % interval over prompts, as all splits share the test images" in text
    results = tmp_path / "a" / "results.json"
    found = json.loads(results.read_text())
    assert found["interval_over"] == "prompts"
    copy = Path(shutil.copy(results, tmp_path / "copy.json"))
    text = run("compare-results", results, copy).stdout
    assert text.startswith("quality, template head: No measurable difference between A and B: ")
    assert "All splits share the test images, so the intervals are over prompts: " in text
    (line,) = json.loads(run("compare-results", results, copy, "--json").stdout)
    assert (line["interval_over"], line["difference"], line["better"]) == ("prompts", 0, None)


def test_cache_commands(model: Path, cache: Path, tmp_path: Path) -> None:
    info = json.loads(run("cache", "info", "--cache", cache, "--json").stdout)
    assert info["spaces"][0]["images"] == 24
    assert info["spaces"][0]["prompts"] == 8
    assert "0 damaged" in run("cache", "verify", "--cache", cache).stdout
    assert json.loads(run("cache", "info", cache, "--json").stdout) == info
    assert "Expected a cache folder, got none: name it, or set" in run("cache", "info", code=2).stderr
    assert "Expected a cache in" in run("cache", "info", "--cache", tmp_path, code=2).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--data", "csv", "--root", "none", "--target", "quality", "--head", "template", "-o", "m"],
        ["benchmark", "--data", "csv", "--root", "none", "-o", "out"],
        ["adapt", "none", "--images", "none", "-o", "m"],
        ["score", "none", "--model", "none"],
        ["score-cluster", "none", "-o", "out"],
        ["evaluate", "--data", "csv", "--root", "none", "--model", "none"],
        ["serve", "--model", "none"],
    ],
    ids=lambda command: command[0],
)
def test_wrong_counts_are_refused_before_anything_is_loaded(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for flag, value, want in (
        ("--workers", 0, "a whole number of at least 1, got 0"),
        ("--batch-size", -3, "a whole number of at least 1, got -3"),
        ("--batch-size", 10**7, "at most 1,000,000, got 10000000"),
    ):
        result = run(*command, flag, value, code=2)
        assert result.stderr == f"Error: Expected {flag} to be {want}.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "qality"], "did you mean 'quality'"),
        (["--recipe", "fats"], "did you mean 'fast'"),
        (["--set", "epoch=3"], "Expected --set FIELD=VALUE with a field of"),
        (["--set", "epochs=many"], "Expected a value like 24 for epochs, got 'many'"),
        (["--set", "cosine=yes"], "Expected a value like true for cosine, got 'yes'"),
        (["--set", "learning_rates=1e-3,"], "Expected a value like 0.001 for learning_rates, got '1e-3,'"),
        (["--set", "learning_rates=nan"], "Expected learning_rates above 0, up to 1, got 'nan'"),
        (["--set", "epochs=-1"], "Expected epochs to be a whole number from 1 to 100,000, got -1"),
        (["--seed", "-1"], "Expected seed to be a whole number from 0 to 4,294,967,295, got -1"),
        (["--range", "0", "inf"], "Expected two finite numbers as the rating scale (--range), the lower one first"),
        (["--range", "5", "0"], "the lower one first, got 5 and 0: correct them"),
        (["--range", "nan", "5"], "the lower one first, got nan and 5: correct them"),
        (["--test-share", "nan"], "Expected test_share and validation_share from 0 to below 1, got nan and 0.15"),
        (["--batch-size", "99999999999999999999"], "Expected --batch-size to be at most 1,000,000, got 9"),
        (["--color", "srbg"], "Expected the color srgb or as-stored, got 'srbg' (did you mean 'srgb'?)"),
        (["--encoders", "nothing"], "Expected encoders 'mini', 'openai', 'siglip2', 'metaclip2' or 'COARSE,FINE'"),
        (["--split-by", "official"], "Expected an official split"),
    ],
)
def test_wrong_usage_is_one_sentence(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    base = ["train", "--data", "csv", "--root", data, "--head", "template", "-o", tmp_path / "m", "--range", 0, 5]
    target = [] if "--target" in arguments else ["--target", "quality"]
    result = run(*base, *target, *arguments, code=2)
    assert result.stderr.count("\n") == 1 or result.stderr.startswith("Note")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--target", "qality"],
            "(quality, correspondence, authenticity, overall), got 'qality' (did you mean 'quality'?)",
        ),
        (["--target", "my score"], "(quality, correspondence, authenticity, overall), got 'my score'."),
        (["--target", "quality", "--range", 0, 5], "Expected --range with --data only, got it with --pairs alone"),
    ],
)
def test_pairs_train_what_people_rate(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    rows = [f"gen0_{p:03d}_0.png,gen1_{p:03d}_1.png,a,prompt {p}" for p in range(8)]
    (data / "few.csv").write_text("\n".join(["image_a,image_b,preferred,prompt", *rows]))
    try:
        result = run(
            "train", "--pairs", data / "few.csv", "--head", "template", "-o", tmp_path / "m", *arguments, code=2
        )
    finally:
        (data / "few.csv").unlink()  # a set of one csv file
    assert message in result.stderr
    assert not (tmp_path / "m").exists()


def test_convert_by_the_command_line(tmp_path: Path) -> None:
    result = run("convert", tmp_path / "no.pth", "-o", tmp_path / "m", code=2)
    assert "Expected a checkpoint file, found none at" in result.stderr
    (tmp_path / "no.pth").touch()
    result = run("convert", tmp_path / "no.pth", "-o", tmp_path / "m", "--encoders", "mini", code=2)
    assert "Expected a pair of CLIP models, got 'mini'" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--target", "quality", "--head", "template"],
        ["benchmark", "--targets", "quality", "--heads", "template", "--processes", 1],
    ],
)
def test_what_a_split_file_leaves_out_is_said(data: Path, cache: Path, tmp_path: Path, command: list[object]) -> None:
    names = sorted(path.name for path in data.glob("*.png"))
    parts = [f"{name},{('train', 'val', 'test')[i % 3]}" for i, name in enumerate(names[2:])]
    (tmp_path / "split.csv").write_text("\n".join(["file,split", *parts, "gone.png,test"]))
    asked = ["--data", "csv", "--root", data / "labels.csv", "--range", 0, 5, "--split-by", tmp_path / "split.csv"]
    found = run(*command, *asked, "-o", tmp_path / "out", "--cache", cache, *QUICK)
    assert "Note: the split file has 1 name of no image of this set.\n" in found.stderr
    assert "Note: the split file leaves out 2 images.\n" in found.stderr


def test_notes_on_a_rated_set_are_said_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in data.glob("*.png"))[:3]
    for name in names[1:]:
        (tmp_path / name).write_bytes((data / name).read_bytes())
    (tmp_path / "labels.csv").write_text("\n".join(["file,quality", *(f"{name},{i}" for i, name in enumerate(names))]))
    loaded_set("csv", tmp_path / "labels.csv", (0.0, 5.0), allow_missing=True)
    assert capsys.readouterr().err.splitlines() == [
        "Note: no prompt for 3 images, so it is unknown which images share one.",
        "Note: missing and left out: 1 of 3 images.",
    ]


def test_a_training_without_a_test_part_says_where_it_is(data: Path, cache: Path, tmp_path: Path) -> None:
    asked = ["--data", "csv", "--root", data / "labels.csv", "--range", 0, 5, "--target", "quality", "--cache", cache]
    loud = [flag for flag in QUICK if flag != "--quiet"]
    found = run("train", *asked, "--head", "template", "--test-share", 0, "-o", tmp_path / "all", *loud)
    assert found.stdout == f"Saved in {tmp_path / 'all'}; see {tmp_path / 'all' / 'README.md'}.\n"
