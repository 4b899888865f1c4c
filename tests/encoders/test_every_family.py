"""Every family of encoders goes through every command that ``docs/encoders.md`` names; exports cover those it names."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from mst_clipiqa import Scorer
from mst_clipiqa.distribute.plan import Partition, items_in
from mst_clipiqa.distribute.worker import Work, Worker
from mst_clipiqa.encoders import load_encoders
from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.families import FAMILIES
from mst_clipiqa.integrations.metric import MSTClipIQAMetric
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.settings import Settings
from mst_clipiqa.tables.reading import read_table
from tests.closed_form import clip_config, save_clip
from tests.commands import run
from tests.encoders.conftest import Folders
from tests.fakes import rated_set
from tests.made_once import collect_operators_once

FP32 = ["--quiet", "--device", "cpu", "--precision", "fp32"]
ONCE = ["--set", "epochs=1", "--set", "learning_rates=1e-3"]
FAST = [name for name, family in FAMILIES.items() if family.fast]


@pytest.fixture(scope="module")
def every(families: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return the folders of each family, CLIP's too."""
    root, small = tmp_path_factory.mktemp("clip"), {**clip_config(16)["vision_config"], "image_size": 32}
    pair = (save_clip(root / f"{patch}", patch, vision_config={**small, "patch_size": patch}) for patch in (16, 8))
    return {"clip": (next(pair), next(pair)), **families}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rated")
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "prompt", "mos_quality"])
        for one in rated_set(root, prompts=12, each=2).records:
            writer.writerow([one.name, f"a red fox {one.prompt}", one.targets["quality"]])
    return root


def test_every_family_is_tested(every: Folders) -> None:
    assert set(every) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("few_windows", "loaded_once")
def test_every_family_goes_all_the_way(family: str, every: Folders, data: Path, tmp_path: Path) -> None:
    pair, out, cache = ",".join(map(str, every[family])), tmp_path / "model", ["--cache", tmp_path / "cache"]
    rated = ["--data", "csv", "--root", data, "--range", 0, 5]
    train = ["train", *rated, "--target", "quality", "--head", "template", "--encoders", pair, "-o", out, *cache, *FP32]
    run(*train, "--no-leave-out", "--validation-share", 0.3, *ONCE)
    run("score", data, "--model", out, "-o", tmp_path / "scores.csv", *FP32)
    rows = {Path(str(row["file"])).name: float(str(row["quality"])) for row in read_table(tmp_path / "scores.csv")}
    assert len(rows) == 24 and all(0 <= quality <= 5 for quality in rows.values()) and len(set(rows.values())) > 12

    evaluated = json.loads(run("evaluate", *rated, "--model", out, "--split", "all", "--json", *cache, *FP32).stdout)
    assert evaluated["targets"][0]["agreement"]["n"] == 24
    bench = ["benchmark", *rated, "--encoders", pair, "-o", tmp_path / "bench", "--splits", 1, "--processes", 1]
    run(*bench, "--heads", "template,prompt", *ONCE, *cache, *FP32)
    assert len(json.loads((tmp_path / "bench" / "results.json").read_text())["runs"]) == 2
    assert re.search(r"\(fp32\): 24 images, 1[0-9] prompts", run("cache", "info", tmp_path / "cache").stdout)

    image = next(data.glob("*.png"))
    explained = json.loads(run("explain", image, "--model", out, "--json", *FP32[1:]).stdout)
    assert explained["scores"]["quality"] == pytest.approx(rows[image.name], abs=1e-5)
    scorer = Scorer.load(out, device="cpu", precision="fp32")
    work = Work(str(tmp_path), str(out), ScoreOptions(device="cpu", precision="fp32"), sha256=scorer_sha256(scorer))
    Worker(work).score(Partition("part.parquet", tuple(items_in(str(image)))))
    (row,) = read_table(tmp_path / "part.parquet")
    assert float(str(row["quality"])) == pytest.approx(rows[image.name], abs=1e-5)

    with TestClient(create_app(scorer, Settings()), base_url="http://127.0.0.1:8000") as client:
        answer = client.post("/v1/score", files={"image": io.BytesIO(image.read_bytes())}).json()
    assert answer["results"][0]["quality"] == pytest.approx(rows[image.name], abs=1e-5)
    pixels = torch.rand(1, 3, 40, 40, requires_grad=True)
    MSTClipIQAMetric(scorer, as_loss=True)(pixels).sum().backward()
    assert pixels.grad is not None and float(pixels.grad.abs().sum()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_export_takes_the_families_that_it_names(family: str, every: Folders) -> None:
    pair = load_encoders(",".join(map(str, every[family])), "cpu", "fp32")
    assert isinstance(pair, CLIPPair) and pair.is_clip_like == (family in FAST)


def test_another_family_than_clip_is_exported(
    every: Folders, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    collect_operators_once(monkeypatch)
    model, out, image = f"zero-shot:{','.join(map(str, every['altclip']))}", tmp_path / "out", next(data.glob("*.png"))
    run("export", model, "-o", out)
    exported = json.loads(run("score", image, "--model", model, "--backend", out, "--json", "--quiet").stdout)
    plain = json.loads(run("score", image, "--model", model, "--json", *FP32).stdout)
    assert exported["quality"] == pytest.approx(plain["quality"], abs=1e-3)
