"""The report as a person uses it, in Chromium: mouse, keyboard, phone, dark; no request, no error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from mst_clipiqa.report import ExplainOptions, ReportOptions, write_report
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.reading import read_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
HOSTILE = "</script><img src=x onerror=hacked=1>"
COUNT = 3000


def rows() -> list[dict[str, Any]]:
    """Row i: quality i / 1000, a generator and a prompt of 10; the last three rows failed."""
    made: list[dict[str, Any]] = []
    for i in range(COUNT):
        failed = i >= COUNT - 3
        scores = {"quality": None if failed else i / 1000, "correspondence": None if failed else (i % 50) / 10}
        words = {"prompt": f"prompt {i % 10}", "generator": "mj" if i % 3 else "sd"}
        state = {"status": "error", "reason": HOSTILE} if failed else {"status": "ok", "reason": None}
        made.append({"file": f"p{i:04}.png", **words, **scores, "gate": 0.25, **state, "note": HOSTILE})
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    Image.new("RGB", (32, 32), (200, 30, 30)).save(folder / "p2996.png")
    write_report(rows(), folder / "report.html", folders=[folder], options=ReportOptions(HOSTILE))
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that has the report open and must not complain, ask for anything, or be hacked."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **getattr(request, "param", {})})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith("data:") else None)
    opened.goto(path.as_uri())
    opened.wait_for_selector("#strips .card img")
    yield opened
    assert opened.evaluate("typeof hacked") == "undefined"
    assert complaints == [path.as_uri()]
    context.close()


def files(page: Page, count: int = 3) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#gallery .card", "cards => cards.map(card => card.title)")
    return found[:count]


def shown(page: Page) -> str:
    return page.inner_text("#count")


def wait_for(page: Page, place: str, words: str) -> None:
    """Wait until a place says some words; the page's policy forbids to run a condition given as text."""
    from playwright.sync_api import expect

    expect(page.locator(place)).to_contain_text(words)


def test_the_saved_list_reads_as_a_table(browser: Browser, tmp_path: Path) -> None:
    texts = ["=cmd()", 'a "b", c.png', "1984", "d.png"]
    write_report([{"file": text, "prompt": text, "quality": 2.5} for text in texts], tmp_path / "r.html")
    page = browser.new_page()
    page.goto(f"{(tmp_path / 'r.html').as_uri()}#/images")
    page.evaluate("document.getElementById('filter-box').open = true")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save list (CSV)").click()
    download.value.save_as(tmp_path / "list.csv")
    page.close()
    found = read_table(tmp_path / "list.csv")
    assert {(one["file"], one["prompt"], one["quality"]) for one in found} == {(text, text, 2.5) for text in texts}


def test_unfamiliar_images_are_marked_counted_and_found(browser: Browser, tmp_path: Path) -> None:
    rows = [
        {"file": f"{name}.png", "quality": 2.5, "familiarity": value}
        for name, value in zip("abc", (0.5, 0.04, 0.01), strict=True)
    ]
    write_report([*rows, {"file": "d.png", "quality": 2.5, "generator": "g"}], tmp_path / "r.html")
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    assert "2 of 3\nunlike the training images" in page.inner_text("#tiles")
    page.click("#tab-images")
    page.select_option("[name=sort]", "familiarity-up")
    wait_for(page, "#gallery .card >> nth=0", "c.png")
    assert files(page, 4) == ["c.png", "b.png", "a.png", "d.png"]
    page.select_option("[name=status]", "unfamiliar")
    wait_for(page, "#count", "2 of 4 images")
    assert page.inner_text("#gallery .card .mark >> nth=0") == "unfamiliar"
    page.click("#gallery .card >> nth=0")
    assert "0.01 (unlike the training images, so its scores are less certain)" in page.inner_text("#viewer-facts")
    page.close()


def test_long_prompts_and_reasons_leave_room_for_the_rest(browser: Browser, tmp_path: Path) -> None:
    prompt, why = "a red ball, " * 200, "Expected an image, got a web page: save or download it again."
    rows: list[dict[str, Any]] = [{"file": "d/a.png", "quality": 2.5, "prompt": prompt, "familiarity": 0.5}]
    rows.append({"file": "d/b.png", "prompt": prompt, "status": "error", "reason": why})
    write_report(rows, tmp_path / "r.html", options=ReportOptions("Long"))
    page = browser.new_page(viewport={"width": 320, "height": 700})
    page.goto((tmp_path / "r.html").as_uri())
    assert page.inner_text("#summary") == "2 images in d/, 1 of them failed"
    assert "\n0 of 1\nunlike" in page.inner_text("#tiles")
    page.click("#tab-prompts")
    cell = page.locator("#prompts .clamp")
    assert cell.get_attribute("title") == prompt.strip()
    assert cell.evaluate("cell => cell.clientHeight < cell.scrollHeight && cell.clientHeight < 120")
    assert page.locator("#prompts caption span").evaluate("span => span.getBoundingClientRect().right <= innerWidth")
    page.click("#tab-failed")
    assert page.locator("#failed td >> nth=1").evaluate("cell => cell.clientWidth >= 140")
    page.close()


def test_the_overview_leads_to_images(page: Page) -> None:
    assert page.inner_text("h1") == HOSTILE
    assert "3,000 images, 3 of them failed" in page.inner_text("#summary")
    page.click(".chart.quality .bars button >> nth=0")
    wait_for(page, "#count", "200 of")  # 0 to 0.2
    assert page.get_attribute("#tab-images", "aria-selected") == "true"


def test_sort_search_and_filter(page: Page) -> None:
    page.click("#tab-images")
    assert shown(page) == "3,000 of 3,000 images shown. Order: Quality, best first."
    assert files(page) == ["p2996.png", "p2995.png", "p2994.png"]
    assert page.locator("#gallery .card").count() < 100
    page.select_option("[name=sort]", "quality-up")
    wait_for(page, "#gallery .card >> nth=0", "p0000.png")
    page.fill("[name=quality-low]", "2.5")
    wait_for(page, "#count", "497 of")
    page.select_option("select[name=generator]", label="sd")
    wait_for(page, "#count", "165 of")  # 2502, ..., 2994
    page.fill("[name=search]", "p291 prompt")
    wait_for(page, "#count", "4 of")  # 2910, 2913, 2916, 2919
    assert files(page) == ["p2910.png", "p2913.png", "p2916.png"]
    page.click("[type=reset]")
    page.select_option("[name=status]", "error")
    wait_for(page, "#count", "3 of")
    assert HOSTILE in page.inner_text("#gallery .card >> nth=0")


def test_only_what_is_on_screen_exists(page: Page) -> None:
    page.click("#tab-images")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    wait_for(page, "#gallery .card >> nth=-1", "p2999.png")
    assert page.locator("#gallery .card").count() < 100
    assert page.get_attribute("#gallery [role=listitem] >> nth=-1", "aria-posinset") == "3000"


def test_an_image_opens_by_mouse(page: Page) -> None:
    page.click("#tab-images")
    page.click("#gallery .card >> nth=0")
    facts = page.inner_text("#viewer-facts")
    assert [word in facts for word in ("p2996.png", "3.00", "coarse stream 25 %, fine stream 75 %")] == [True] * 3
    assert HOSTILE in facts
    assert page.locator("#viewer-image img").count() == 1
    page.click("#viewer-next")
    assert page.inner_text("#viewer-name") == "p2995.png"
    page.click("#viewer-close")
    assert not page.is_visible("#viewer")


def test_everything_by_keyboard(page: Page) -> None:
    page.focus("#tab-overview")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-images"
    page.focus("#gallery .card[tabindex='0']")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "End"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.title") == "p2999.png"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-name") == "p2996.png"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-name") == "p2995.png"
    page.focus("#viewer-previous")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")  # at the first image the button keeps the focus, so the arrow keys still work
    assert page.inner_text("#viewer-name") == "p2995.png"
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    page.locator("[title='p2995.png']:focus").wait_for()  # the browser says later that it closed
    assert page.locator("#gallery .card[tabindex='0']").count() == 1


def test_rows_of_buttons_are_one_stop_each(page: Page) -> None:
    for row in (".chart.quality .bars", "#strips .strip >> nth=0"):
        stops = page.locator(f"{row} >> button[tabindex='0']")
        assert stops.count() == 1
        stops.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        assert stops.count() == 1
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-name") == "p2995.png"
    page.keyboard.press("Escape")
    page.locator("[title='p2995.png']:focus").wait_for()  # the browser says later that it closed


def test_tables_sort_and_lead_to_images(page: Page) -> None:
    page.click("#tab-generators")
    first = "#generators tbody tr >> nth=0"
    head = "#generators th:has-text('Images')"
    assert page.inner_text(f"{first} >> td >> nth=0") == "mj"
    page.click(f"{head} >> button")
    page.click(f"{head} >> button")
    assert (page.get_attribute(head, "aria-sort"), page.inner_text(f"{first} >> td >> nth=0")) == ("ascending", "sd")
    page.click(f"{first} >> button")
    assert shown(page).startswith("1,000 of 3,000")
    page.click("#tab-failed")
    assert page.locator("#failed tbody tr").count() == 3
    assert HOSTILE in page.inner_text("#failed tbody")


def test_groups_of_a_column_have_a_table(browser: Browser, tmp_path: Path) -> None:
    table = [{"file": f"{i}.png", "quality": 1.0 + i % 2, "steps": "50" if i % 2 else "20"} for i in range(6)]
    write_report(table, tmp_path / "r.html", options=ReportOptions("Steps", by=("steps",)))
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    assert page.inner_text("#tab-generators") == "Groups"
    page.click("#tab-generators")
    lines = [line.split() for line in page.locator("#generators tbody tr").all_inner_texts()]
    assert sorted((line[0], line[1], line[-1]) for line in lines) == [("20", "1.00", "3"), ("50", "2.00", "3")]
    assert "steps" in page.inner_text("#generators").lower()
    page.close()


PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_phone_in_the_dark(page: Page) -> None:
    for tab in ("overview", "images", "generators", "prompts", "failed"):
        page.tap(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.tap("#tab-images")
    page.tap("#gallery .card >> nth=0")
    assert page.is_visible("#viewer")


@pytest.mark.usefixtures("few_windows")
def test_an_image_opens_with_its_explanation(browser: Browser, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.effect_noise((64, 48), 60).convert("RGB").save(image)
    scorer = Scorer.load("mini")
    table: list[dict[str, Any]] = [
        to_row("a.png", HOSTILE, scorer(image, HOSTILE), intervals=True),
        {"file": "b.png", "quality": 1.0},
    ]
    folder, why = [tmp_path], ExplainOptions(scorer, 1)
    write_report(table, tmp_path / "r.html", folders=folder, options=ReportOptions("One"), explain=why)
    page = browser.new_page()
    page.goto(f"{(tmp_path / 'r.html').as_uri()}#/images")
    card = page.locator("#gallery .card[title='a.png']")
    assert page.get_by_role("button", name=re.compile("explained.*a.png")).and_(card).count() == 1
    card.click()
    said = page.inner_text("#viewer-facts")
    for words in (
        "Both: most quality is lost",
        "Probability of each quality level",
        "of the result comes from the coarse",
    ):
        assert words in said
    assert page.locator(".levels li").count() == 5
    assert "Both: most quality is lost" in str(page.get_attribute(".maps img >> nth=0", "alt"))
    first = page.locator(".maps button >> nth=0")
    first.focus()
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-pressed") == "true"
    assert "most quality" in str(page.get_attribute("#viewer-image img", "alt"))
    page.keyboard.press("Enter")
    assert page.get_attribute("#viewer-image img", "alt") == HOSTILE
    page.click("#viewer-next" if page.is_enabled("#viewer-next") else "#viewer-previous")
    assert page.locator(".maps").count() == 0
    assert "mst-clipiqa explain" in page.inner_text("#viewer-facts")
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


def test_the_benchmark_of_the_page_measures_it(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    from speed.page import draw, measure

    draw(30, tmp_path / "drawn.html")
    found = measure(browser, tmp_path / "drawn.html", 1)
    assert (found["rows"], found["errors"], found["requests"]) == (30, 0, 0)
    assert found["first_paint_s"] > 0  # a busy machine may paint after it has decoded
    assert found["images_s"] > 0 and found["images_in_view"] > 5
    loud = tmp_path / "loud.html"
    text = (tmp_path / "drawn.html").read_text(encoding="utf-8")
    loud.write_text(text.replace("<body>", '<body><img src="http://127.0.0.1:9/x.png">'), encoding="utf-8")
    found = measure(browser, loud, 1)
    assert found["errors"] > 0  # its policy forbids the image
