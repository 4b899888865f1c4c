"""Images of a report that open with their explanation: which, how large, and that it is of this score."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from mst_clipiqa import cli
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.report import ExplainOptions, ReportOptions, ReportSummary, write_report
from mst_clipiqa.report.explanations import MAP_SIDE
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import fill
from tests.fakes import FakePair, draw

PROMPT = "a <b>red</b> fox & </script>"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    pair = FakePair(view=ViewSpec(size=32))
    targets = {"quality": Target("template", 0.0, 5.0), "correspondence": Target("prompt", 0.0, 5.0)}
    parts = {"quality": MSTCLIPIQA(64, "template"), "correspondence": MSTCLIPIQA(64, "prompt")}
    for name, part in parts.items():
        fill(part, f"{name}.")
        part.eval().requires_grad_(False)
    config = ModelConfig("toy", EncoderRef("fake", pair.sha256, 64), targets, pair.view)
    return Scorer(TrainedModel(config, parts), ImageEncoder(pair))


@pytest.fixture
def rows(tmp_path: Path, scorer: Scorer) -> list[dict[str, Any]]:
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        draw(i, i / 5).save(path)
        one = to_row(path.name, PROMPT, scorer(path, PROMPT), intervals=True)
        # The toy likes all of them about as well; a little more or less is still the same score.
        made.append({**one, "quality": float(str(one["quality"])) + 0.02 * i, "quality_spread": abs(i - 2) / 10})
    return made


def written(
    rows: list[dict[str, Any]], folder: Path, how: ExplainOptions, **options: Any
) -> tuple[ReportSummary, dict[int, Any]]:
    found = write_report(rows, folder / "r.html", folders=[folder], options=ReportOptions(**options), explain=how)
    page = (folder / "r.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="e(\d+)">(.*?)</script>', page, re.DOTALL)
    return found, {int(row): json.loads(block) for row, block in blocks}


def ends(rows: list[dict[str, Any]]) -> set[int]:
    """Return the rows at the front of each strip."""
    found = set()
    for name in ("quality", "correspondence", "quality_spread"):
        order = sorted(range(len(rows)), key=lambda i: -round(rows[i][name], 4))
        found |= {order[0]} | ({order[-1]} if name != "quality_spread" else set())
    return found


def test_the_ends_are_explained(rows: list[dict[str, Any]], tmp_path: Path, scorer: Scorer) -> None:
    found, why = written(rows, tmp_path, ExplainOptions(scorer, 1))
    assert why.keys() == ends(rows) and len(why) < len(rows)
    assert (found.explained, found.left_out) == (len(why), [])
    for row, one in why.items():
        assert [m["stream"] for m in one["maps"]] == ["both", "coarse", "fine"]
        assert all(m["words"].startswith(f"{m['stream']}: most quality is lost ") for m in one["maps"])
        for m in one["maps"]:
            with Image.open(io.BytesIO(base64.b64decode(m["image"]))) as image:
                assert image.format == "WEBP" and max(image.size) <= MAP_SIDE
        score = scorer(tmp_path / rows[row]["file"], PROMPT)
        assert one["levels"] == [round(1000 * p) for p in score.levels or ()]
        assert [word for word, _, _ in one["words"]["correspondence"]] == ["a", "b>red</b", "fox", "&", "script"]


def test_rows_of_another_model_and_lost_images_are_passed_over(
    rows: list[dict[str, Any]], tmp_path: Path, scorer: Scorer
) -> None:
    for row in rows[:4]:
        row["model"] = "other"
    assert written(rows, tmp_path, ExplainOptions(scorer, 5))[1].keys() == {4}
    (tmp_path / "4.png").write_bytes(b"")
    found, why = written(rows, tmp_path, ExplainOptions(scorer, 5))
    assert why == {} and len(found.left_out) == 1  # said once, as a thumbnail


def test_an_explanation_is_of_the_score_in_the_table(
    rows: list[dict[str, Any]], tmp_path: Path, scorer: Scorer
) -> None:
    rows = [{**row, "quality": row["quality"] + 0.2} if i == 2 else row for i, row in enumerate(rows)]
    found, why = written(rows, tmp_path, ExplainOptions(scorer, 5))
    assert why.keys() == {0, 1, 3, 4}
    assert [one.row["file"] for one in found.left_out] == ["2.png"]
    assert "not explained: expected the quality of the table, " in found.left_out[0].why


def test_explanations_leave_room_for_images(rows: list[dict[str, Any]], tmp_path: Path, scorer: Scorer) -> None:
    _, all_of_them = written(rows, tmp_path, ExplainOptions(scorer, 5))
    limit = 60_000 + sum(len(json.dumps(one)) for one in all_of_them.values())
    found, why = written(rows, tmp_path, ExplainOptions(scorer, 5), limit=limit)
    assert found.size <= limit
    assert 0 < len(why) < len(rows)
    assert {one.why for one in found.left_out} == {"not explained: the page has no room for more"}


def test_the_command_explains_with_the_model_that_scored(
    rows: list[dict[str, Any]], tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Scorer, "load", lambda model, options: scorer)
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(*flags: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.group, ["report", "s.jsonl", *flags])
        return result.exit_code, result.stderr

    code, said = call("--model", "folder", "--explain", "1")
    assert code == 0 and f", {len(ends(rows))} explained." in said
    warning = f"Explaining {len(ends(rows))} images, which takes most of the time; --explain 0 skips it.\n"
    assert said.count(warning) == 1 and said.index(warning) < said.index("Wrote report.html")
    code, said = call()  # mini, but toy has scored
    assert (
        code == 0
        and "No image is explained. Expected --model to be the model that scored the table ('toy'), got mini" in said
    )
    code, said = call("--explain", "3")
    assert code == 2 and "got mini: name its folder, or leave --explain out." in said
    assert call("--explain", "0")[1].count("xpla") == 0
