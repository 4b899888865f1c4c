"""``mst-clipiqa explain`` as a person calls it, and the shipped model's map against regions that were distorted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mst_clipiqa import cli
from mst_clipiqa.evaluate.caution import UNFAMILIAR
from mst_clipiqa.explain import Explanation, explain
from mst_clipiqa.explain.sheet import MOST_WORDS, WIDTH, draw_sheet
from mst_clipiqa.scoring.predictor import UNLIKE_TRAINING
from mst_clipiqa.scoring.scorer import Scorer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BALL = EXAMPLES / "red_ball.png"
PROMPT = "a red ball on a wooden table"


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.group, ["explain", *map(str, args)])


@pytest.fixture(scope="module")
def found() -> Explanation:
    """Return what mini says of a prompt; maps of few windows will do, as these tests look at words and the sheet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mst_clipiqa.explain.maps.GRID", 3)
        return explain(Scorer.load("mini", device="cpu"), BALL, PROMPT)


def test_an_image_and_json_are_written_and_sentences_printed(small_model: Path, tmp_path: Path) -> None:
    result = call(BALL, "--prompt", "a red fox", "--model", small_model, "-o", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "new" / "folder" / "explanation.json").read_text(encoding="utf-8"))
    with Image.open(tmp_path / "new" / "folder" / "explanation.png") as sheet:
        assert sheet.format == "PNG" and sheet.width == WIDTH
    assert set(data["maps"]) == {"quality", "correspondence"}
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"quality {data['scores']['quality']:.2f} (0 to 5): ")
    assert [line.split(":")[0] for line in lines[2:5]] == ["coarse", "fine", "both"]
    assert result.stderr == ""


@pytest.mark.usefixtures("few_windows")
def test_json_on_stdout_is_json_and_nothing_else() -> None:
    result = call(BALL, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert set(data["maps"]) == {"quality"} and data["words"] == {}
    score = Scorer.load("mini")(BALL)  # drawn by no generator, so near the limit of what is familiar
    assert score.familiarity is not None
    assert data["note"] == (UNLIKE_TRAINING if score.familiarity < UNFAMILIAR else "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((EXAMPLES / "nothing.png",), "nothing.png': Expected an image, found no file of this name"),
        ((EXAMPLES / "README.md",), "README.md': Expected"),
        ((BALL, "--prompt", " "), "Expected words in --prompt, got none: write the prompt, or omit the flag."),
        ((BALL, "--target", "beauty"), "Expected a target of quality, correspondence, got 'beauty'."),
        ((BALL, "--target", "correspondence"), "correspondence to be scored, got none (no prompt): give --prompt."),
        (
            (BALL, "--target", "correspondence", "--prompt", "xq zv"),
            "English)): try another --prompt or --target.",
        ),
        ((BALL, "-o", BALL / "folder"), f"{str(BALL)!r} is a file): name another folder."),
        ((BALL, "--model", "maxi"), "got 'maxi'"),
    ],
)
@pytest.mark.usefixtures("few_windows")
def test_what_stops_it_is_said_in_one_line(args: tuple[str | Path, ...], message: str) -> None:
    result = call(*args)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_flags_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mst_clipiqa.explain.explain", lambda *_: pytest.fail("the image was encoded"))
    for flags in (("--target", "correspondence"), ("-o", BALL / "folder"), ("--target", "beauty")):
        assert call(BALL, *flags).exit_code == 2


def test_the_sheet_takes_any_prompt(found: Explanation, small_model: Path) -> None:
    long = "an " + "extraordinarily " * 100 + "\x1b[2J red\u202e ball"
    scorer = Scorer.load(str(small_model), device="cpu")
    sheet = draw_sheet(explain(scorer, Image.new("RGB", (60, 400), "teal"), long))
    assert sheet.width == WIDTH and sheet.height < 4000
    assert len(found.words["correspondence"]) == 7 < MOST_WORDS
    assert draw_sheet(found, "correspondence").tobytes() != draw_sheet(found, "quality").tobytes()


def test_attention_of_the_shipped_model_adds_up(found: Explanation) -> None:
    shares = [word.attention or 0 for word in found.words["correspondence"]]
    assert all(share > 0 for share in shares) and 0.5 < sum(shares) < 1
