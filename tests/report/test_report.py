"""The report: what it says, how large it is, and that no name in it can do anything."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from mst_clipiqa import cli
from mst_clipiqa.errors import DataError, UsageError
from mst_clipiqa.report import ReportOptions, write_report
from mst_clipiqa.report.data import report_data
from mst_clipiqa.report.page import Page, to_block
from mst_clipiqa.report.thumbnails import THUMBNAIL_SIZES, make_thumbnails

HOSTILE = "</script><script>hacked = 1</script><!--<img src=x onerror=hacked=1>&amp;\u2028"


def row(file: str, quality: float | None = None, correspondence: float | None = None, **more: Any) -> dict[str, Any]:
    return {"file": file, "quality": quality, "correspondence": correspondence, "status": "ok", **more}


def data_of(page: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    if block is None:
        raise AssertionError("the page has no data")
    found: dict[str, Any] = json.loads(block[1])
    return found


def facts_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return report_data(rows, [None] * len(rows), Path(), "Scores")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.png")
        Image.effect_noise((300, 200), 40 + i).save(paths[-1])
    return paths


ROWS = [
    row("sd_1.png", 1.0, 2.0, prompt="a", generator="sd"),
    row("sd_2.png", 3.0, 3.0, prompt="b", generator="sd"),
    row("mj_1.png", 4.0, 5.0, prompt="a", generator="mj", style="oil"),
    row("mj_2.png", None, None, prompt="b", generator="mj", status="error", reason="cut off"),
]


@pytest.mark.parametrize(
    ("files", "folder", "names", "prefix"),
    [
        (["/home/me/out/a.png", "/home/me/out/x/b.png"], "out/", ["a.png", "x/b.png"], ""),
        (["out/sd/a.png", "out/sd2/b.png"], "out/", ["sd/a.png", "sd2/b.png"], "out/"),
        (["a.png", "x/b.png"], "", ["a.png", "x/b.png"], ""),
        (["/a.png"], "/", ["a.png"], ""),
    ],
)
def test_the_common_folder_is_said_once(files: list[str], folder: str, names: list[str], prefix: str) -> None:
    found = facts_of([row(file, 1.0) for file in files])
    assert (found["folder"], found["file"], found["prefix"]) == (folder, names, prefix)


def test_the_page_has_the_scale_and_the_groups(tmp_path: Path) -> None:
    rows = [{**one, "steps": steps} for one, steps in zip(ROWS, (20.0, 30.0, 30.0, None), strict=True)]
    options = ReportOptions(ranges={"quality": (0.0, 5.0)}, by=("steps", "style"))
    write_report(rows, tmp_path / "r.html", options=options)
    data = data_of((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert data["ranges"] == {"quality": [0.0, 5.0]}
    groups = {one["column"]: [(line["name"], line["quality"][0]) for line in one["lines"]] for one in data["by"]}
    assert groups == {"steps": [("20", 1.0), ("30", 3.5)], "style": [("oil", 4.0)]}


def test_means_are_over_what_was_scored() -> None:
    found = facts_of(ROWS)
    # Two groups, prompt a (1, 4) and b (3): resamples reach (1+4)/2 and 3. For two groups, the distance from the mean
    # is multiplied by sqrt(2) 12.7062 / 1.95996 = 9.1682. Below the mean, Student's end is further away: the values are
    # off by -1/3 and 1/3 in all, so the deviation of the mean is sqrt((1/9) / (1/3) + (1/9) / (2/3)) / 3 = 0.2357.
    assert found["overall"]["quality"] == [2.6667, -0.3282, 5.7227, 3]
    assert found["generators"][1] == {
        "name": "mj",
        "rows": 2,
        "failed": 1,
        "unfamiliar": 0,
        "quality": [4.0, None, None, 1],
        "correspondence": [5.0, None, None, 1],
    }
    assert [(line["name"], line["rows"], line["quality"][0]) for line in found["prompts"]] == [
        ("a", 2, 2.5),
        ("b", 2, 3.0),
    ]
    assert found["correlation"] == 1.0


def test_best_and_worst_are_the_ends_of_the_order() -> None:
    strips = {strip["name"]: strip["rows"] for strip in facts_of(ROWS)["strips"]}
    assert strips == {
        "Best quality": [2, 1],
        "Worst quality": [0],
        "Best correspondence": [2, 1],
        "Worst correspondence": [0],
    }
    alone = [strip["name"] for strip in facts_of(ROWS[:1])["strips"]]
    assert alone == ["Best quality", "Best correspondence"]  # no image is both best and worst


def test_a_failed_row_keeps_no_score() -> None:
    found = facts_of([row("a", 2.0), row("b", 4.0, status="error", reason="cut off")])
    assert (found["quality"], found["ok"], found["reason"]["names"]) == ([2.0, None], [1, 0], ["cut off"])


def test_least_sure_needs_something_that_varies() -> None:
    same = [row("a", 2.0, quality_low=1.5, quality_high=2.5), row("b", 4.9, quality_low=4.4, quality_high=5.0)]
    assert facts_of(same)["unsure"] is None  # the second is cut by the end of the scale, and not surer
    other = [row("a", 2.0, quality_low=1.5, quality_high=2.5), row("b", 4.0, quality_low=3.0, quality_high=5.0)]
    found = facts_of(other)
    assert (found["unsure"], found["strips"][-1]["rows"]) == ([1.0, 2.0], [1, 0])
    spread = facts_of([row("a", 2.0, quality_spread=0.1), row("b", 2.0, quality_spread=0.4)])
    assert spread["strips"][-1]["rows"] == [1, 0]


def test_levels_and_spread_come_for_every_row() -> None:
    from mst_clipiqa.scoring.score_rows import LEVEL_COLUMNS as COLUMNS

    sure = dict(zip(COLUMNS, (0, 0, 0.25, 0.75, 0), strict=True))
    found = facts_of([row("a", 3.0, quality_spread=0.43, **sure), row("b", status="error", reason="cut off")])
    assert (found["levels"], found["spread"], found["extra"]) == ([[0, 0, 250, 750, 0], None], [0.43, None], {})
    assert (facts_of(ROWS)["levels"], facts_of(ROWS)["spread"]) == (None, None)


def test_unfamiliar_images_are_counted() -> None:
    rows = [
        row(name, 2.0, generator="g", familiarity=value)
        for name, value in zip("abc", (0.0499, 0.05, None), strict=True)
    ]
    found = facts_of([*rows, row("d", status="error", reason="cut off", familiarity=0.01)])
    assert found["familiarity"] == [0.0499, 0.05, None, None]
    assert found["unfamiliar"] == [1, 0, 0, 0]
    assert (found["generators"][0]["unfamiliar"], found["extra"]) == (1, {})
    near = facts_of([row("a", 2.0, generator="g", familiarity=0.049999)])  # shown as 0.05, and below it
    assert (near["familiarity"], near["unfamiliar"], near["generators"][0]["unfamiliar"]) == ([0.05], [1], 1)
    without = facts_of(ROWS)
    assert (without["familiarity"], without["unfamiliar"]) == (None, None)


def test_other_columns_come_along() -> None:
    assert facts_of(ROWS)["extra"] == {"style": [None, None, "oil", None]}


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="Expected a table with rows to report on, got none"):
        facts_of([])


def test_a_list_without_scores_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"Expected scores in a column quality or .*, got a table with 'file, prompt': score"
    ):
        facts_of([{"file": "a.png", "prompt": "a ball"}])


def test_links_are_relative_whatever_the_name(tmp_path: Path) -> None:
    name = 'javascript:alert(1)"<b>?#%'
    found = report_data([row(name)], [tmp_path / "images" / name], tmp_path, "Scores")
    assert found["link"] == ["./images/javascript%3Aalert%281%29%22%3Cb%3E%3F%23%25"]


def test_foreign_text_cannot_leave_its_block() -> None:
    block = to_block({HOSTILE: HOSTILE, "lone": "\udce9"})
    assert not re.search("[<>&\u2028]", block)
    assert json.loads(block) == {HOSTILE: HOSTILE, "lone": "\udce9"}
    assert block.encode()


def test_the_texts_that_csv_marks_are_those_of_the_table() -> None:
    rows = [row("=cmd()", 2.0, prompt="1984"), row("a,b.png", prompt="'+1"), row("c.png", prompt="a fox")]
    assert report_data(rows, [None] * 3, Path(), "Scores")["marked"] == ["'+1", "1984", "=cmd()"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    rows = [row(HOSTILE, 2.0, 3.0, prompt=HOSTILE, generator=HOSTILE, other=HOSTILE)]
    write_report(
        [*rows, row("b\udce9", status="error", reason=HOSTILE)], tmp_path / "r.html", options=ReportOptions(HOSTILE)
    )
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>hacked" not in page
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 3  # data, the page's own, one block of thumbnails
    assert data_of(page)["file"] == [HOSTILE, "b\udce9"]


def test_only_its_own_script_may_run_and_nothing_be_fetched(tmp_path: Path) -> None:
    write_report(ROWS, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    script, style = (
        re.search(r"<script>(.*?)</script>", page, re.DOTALL),
        re.search(r"<style>(.*?)</style>", page, re.DOTALL),
    )
    if policy is None or script is None or style is None:
        raise AssertionError("a part is missing")
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, part in (("script-src", script), ("style-src", style)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode()}'"
    assert not re.search(r"https?://|\bfetch\(|innerHTML|insertAdjacentHTML|document\.write|\beval\(", page)


def thumbnails_of(page: str) -> list[str]:
    places = data_of(page)["thumbnail"]
    lines = [line for block in re.findall(r'id="t\d+">(.*?)</script>', page, re.DOTALL) for line in block.split("\n")]
    return [lines[place] for place in places]


def test_each_row_has_its_own_thumbnail(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{i}.png")
    rows = [row(f"{i}.png", float(quality)) for i, quality in enumerate((2, 3, 1))]
    written = write_report([*rows, row("gone.png", 2.5)], tmp_path / "r.html", folders=[tmp_path])
    images = thumbnails_of((tmp_path / "r.html").read_text(encoding="utf-8"))
    for image, colour in zip(images, colours, strict=False):
        with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
            assert opened.size == (40, 30)  # never larger than it was
            pixel = opened.convert("RGB").getpixel((20, 15))
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 30
    assert images[3] == ""
    assert [(left.row["file"], left.why) for left in written.left_out] == [("gone.png", "its image is not found")]


def test_thumbnails_shrink_to_the_budget(images: list[Path]) -> None:
    large = make_thumbnails(images, 10_000_000)
    small = make_thumbnails(images, 12_000)
    assert (large.side, large.reasons) == (THUMBNAIL_SIZES[0][0], [""] * 6)
    assert sum(map(len, small.images)) <= 12_000 < sum(map(len, large.images))
    assert small.side < large.side
    assert all(small.images)


def test_what_has_no_room_says_so(images: list[Path]) -> None:
    found = make_thumbnails(images, 2000)
    assert sum(map(len, found.images)) <= 2000
    assert set(found.reasons) - {""} == {"the page has no room for its image"}


def test_a_sample_that_misleads_does_not_break_the_budget(tmp_path: Path) -> None:
    # Every image that the sample looks at is plain; most of the others are noise.
    paths = []
    for i in range(240):
        path = tmp_path / f"{i}.png"
        (Image.new("L", (64, 64)) if i % 5 == 0 else Image.effect_noise((64, 64), 90)).save(path)
        paths.append(path)
    found = make_thumbnails(paths, 200_000)
    assert sum(map(len, found.images)) <= 200_000


def test_a_page_keeps_its_limit(tmp_path: Path, images: list[Path]) -> None:
    rows = [row(path.name, float(i)) for i, path in enumerate(images)]
    limit = 120_000
    written = write_report(rows, tmp_path / "r.html", folders=[tmp_path], options=ReportOptions(limit=limit))
    assert written.size == (tmp_path / "r.html").stat().st_size <= limit
    assert all(thumbnails_of((tmp_path / "r.html").read_text(encoding="utf-8")))


def test_a_limit_below_the_table_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Expected a page of at most 0.001 MB, but the table alone is larger"):
        Page(facts_of(ROWS), 1000)


def test_the_first_view_has_the_first_thumbnails() -> None:
    page = Page(facts_of(ROWS), 10**6)
    assert page.image_order == [2, 1, 0, 3]  # best, then worst, then the failed row


def test_an_older_report_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("older")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UsageError, match=r"Expected to write the report to .*No space left"):
        write_report(ROWS, path)
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("sd_1.png")
    Path("scores.csv").write_text(
        "file,prompt,quality,correspondence,status,reason\nsd_1.png,a,1.5,2,ok,\ngone.png,a,2,2,ok,\n"
    )
    result = CliRunner().invoke(cli.group, ["report", "scores.csv", "--generator-from", "name"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(r"Wrote report\.html: 2 rows, \d\d kB, thumbnails up to 512 pixels\.", result.stderr)
    assert "1 x its image is not found ('gone.png')" in result.stderr
    data = data_of(Path("report.html").read_text(encoding="utf-8"))
    assert (data["title"], data["generator"]["names"]) == ("scores", ["sd"])
    result = CliRunner().invoke(cli.group, ["report", "scores.csv", "--no-images", "--by", "status"])
    assert (result.exit_code, result.stderr.count("which replaces an older file")) == (0, 1)
    assert [one["column"] for one in data_of(Path("report.html").read_text(encoding="utf-8"))["by"]] == ["status"]
    result = CliRunner().invoke(cli.group, ["report", "scores.csv", "--by", "steps"])
    assert "Expected a column 'steps' in the table" in result.stderr


def test_the_folder_of_the_page_is_made_before_images_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text("file,quality\na.png,3\n")
    asked = ["report", "scores.csv", "--no-images", "-o"]
    result = CliRunner().invoke(cli.group, [*asked, "new/folder/page.html"])
    assert (result.exit_code, Path("new/folder/page.html").is_file()) == (0, True)
    monkeypatch.setattr("mst_clipiqa.cli.commands.report.read_source", None)  # which would score a folder
    refused = CliRunner().invoke(cli.group, [*asked, "scores.csv/page.html"])
    assert refused.exit_code == 2
    assert "Expected to write the report to 'scores.csv/page.html', but: " in refused.stderr
