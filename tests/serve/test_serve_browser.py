"""The page in Chromium, by the path of a person: each tab, bad and huge files, and the keyboard alone."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mst_clipiqa.serve.settings import Limits, Settings
from mst_clipiqa.tables.reading import read_table
from tests.serving import png, running, toy_scorer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
TOKEN = "correct-horse-battery"
HOSTILE = "<img src=x onerror=hacked=1>.png"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png(i, i / 6))
    (folder / HOSTILE).write_bytes(png(9))
    (folder / "bad.png").write_bytes(b"%PDF-1.4")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(200 * 2**20)
    (folder / "prompts.csv").write_text('file,prompt\n0.png,"a fox, red"\nsub/1.png,a car\n', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(toy_scorer(), Settings(port=0, limits=Limits(max_bytes=2**20))) as where:
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that may neither complain, nor ask another server, nor be hacked."""
    yield from opened(browser, address)


def opened(browser: Browser, address: str, **setup: Any) -> Iterator[Page]:
    context = browser.new_context(**setup)
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: complaints.append(asked.url) if not asked.url.startswith((address, "blob:", "data:")) else None,
    )
    page.goto(address)
    page.locator("#model", has_text="Model").wait_for()
    yield page
    assert page.evaluate("typeof hacked") == "undefined"
    context.close()
    # The browser itself notes each answer of 4xx or 503; whether the page copes is what the tests look at.
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []


def choose(page: Page, zone: str, *files: Path) -> None:
    page.set_input_files(f"{zone} input[type=file]", [str(file) for file in files])


def status(page: Page, tab: str, text: str) -> None:
    page.locator(f"#{tab} .status", has_text=text).wait_for()


def test_scoring_a_few(page: Page, home: Path) -> None:
    choose(page, "#score", home / "0.png", home / HOSTILE)
    choose(page, "#score", home / "bad.png", home / "huge.png")
    page.get_by_role("button", name="Remove 0.png").click()
    page.get_by_label("Prompt for the images").fill("a red fox")
    page.get_by_role("button", name="Score", exact=True).click()
    status(page, "score", "1 image scored, 2 could not be")
    cards = page.locator("#score .card")
    assert [one.inner_text() for one in cards.locator("h2").all()] == [HOSTILE, "bad.png", "huge.png"]
    first = cards.nth(0).inner_text()
    assert [text in first for text in ("Quality", "(0 to 5)", "90 % interval of", "Correspondence")] == [True] * 4
    assert cards.nth(0).locator(".quality .fill").first.evaluate("bar => bar.offsetWidth") > 0
    assert cards.nth(0).locator(".clamp").get_attribute("title") == "a red fox"
    assert "Not scored: expected an image (PNG" in cards.nth(1).inner_text()
    assert "expected at most 1.0 MB, got 200.0 MB" in cards.nth(2).inner_text()


def test_comparing_two(page: Page, home: Path) -> None:
    page.get_by_role("tab", name="Compare two").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    status(page, "compare", "Choose image A first.")
    choose(page, "#drop-a", home / "0.png")
    choose(page, "#drop-b", home / "bad.png")
    page.get_by_role("button", name="Compare", exact=True).click()
    status(page, "compare", "Not compared. Expected two images, but image B cannot be scored: expected an image (PNG")
    choose(page, "#drop-b", home / "5.png")
    page.get_by_label("Prompt for both").fill("a red fox")
    page.get_by_role("button", name="Compare", exact=True).click()
    status(page, "compare", "Quality:")
    status(page, "compare", "Correspondence:")
    assert [one.inner_text() for one in page.locator("#compare h2").all()] == ["A: 0.png", "B: 5.png"]


def test_a_gallery_is_sorted_and_taken_away(page: Page, home: Path, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Gallery").click()
    names = [f"{i}.png" for i in range(6)]
    choose(page, "#gallery", *[home / name for name in names], home / "bad.png", home / HOSTILE, home / "prompts.csv")
    status(page, "gallery", "8 images and 2 prompts chosen.")
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", "7 images scored, 1 could not be.")
    assert page.locator("#progress").evaluate("bar => bar.value") == 8
    page.get_by_label("Sort by").select_option("file")
    shown = page.locator("#gallery .card h3").all_text_contents()
    assert sorted(shown) == sorted([*names, "bad.png", HOSTILE])
    assert [name for name in shown if name in names] == names
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "scores.csv")
    rows = {row["file"]: row for row in read_table(tmp_path / "scores.csv")}
    assert (rows["0.png"]["prompt"], rows["1.png"]["prompt"], rows["2.png"]["prompt"]) == ("a fox, red", "a car", None)
    assert rows["bad.png"]["status"] == "error"
    page.get_by_label("Sort by").select_option("quality")
    best = [rows[name]["quality"] for name in page.locator("#gallery .card h3").all_text_contents()]
    assert best[-1] is None
    assert best[:-1] == sorted(best[:-1], key=lambda value: -float(value or 0))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report").click()
    download.value.save_as(tmp_path / "report.html")
    report = page.context.new_page()
    report.goto((tmp_path / "report.html").as_uri())
    report.wait_for_selector("#strips .card img")
    assert report.evaluate("typeof hacked") == "undefined"
    report.close()


def test_stopping_a_gallery(page: Page, home: Path) -> None:
    page.route("**/v1/score", lambda route: None)  # a server that does not answer
    page.get_by_role("tab", name="Gallery").click()
    choose(page, "#gallery", home / "0.png")
    page.get_by_role("button", name="Score all").click()
    page.get_by_role("button", name="Stop").click()
    status(page, "gallery", "Stopped. 0 images scored")
    assert page.get_by_role("button", name="Score all").is_enabled()


def test_a_busy_server_is_asked_again(page: Page, home: Path) -> None:
    asked: list[str] = []

    def busy_once(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) > 1:
            route.continue_()
        else:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "Expected room."})

    page.route("**/v1/score", busy_once)
    choose(page, "#score", home / "0.png")
    page.get_by_role("button", name="Score", exact=True).click()
    status(page, "score", "1 image scored")
    assert len(asked) == 2


def _chosen_by_enter(page: Page) -> Any:
    """Press Enter until a file dialogue opens; Chromium drops a key now and then while it is still painting."""
    from playwright.sync_api import TimeoutError as Late

    for _ in range(8):
        try:
            with page.expect_file_chooser(timeout=3000) as chooser:
                page.keyboard.press("Enter")
            return chooser
        except Late:
            continue
    raise AssertionError("no file dialogue opened")


def test_by_keyboard_alone(page: Page, home: Path) -> None:
    press = page.keyboard.press
    press("Tab")  # the link that skips the head
    press("Tab")
    press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-compare"
    press("End")
    assert page.locator("#gallery").is_visible()
    press("Home")
    assert page.locator("#score").is_visible() and page.locator("#gallery").is_hidden()
    press("Tab")
    page.locator(":is(button, input, label, [tabindex]):focus").wait_for()
    chooser = _chosen_by_enter(page)
    chooser.value.set_files(str(home / "1.png"))
    press("Tab")  # the button that takes it out
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove 1.png"
    press("Enter")
    assert page.evaluate("document.activeElement.type") == "file"
    choose(page, "#score", home / "1.png")
    press("Tab")
    press("Tab")
    page.keyboard.type("a red fox")
    press("Enter")
    status(page, "score", "1 image scored")
    press("Tab")
    # The button is disabled until the image is scored again. It keeps the focus until the next frame, loses it and gets
    # it back at the end: only what is seen after the end says that it was given back.
    with page.expect_response(lambda response: response.request.method == "POST"):
        press("Enter")
    status(page, "score", "1 image scored")
    page.locator("button:focus:enabled:text-is('Score')").wait_for()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"


def test_a_phone_in_the_dark_sees_it_all(browser: Browser, address: str, home: Path) -> None:
    setup = {"viewport": {"width": 360, "height": 640}, "is_mobile": True, "color_scheme": "dark"}
    for page in opened(browser, address, **setup):
        choose(page, "#score", home / "0.png")
        page.get_by_role("button", name="Score", exact=True).click()
        status(page, "score", "1 image scored")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const clipboard = new DataTransfer();
  clipboard.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
  window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard }));
}"""


def test_a_pasted_image_is_scored(page: Page) -> None:
    page.evaluate(PASTE, base64.b64encode(png(3)).decode())
    page.locator("#score li", has_text="pasted.png").wait_for()
    page.get_by_role("button", name="Score", exact=True).click()
    status(page, "score", "1 image scored")


def test_a_phone_shows_several_cards_of_a_gallery(browser: Browser, address: str, home: Path) -> None:
    for page in opened(browser, address, viewport={"width": 360, "height": 640}, is_mobile=True):
        page.get_by_role("tab", name="Gallery").click()
        choose(page, "#gallery", *[home / f"{i}.png" for i in range(4)])
        page.get_by_role("button", name="Score all").click()
        status(page, "gallery", "4 images scored")
        heights = page.eval_on_selector_all("#gallery .card", "cards => cards.map((card) => card.offsetHeight)")
        assert len(heights) == 4
        assert 0 < max(heights) < 200
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_token_is_asked_for(browser: Browser, home: Path) -> None:
    with running(toy_scorer(), Settings(port=0, token=TOKEN)) as where:
        page = browser.new_page()
        page.goto(where)
        page.get_by_label("This server needs a token").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        page.wait_for_selector("text=That is not this server's token")
        page.get_by_label("This server needs a token").fill(TOKEN)
        page.get_by_role("button", name="Enter").click()
        page.wait_for_selector("text=Model toy")
        choose(page, "#score", home / "0.png")
        page.get_by_role("button", name="Score", exact=True).click()
        status(page, "score", "1 image scored")
        page.reload()
        page.wait_for_selector("text=Model toy")
        page.close()


def test_the_documentation_needs_no_other_server(browser: Browser, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{address}/docs")
    page.wait_for_selector("text=Score one image or many.")
    assert complaints == []
    assert all(url.startswith((address, "data:")) for url in asked)
    page.close()


def test_a_wide_page_is_aligned_and_a_prompt_runs_in_its_direction(browser: Browser, address: str, home: Path) -> None:
    for page in opened(browser, address, viewport={"width": 1600, "height": 900}):
        left = "node => node.getBoundingClientRect().left + parseFloat(getComputedStyle(node).paddingLeft)"
        assert abs(page.locator("header").evaluate(left) - page.locator("main").evaluate(left)) < 1
        page.fill("#score-prompt", "قطة حمراء")
        assert page.locator("#score-prompt").evaluate("node => getComputedStyle(node).direction") == "rtl"
        choose(page, "#score", home / "0.png")
        page.get_by_role("button", name="Score", exact=True).click()
        status(page, "score", "1 image scored")
        assert page.inner_text("#score .card bdi") == "قطة حمراء"
