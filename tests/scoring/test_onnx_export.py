"""Image encoders for another runtime: equal to torch's, refused if they are not what was exported."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.closed_form import save_clip

pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from mst_clipiqa.cli import group
from mst_clipiqa.encoders.onnx_runtime import MANIFEST, read_manifest
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.onnx_export import (
    FEATURES,
    SCORES,
    ExportAgreement,
    _check,
    compare_scorers,
    export,
    synthetic_images,
)
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair
from tests.made_once import collect_operators_once

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("clip")
    return f"zero-shot:{save_clip(root / '32', 32)},{save_clip(root / '16', 16)}"


def exporting(clip: str, folder: Path, *flags: str) -> tuple[Path, str]:
    """Export by the command; return the folder and what was printed."""
    done = CliRunner().invoke(group, ["export", clip, "-o", str(folder), *flags])
    assert done.exit_code == 0, done.output
    return folder, done.stdout


@pytest.fixture(scope="module")
def exported(clip: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Export in both precisions; int8 starts from the same towers, which take seconds to trace, as fp32."""
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        collect_operators_once(patch)
        fp32 = exporting(clip, root / "fp32", "--check", str(EXAMPLES))
        patch.setattr(
            "mst_clipiqa.encoders.onnx_export._write_tower",
            lambda tower, pixels, path: shutil.copy(fp32[0] / path.name, path),
        )
        return {"fp32": fp32, "int8": exporting(clip, root / "int8", "--int8")}


@pytest.fixture
def made(exported: dict[str, tuple[Path, str]]) -> Path:
    return exported["fp32"][0]


def test_mini_has_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="Expected encoders of clip, metaclip_2, altclip, chinese_clip to export, got mini"
    ):
        export("mini", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_clip_pair_is_exported(clip: str, exported: dict[str, tuple[Path, str]], precision: str) -> None:
    folder, images = exported[precision][0], synthetic_images()[:3]
    scorer = Scorer.load(clip, backend=str(folder))
    found = compare_scorers(Scorer.load(clip, precision="fp32"), scorer, images)
    assert found.images == 3 and set(found.srcc) == {"quality"}
    assert (found.features < 1e-4) == (precision == "fp32")
    together = scorer.encode(images)
    alone = [scorer.encode([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.f_c, b.f_c, atol=1e-5, rtol=1e-5)  # int8 too does not look at its neighbours
        torch.testing.assert_close(a.f_f, b.f_f, atol=1e-5, rtol=1e-5)
    assert scorer.encoder.encoders.precision == f"onnx-{precision}"
    graph = pytest.importorskip("onnx").load(folder / "fine.onnx").graph
    kinds = [node.op_type for node in graph.node]
    layers = 2 * 6 + 1  # of each block four in the attention and two in the MLP, and the projection
    assert kinds.count("MatMulInteger") == (layers if precision == "int8" else 0)


def test_a_difference_is_seen_and_keeps_nothing(
    clip: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = Scorer.load(clip, precision="fp32"), Scorer.load(clip, precision="bf16")
    assert compare_scorers(plain, other, synthetic_images()[:3]).features > 1e-3
    part = "mst_clipiqa.scoring.onnx_export"
    monkeypatch.setattr(f"{part}.write_towers", lambda _, folder, __: shutil.copytree(made, folder, dirs_exist_ok=True))
    assert export(clip, tmp_path / "good", images=synthetic_images()[:2]).images == 2
    monkeypatch.setattr(f"{part}.compare_scorers", lambda *_: ExportAgreement(3, float("nan"), {}, {}))
    with pytest.raises(ModelError, match=r"Expected features within 0.001 .* so nothing was kept"):
        export(clip, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


@pytest.mark.parametrize(
    ("features", "share", "kept"),
    [
        (FEATURES / 2, SCORES / 2, True),
        (FEATURES * 2, SCORES / 2, False),
        (FEATURES / 2, SCORES * 2, False),
        (float("nan"), SCORES / 2, False),
        (FEATURES / 2, float("nan"), False),
    ],
)
def test_neither_features_nor_scores_may_differ_by_more_than_their_share(
    features: float, share: float, kept: bool
) -> None:
    scorer = Scorer(zero_shot_model(FakePair()), ImageEncoder(FakePair()))
    low, high = scorer.ranges["quality"]
    found = ExportAgreement(3, features, {"quality": share * (high - low)}, {})
    with nullcontext() if kept else pytest.raises(ModelError, match="so nothing was kept"):
        _check(found, scorer)


def test_two_images_have_no_order_that_could_agree() -> None:
    scorer = Scorer(zero_shot_model(FakePair()), ImageEncoder(FakePair()))
    assert [compare_scorers(scorer, scorer, synthetic_images()[:n]).srcc for n in (2, 3)] == [
        {"quality": None},
        {"quality": 1.0},
    ]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="Expected an empty folder or an earlier export"):
        export("mini", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_another_pair_is_refused(made: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected an export of .* got one of .*: export this model"):
        Scorer.load("mini", backend=str(made))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "of format 1"),
        ({"runtime": "pickle"}, "of format 1"),
        ({"runtime": ["onnx"]}, "of format 1"),
        ({"files": ["coarse.onnx", "fine.onnx"]}, "of format 1"),
        ({"files": {"coarse.onnx": "a", "fine.onnx": "b", "../secret": "c"}}, "of format 1"),
        ({"files": {"coarse.onnx": 1, "fine.onnx": 2}}, "of format 1"),
        ({"code": "import os"}, "no export.json that can be read"),
    ],
)
def test_a_strange_manifest_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = {"coarse.onnx": "a", "fine.onnx": "b"}
    good = {"runtime": "onnx", "precision": "fp32", "encoders": "e", "files": files, "format": 1}
    (tmp_path / MANIFEST).write_text(json.dumps(good))
    assert read_manifest(tmp_path).files == files
    (tmp_path / MANIFEST).write_text(json.dumps(good | change))
    with pytest.raises(ModelError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 50_000, " " * 70_000 + "{}"])
@pytest.mark.usefixtures("no_collection")
def test_a_broken_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"Expected .*export"):
        read_manifest(tmp_path)


def test_changed_missing_and_foreign_files_are_refused(made: Path, clip: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    tower = folder / "fine.onnx"
    tower.write_bytes(tower.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match="as it was exported, got a changed file"):
        Scorer.load(clip, backend=str(folder))
    tower.unlink()
    with pytest.raises(ModelError, match="No such file"):
        Scorer.load(clip, backend=str(folder))
    from mst_clipiqa.encoders.onnx_runtime import digest

    tower.write_bytes(b"not a model")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["fine.onnx"] = digest(b"not a model")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"Expected a tower for ONNX Runtime in .*fine.onnx"):
        Scorer.load(clip, backend=str(folder))


def test_the_command_says_how_it_agrees(exported: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    made, said = exported["fp32"]
    assert "quality: largest difference" in said and "SRCC 1.0000" in said
    wrong = CliRunner().invoke(group, ["score", str(EXAMPLES), "--backend", str(made), "--precision", "bf16"])
    assert wrong.exit_code == 2
    assert "Expected no --device or --precision beside an exported --backend" in wrong.stderr
    nothing = CliRunner().invoke(group, ["score", str(EXAMPLES), "--backend", str(tmp_path)])
    assert "Expected a folder that `mst-clipiqa export` wrote" in nothing.stderr
