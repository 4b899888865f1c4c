"""Controls: each is answered in its own column, right by construction, and changes no score."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mst_clipiqa.errors import ImageError, UsageError
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.scoring.controls import Controls, ControlSources
from mst_clipiqa.scoring.edges import edge_agreement, edge_map
from mst_clipiqa.scoring.score import ControlArgs, ScoreRequest
from mst_clipiqa.scoring.score_rows import COLUMNS, to_row
from mst_clipiqa.scoring.scorer import Scorer
from speed.controls_truth import edge_rate, negative_rates, reference_rates
from tests.cli.test_score_command import MINI
from tests.commands import run_score
from tests.fakes import draw

EXAMPLES = Path(__file__).parents[2] / "examples"


def scored(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in run_score(*arguments, "--json").stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, of which two name a negative prompt."""
    root = tmp_path / "images"
    root.mkdir()
    for i, negative in enumerate(("a blue car", "", "a green cat")):
        text = PngInfo()
        line = f"\nNegative prompt: {negative}" if negative else ""
        text.add_text(
            "parameters", f"a red ball{line}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64"
        )
        draw(i, 0.3, size=64).save(root / f"{i}.png", pnginfo=text)
    return root


def test_a_negative_prompt_is_answered_apart(folder: Path) -> None:
    plain = scored(folder, "--prompts-from", "metadata")
    asked = scored(folder, "--prompts-from", "metadata", "--negative-from", "metadata")
    assert [{name: row[name] for name in COLUMNS} for row in asked] == plain
    assert [row["negative_prompt"] for row in asked] == ["a blue car", None, "a green cat"]
    assert [row["negative_match"] is None for row in asked] == [False, True, False]
    (one,) = scored(folder / "0.png", "--prompt", "a blue car")
    assert asked[0]["negative_match"] == one["correspondence"] != asked[0]["correspondence"]


def test_negative_prompts_come_from_a_column_or_are_given(folder: Path) -> None:
    (folder / "list.csv").write_text("file,prompt,avoid\n0.png,a ball,a blue car\n1.png,a ball,\n")
    listed = scored(folder / "list.csv", "--negative-from", "avoid")
    assert [row["negative_prompt"] for row in listed] == ["a blue car", None]
    given = scored(folder / "0.png", "--negative", "a blue car")
    assert given[0]["negative_match"] == listed[0]["negative_match"]
    assert given[0]["correspondence"] is None


def test_a_reference_is_compared_stream_by_stream(folder: Path) -> None:
    (folder / "list.csv").write_text("file,like\n0.png,0.png\n0.png,2.png\n1.png,none.png\n1.png,\n")
    same, other, broken, empty = scored(folder / "list.csv", "--reference", "like")
    assert same["reference_coarse"] == same["reference_fine"] == 1.0
    assert isinstance(other["reference_fine"], float) and other["reference_fine"] < 1
    assert broken["status"] == "ok" and "the reference cannot be read" in str(broken["reason"])
    assert empty["reference_coarse"] is None and "reference" not in str(empty["reason"])
    for row in scored(folder, "--reference", folder / "0.png"):
        assert row["reference"] == str(folder / "0.png")
    assert scored(folder / "0.png", "--reference", folder / "2.png")[0]["reference_fine"] == other["reference_fine"]


def test_edges_are_compared_with_a_map(folder: Path) -> None:
    ball, coffee = (EXAMPLES / name for name in ("red_ball.png", "coffee.jpg"))
    edge_map(Image.open(ball).convert("RGB")).save(folder / "map.png")
    own, other = scored(ball, coffee, "--control", f"edges:{folder / 'map.png'}")
    assert isinstance(own["edge_agreement"], float) and isinstance(other["edge_agreement"], float)
    assert own["edge_agreement"] > 0.9 > other["edge_agreement"]
    Image.new("L", (64, 64)).save(folder / "black.png")
    (flat,) = scored(folder / "0.png", "--control", f"edges:{folder / 'black.png'}")
    assert (flat["edge_agreement"], flat["status"]) == (None, "ok")
    assert "has no edges" in str(flat["reason"])


def test_edges_near_their_lines_count_and_others_do_not() -> None:
    def halves(at: int) -> Image.Image:
        image = Image.new("RGB", (256, 256))
        image.paste((255, 255, 255), (at, 0, 256, 256))
        return image

    control = edge_map(halves(128))
    near, far = (edge_agreement(halves(at), control) for at in (130, 160))
    assert near is not None and far is not None
    assert near > 0.7 > 0.1 > far
    assert edge_agreement(halves(128), Image.new("L", (9, 9))) is None


def test_a_row_is_kept_only_if_what_it_was_asked_has_not_changed(folder: Path) -> None:
    like = folder / "2.png"
    controls = Controls(MINI, ControlSources(negative="a cat", reference=str(like)), [])
    row = controls.asked({}, str(folder / "0.png"))
    before = controls.state(row)
    assert controls.state(dict(row)) == before
    assert controls.state(row | {"negative_prompt": "a dog"}) != before
    like.write_bytes(like.read_bytes() + b"changed")
    assert controls.state(row) != before


# ------------------------------------------------------------------------------------------------------------- Python

ANSWERS = ("negative_match", "reference_coarse", "reference_fine", "edge_agreement")


@pytest.fixture
def asked(folder: Path) -> ControlArgs:
    """What is asked of images, with the files that it needs."""
    edge_map(draw(0, 0.3, size=64)).save(folder.parent / "map.png")
    draw(2, 0.3, size=64).save(folder.parent / "like.png")
    return {
        "negative": "a blue car",
        "reference": folder.parent / "like.png",
        "control": folder.parent / "map.png",
    }


def test_calls_streams_and_many_answer_what_the_command_does(folder: Path, asked: ControlArgs) -> None:
    flags = ["--negative", asked["negative"], "--reference", asked["reference"]]
    rows = scored(folder, "--prompt", "a ball", *flags, "--control", f"edges:{asked['control']}")
    want = [[row[name] for name in ("quality", "correspondence", *ANSWERS)] for row in rows]
    assert all(isinstance(value, float) for row in want for value in row)
    files = [folder / f"{i}.png" for i in range(3)]
    pixels = [np.asarray(Image.open(file)) for file in files]
    opened: ControlArgs = {
        **asked,
        "reference": Image.open(asked["reference"]),
        "control": Image.open(asked["control"]),
    }
    whole: list[ScoreRequest[None]] = [ScoreRequest(file, "a ball", **asked) for file in files]
    for scores in (
        MINI(files, "a ball", **asked),
        MINI(pixels, "a ball", **opened),
        list(MINI.many([(file, "a ball") for file in files], **asked)),
        list(MINI.many(whole)),
        [score for _, score in MINI.stream(whole)],
        [MINI(file, "a ball", **asked) for file in files],
        [MINI(file, ["a ball", "a cat"], **asked)[0] for file in files],
    ):
        found = [to_row("", "a ball", score) for score in scores]
        assert [[row[name] for name in ("quality", "correspondence", *ANSWERS)] for row in found] == want


def test_a_request_asks_of_its_own_image_and_what_is_missing_is_said(folder: Path, asked: ControlArgs) -> None:
    image = folder / "0.png"
    requests: list[ScoreRequest[None]] = [
        ScoreRequest(image),
        ScoreRequest(image, negative="a cat"),
        ScoreRequest(image, negative=3, reference=b"no image", control="none.png"),  # type: ignore[arg-type]
        ScoreRequest(image, negative=" "),
        ScoreRequest(b"no image", **asked),
        ScoreRequest(io.BytesIO(image.read_bytes()), control=asked["control"]),
    ]
    plain, cat, odd, blank, broken, spent = [score for _, score in MINI.stream(requests)]
    assert [getattr(plain, name) for name in ANSWERS] == [None] * 4
    assert cat.negative_match is not None and cat.reference_fine is None
    assert cat.to_dict()["negative_match"] == cat.negative_match
    assert odd.status == "ok" and [getattr(odd, name) for name in ANSWERS] == [None] * 4
    assert "expected the negative prompt as text, got int" in odd.reason
    assert "the reference cannot be read: expected an image (" in odd.reason
    assert "the control map cannot be read: expected an image, found no file" in odd.reason
    assert blank.negative_match is None and blank.reason == plain.reason
    assert broken.error == "image" and "control" not in broken.reason
    assert "the image cannot be read again for its edges" in spent.reason


def test_a_reference_is_known_to_the_thread_that_read_it_whatever_others_forget(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgotten(dict[object, object]):
        def __setitem__(self, key: object, value: object) -> None:
            """Forget it at once, as another thread may that has read the 65th reference."""

    monkeypatch.setattr(MINI.answers, "_known", Forgotten())
    assert isinstance(MINI.answers.reference(folder / "0.png"), Encoded)


def test_a_reference_whose_file_has_changed_is_read_again(folder: Path) -> None:
    like, image = folder / "like.png", folder / "0.png"
    found = []
    for seed in (0, 2):
        draw(seed, 0.3, size=64).save(like)
        found += [score.reference_fine for _, score in MINI.stream([ScoreRequest(image, reference=like)])]
    assert found[0] == 1 != found[1]


def test_what_a_call_cannot_ask_is_one_sentence(folder: Path) -> None:
    image = folder / "0.png"
    with pytest.raises(UsageError, match="Expected the negative prompt to be text, got 3"):
        MINI(image, negative=3)  # type: ignore[call-overload]
    for asked in ({"reference": folder / "none.png"}, {"control": b"no image"}):
        with pytest.raises(ImageError, match="Expected an image"):
            list(MINI.many([image], **asked))
    with pytest.raises(ImageError, match=r"none\.png': Expected an image, found no file"):
        MINI(image, control=folder / "none.png")
    coarse = Scorer.load("mini", device="cpu", granularity="coarse")
    with pytest.raises(UsageError, match="Expected granularity fine beside a reference image, got coarse: drop one"):
        coarse(image, reference=image)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--negative", "a", "--negative-from", "metadata"],
            "Expected one of --negative and --negative-from, got both",
        ),
        (["--negative-from", "metadta"], "or a column of the list, got 'metadta' (did you mean 'metadata'?)"),
        (["--reference", "nothing.png"], "Expected a file or a column of the list for --reference, got 'nothing.png'"),
        (["--control", "depth:a.png"], "Expected --control edges:FILE or edges:COLUMN, got 'depth:a.png'"),
        (["--control", "edges:"], "Expected --control edges:FILE or edges:COLUMN, got 'edges:'"),
        (["--negative", "  "], "Expected words in --negative, got none: write the prompt, or omit the flag."),
        (["--reference", "notes.txt"], "--reference 'notes.txt': Expected an image"),
        (["--control", "edges:notes.txt"], "--control 'notes.txt': Expected an image"),
        (["--control", "edges:no.png"], "Expected a file or a column of the list for --control, got 'no.png'"),
    ],
)
def test_what_cannot_be_asked_is_said(
    folder: Path, flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("notes.txt").write_text("no image\n")
    assert message in run_score(folder, *flags, code=2).stderr


def test_right_orders_by_construction() -> None:
    found = reference_rates(MINI, 6)
    assert min(found["coarse, copy"], found["fine, copy"]) >= 0.8
    assert edge_rate(16) >= 0.8
    assert set(negative_rates(MINI, 2)) == {"word", "phrase"}  # how often mini is right is in docs/controls.md


def test_noise_agrees_with_no_map() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    found = edge_agreement(noise, edge_map(draw(0, 0.0, size=128)))
    assert found is None or abs(found) < 0.3


def test_scoring_without_a_control_map_starts_without_the_filters() -> None:
    code = "import sys, mst_clipiqa.scoring.controls; print('scipy.ndimage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
