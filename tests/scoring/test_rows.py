"""Rows: each says all of its score, and which state of which file it is of."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import pytest
from PIL.PngImagePlugin import PngInfo

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.metadata_columns import METADATA_COLUMNS, metadata_row
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.resume import STAMP
from mst_clipiqa.scoring.score_rows import LEVEL_COLUMNS, columns, score_rows
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair, draw
from tests.scoring.test_scorer import model


@pytest.fixture
def scorer() -> Scorer:
    pair = FakePair()
    return Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=4))


def test_each_frame_of_each_state_of_a_file_has_a_stamp_of_its_own(scorer: Scorer, tmp_path: Path) -> None:
    files = [tmp_path / "a.gif", tmp_path / "b.gif"]
    for i, file in enumerate(files):
        frames = [draw(i + n, n / 3, size=40) for n in range(3)]
        frames[0].save(file, save_all=True, append_images=frames[1:])
    items = [Item(str(file), str(file), frame=frame) for file, frame in product(files, (None, 0, 1, 2))]
    rows = list(score_rows(scorer, items, stamped=True))
    assert [row["status"] for row in rows] == ["ok"] * len(items)
    assert len({row[STAMP] for row in rows}) == len(items)
    assert [row[STAMP] for row in score_rows(scorer, items, stamped=True)] == [row[STAMP] for row in rows]
    assert all(STAMP not in row for row in score_rows(scorer, items))


@pytest.mark.parametrize("names", [("quality", "correspondence"), ("quality",), ("correspondence",)])
def test_a_quality_from_templates_alone_has_levels(names: tuple[str, ...]) -> None:
    pair = FakePair()
    made = model(pair)
    config = dataclasses.replace(made.config, targets={name: made.config.targets[name] for name in names})
    scorer = Scorer(TrainedModel(config, {name: made.parts[name] for name in names}), ImageEncoder(pair))
    found = columns(scorer, intervals=True)
    assert {"quality_spread", *LEVEL_COLUMNS} <= found.keys() or "quality" not in names
    assert {name for name in found if name.endswith("_low")} == {f"{name}_low" for name in names}
    assert "quality" in names or not {"quality_spread", *LEVEL_COLUMNS} & found.keys()


def test_a_row_says_of_an_image_what_its_file_says(tmp_path: Path) -> None:
    info = PngInfo()
    said = "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Model: sd15"
    info.add_text("parameters", said)
    draw(0, 0.2).save(tmp_path / "said.png", pnginfo=info)
    draw(0, 0.2).save(tmp_path / "silent.png")
    assert metadata_row(Item("said.png", str(tmp_path / "said.png"))) == {
        "generator": "sd15",
        "negative_prompt": "blurry",
        "seed": 42,
        "steps": 20,
        "sampler": "Euler a",
        "cfg_scale": 7.5,
    }
    info, large = PngInfo(), 2**63 + 1  # as half of ComfyUI's seeds are
    info.add_text("parameters", said.replace("Seed: 42", f"Seed: {large}"))
    draw(0, 0.2).save(tmp_path / "large.png", pnginfo=info)
    assert metadata_row(Item("large.png", str(tmp_path / "large.png")))["seed"] == large
    nothing = dict.fromkeys(METADATA_COLUMNS)
    for item in (Item("silent.png", str(tmp_path / "silent.png")), Item("gone.png", str(tmp_path / "gone.png"))):
        assert metadata_row(item) == nothing
    assert metadata_row(Item("bad.png", str(tmp_path / "said.png"), problem="It is bad.")) == nothing
