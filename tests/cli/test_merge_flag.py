"""``--merge`` at every command that encodes images: one flag, one refusal, and rows that say so."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from mst_clipiqa import Scorer
from mst_clipiqa.cli import COMMANDS, group
from mst_clipiqa.distribute.worker import Work, load_scorer
from mst_clipiqa.scoring.granularity import without_setting
from mst_clipiqa.scoring.loading import ScoreOptions
from tests.closed_form import save_clip
from tests.commands import run
from tests.fakes import rated_set

FLAGS = {
    "score": "{images}",
    "score-cluster": "{images} -o {out}",
    "rank": "{images}",
    "pick": "{images} --prompt x",
    "filter": "{images} --min-quality 1",
    "explain": "{image}",
    "compare": "{image} {image}",
    "drift": "{images} {images}",
    "compare-settings": "{images} --baseline none",
    "gate": "{images} --min-count 1",
    "report": "{images} -o {out}.html",
    "serve": "--port 0",
    "train": "{rated} --target quality --head template -o {out}",
    "adapt": "mini --images {images} -o {out}",
    "evaluate": "{rated} --model mini --split all",
    "benchmark": "{rated} -o {out}",
}
"""Each command with ``--merge``, and what it needs beside."""


def options_of(name: str) -> dict[str, str]:
    command = group.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    return {one.opts[0]: getattr(one, "help", "") or "" for one in command.params}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rated")
    rated = rated_set(root, prompts=10, each=2)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "prompt", "mos_quality"])
        writer.writerows([one.name, one.prompt, one.targets["quality"]] for one in rated.records)
    return root


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("clip")
    return f"{save_clip(root / '32', 32)},{save_clip(root / '16', 16)}"


def test_every_command_with_a_precision_has_it() -> None:
    found = {name: options_of(name) for name in COMMANDS}
    merging = {name for name, options in found.items() if "--merge" in options}
    assert merging == set(FLAGS) == {name for name in found if "--precision" in found[name]} - {"calibrate"}
    assert len({found[name]["--merge"] for name in merging}) == 1


@pytest.mark.parametrize("name", FLAGS)
def test_every_command_refuses_it_for_mini_in_one_sentence(
    name: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mst_clipiqa.distribute.run"], "need_ray", lambda: None)
    where = {"images": images, "image": next(images.glob("*.png")), "out": tmp_path / "out"}
    where["rated"] = f"--data csv --root {images} --range 0 5"  # type: ignore[assignment]
    flags = FLAGS[name].format(**where).split()
    result = run(name, *flags, "--merge", 8, code=2)
    assert "Error: Expected CLIP-like encoders for --merge, got mini: leave it out." in result.stderr


def test_merged_rows_are_of_another_model_and_none_merged_changes_nothing(images: Path, pair: str) -> None:
    asked = ["score", images, "--model", f"zero-shot:{pair}", "--precision", "fp32", "--device", "cpu", "--json"]
    plain, none, some = (
        [json.loads(line) for line in run(*asked, *more).stdout.splitlines()]
        for more in ([], ["--merge", 0], ["--merge", 20])
    )
    assert none == plain
    assert {row["model"] for row in some} == {f"{plain[0]['model']} (merge:20)"}
    assert {without_setting(row["model"]) for row in some} == {plain[0]["model"]}
    assert all(one["quality"] != other["quality"] for one, other in zip(some, plain, strict=True))


def test_a_model_is_trained_on_merged_tokens_and_its_card_says_so(images: Path, pair: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train = ["train", "--data", "csv", "--root", images, "--range", 0, 5, "--target", "quality", "--head", "template"]
    train += ["--encoders", pair, "--merge", 20, "--precision", "fp32", "--device", "cpu", "-o", out]
    run(*train, "--no-leave-out", "--set", "epochs=1", "--cache", tmp_path / "cache", "--quiet")
    assert "Features were computed in fp32 with merged tokens: score with `--merge 20` too." in (
        (out / "README.md").read_text()
    )
    assert "fp32-merge20" in run("cache", "info", tmp_path / "cache").stdout
    evaluate = ["evaluate", "--model", out, "--data", "csv", "--root", images, "--range", 0, 5, "--json"]
    evaluate += ["--split", "all", "--precision", "fp32", "--device", "cpu"]
    whole, merged = (run(*evaluate, "--merge", count).stdout for count in (0, 20))
    assert whole != merged
    scorer = Scorer.load(out, device="cpu", precision="fp32", merge=20)
    actor = load_scorer(Work("out", str(out), ScoreOptions(device="cpu", precision="fp32", merge=20)))
    image = next(images.glob("*.png"))
    assert scorer(image).model == "model (merge:20)" and actor(image) == scorer(image)


def test_a_table_is_not_scored_so_nothing_is_merged(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("file,quality\na.png,3\n")
    result = run("evaluate", table, table, "--merge", 3, code=2)
    assert "Expected --merge only where images are scored, got it beside" in result.stderr
