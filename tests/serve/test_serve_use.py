"""The page when things go wrong or slowly: a server that stops, a late token, files that change, focus and Back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mst_clipiqa.serve.settings import Settings
from tests.serve.test_serve_browser import CHROMIUM, TOKEN, browser, choose, status
from tests.serving import png, running, toy_scorer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(toy_scorer(), Settings(port=0)) as where:
        yield where


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, once it knows the server."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    page.goto(address)
    page.locator("#model", has_text="Model").wait_for()
    yield page
    page.close()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i, i / 6))
    return [tmp_path / f"{i}.png" for i in range(4)]


def score(page: Page) -> None:
    page.get_by_role("button", name="Score", exact=True).click()


def held(page: Page, path: str, count: int = 1) -> Callable[[], None]:
    """Hold back the n-th request to a path until what is returned is called."""
    seen: list[Any] = []

    def wait(route: Any) -> None:
        seen.append(route)
        if len(seen) != count:
            route.continue_()

    page.route(path, wait)
    return lambda: seen[count - 1].continue_()


def test_scoring_before_the_token_says_so_and_works_after_it(browser: Browser, images: list[Path]) -> None:
    with running(toy_scorer(), Settings(port=0, token=TOKEN)) as where:
        page = browser.new_page()
        page.goto(f"{where}/#/gallery")
        page.get_by_label("This server needs a token").wait_for()
        page.get_by_role("tab", name="Score").click()
        choose(page, "#score", images[0])
        score(page)
        status(page, "score", "0 images scored, 1 could not be")
        assert "token" in page.inner_text("#score .card .bad")
        assert page.is_hidden("#trouble")
        page.get_by_role("tab", name="Gallery").click()
        page.get_by_label("This server needs a token").fill(TOKEN)
        page.get_by_role("button", name="Enter").click()
        page.locator("#tab-gallery:focus").wait_for()
        page.get_by_role("tab", name="Score").click()
        score(page)
        status(page, "score", "1 image scored.")
        page.close()


def test_images_without_an_answer_are_tried_again(page: Page, images: list[Path]) -> None:
    page.get_by_role("tab", name="Gallery").click()
    choose(page, "#gallery", *images)
    page.route("**/v1/score", lambda route: route.abort())  # as if the server had stopped
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", '0 images scored, 4 could not be. 4 images got no answer: "Score all" tries again.')
    page.unroute("**/v1/score")
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", "4 images scored.")
    assert page.locator("#gallery .card").count() == 4
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", "No image is left to score: choose more.")


def test_a_file_that_changed_is_not_blamed_on_the_server(page: Page, images: list[Path]) -> None:
    choose(page, "#score", images[0])
    images[0].write_bytes(png(3, size=128))
    score(page)
    page.locator("#score .card", has_text="got a folder, or a file that has changed since: choose it again").wait_for()


def test_an_answer_that_is_cut_off_is_a_server_that_cannot_be_reached(page: Page, images: list[Path]) -> None:
    cut = """() => {
        const whole = window.fetch;
        const stream = () => new ReadableStream({ start: (end) => end.error(new TypeError("network error")) });
        window.fetch = async (path, ...rest) =>
            path === "/v1/score" ? new Response(stream()) : whole(path, ...rest);
    }"""
    page.evaluate(cut)
    choose(page, "#score", images[0])
    score(page)
    page.locator("#score .card", has_text="the server cannot be reached").wait_for()


def test_an_explanation_does_not_take_the_focus_from_a_person_who_types(page: Page, images: list[Path]) -> None:
    choose(page, "#score", images[0])
    score(page)
    status(page, "score", "1 image scored")
    let_go = held(page, "**/v1/explain")
    page.get_by_role("button", name="Why did").click()
    assert page.get_by_role("button", name="Explaining … 0.png").is_disabled()
    page.focus("#score-prompt")
    let_go()
    page.locator(".why").wait_for()
    assert page.evaluate("document.activeElement.id") == "score-prompt"


def test_a_further_result_leaves_the_focus_where_it_is(page: Page, images: list[Path]) -> None:
    let_go = held(page, "**/v1/score", 2)
    choose(page, "#score", *images[:2])
    score(page)
    page.get_by_role("button", name="Why did").focus()
    let_go()
    status(page, "score", "2 images scored")
    assert page.evaluate("document.activeElement.textContent") == "Why?"


def test_back_leads_to_the_tab_before_and_alt_is_the_browsers(page: Page) -> None:
    page.get_by_role("tab", name="Gallery").click()
    page.go_back()
    page.locator("#score").wait_for()
    assert page.is_hidden("#gallery")
    kept = """(tab, altKey) => tab.dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowLeft", altKey, bubbles: true, cancelable: true }))"""
    page.focus("#tab-score")
    assert page.locator("#tab-score").evaluate(kept, True) is True
    assert page.locator("#tab-score").evaluate(kept, False) is False


def test_forced_colours_show_which_tab_is_selected(browser: Browser, address: str) -> None:
    page = browser.new_page(forced_colors="active")
    page.goto(address)
    edge = "node => getComputedStyle(node).borderBottomColor"
    assert page.locator("#tab-score").evaluate(edge) != page.locator("#tab-gallery").evaluate(edge)
    page.close()


def test_a_list_of_prompts_that_cannot_be_read_adds_nothing(page: Page, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    page.get_by_role("tab", name="Gallery").click()
    choose(page, "#gallery", images[0], tmp_path / "p.csv")
    status(page, "gallery", "Expected the columns file and prompt in p.csv, got a, b. No file was added.")


GIVE = """(zone, [kind, ...names]) => {
  const dropped = new DataTransfer();
  for (const name of names) dropped.items.add(new File([name], name, { type: "image/png" }));
  const further = { dataTransfer: dropped, clipboardData: dropped, bubbles: true, cancelable: true };
  zone.dispatchEvent(kind === "drop" ? new DragEvent(kind, further) : new ClipboardEvent(kind, further));
}"""


@pytest.mark.parametrize("zone", ["#drop-a", "#drop-b"])
def test_two_images_given_at_once_are_a_and_b(page: Page, images: list[Path], zone: str) -> None:
    page.get_by_role("tab", name="Compare two").click()
    sides = page.locator("#compare .chosen")
    for kind in ("drop", "paste"):
        page.locator(zone).evaluate(GIVE, [kind, f"{kind}-1.png", f"{kind}-2.png"])
        assert [side.inner_text().split("\n")[0] for side in sides.all()] == [f"{kind}-1.png", f"{kind}-2.png"]
    choose(page, zone, *images[:2])
    assert [side.inner_text().split("\n")[0] for side in sides.all()] == ["0.png", "1.png"]
    assert page.inner_text("#compare .status") == ""
    choose(page, zone, *images[1:])
    status(page, "compare", "Only two images can be compared at a time: the first two of 3 were taken.")
    assert [side.inner_text().split("\n")[0] for side in sides.all()] == ["1.png", "2.png"]
    page.get_by_role("button", name="Compare", exact=True).click()
    status(page, "compare", "Quality:")
    assert page.locator("#compare h2").all_inner_texts() == ["A: 1.png", "B: 2.png"]


def test_a_verdict_is_on_the_images_that_were_sent(page: Page, images: list[Path]) -> None:
    page.get_by_role("tab", name="Compare two").click()
    choose(page, "#drop-a", images[0])
    choose(page, "#drop-b", images[1])
    let_go = held(page, "**/v1/compare")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Remove 0.png").click()
    let_go()
    status(page, "compare", "Quality:")
    assert page.locator("#compare .card img").count() == 2
    choose(page, "#drop-a", images[2])
    assert page.inner_text("#compare .status") == ""
    assert page.locator("#compare .card").count() == 0


def test_a_server_that_was_not_reached_is_tried_again(browser: Browser, address: str, images: list[Path]) -> None:
    page = browser.new_page()
    page.route("**/v1/info", lambda route: route.abort())  # as if the server had stopped
    page.goto(address)
    page.locator("#trouble", has_text="the server cannot be reached").wait_for()
    choose(page, "#score", images[0])
    page.unroute("**/v1/info")
    page.locator("#trouble").wait_for(state="hidden")
    page.locator("#model", has_text="Model toy").wait_for()
    score(page)
    status(page, "score", "1 image scored.")
    page.close()


def test_a_request_that_succeeds_takes_the_banner_away(browser: Browser, address: str, images: list[Path]) -> None:
    page = browser.new_page()
    page.clock.install()
    page.route("**/v1/info", lambda route: route.abort())
    page.goto(address)
    page.locator("#trouble", has_text="the server cannot be reached").wait_for()
    page.clock.pause_at(page.evaluate("Date.now() + 1"))  # so that the page does not try by itself
    page.unroute("**/v1/info")
    choose(page, "#score", images[0])
    score(page)
    status(page, "score", "1 image scored.")
    assert page.is_hidden("#trouble")
    assert "Model toy" in page.inner_text("#model")
    page.close()


def enter(page: Page, token: str) -> None:
    page.get_by_label("This server needs a token").fill(token)
    page.get_by_role("button", name="Enter").click()


def refuse(page: Page) -> None:
    """Answer as after a restart with another token."""
    page.route("**/v1/*", lambda route: route.fulfill(status=401, json={"error": "Expected a token."}))


def accept(page: Page) -> None:
    """Answer as before; enter the token when it is asked for in mid-use."""
    page.locator("#trouble", has_text="The server no longer accepts the token you entered").wait_for()
    page.locator("#token:focus").wait_for()
    assert page.input_value("#token") == ""
    enter(page, "wrong-" + TOKEN)
    page.locator("#trouble", has_text="That is not this server's token").wait_for()
    page.unroute("**/v1/*")
    enter(page, TOKEN)
    page.locator("#entry").wait_for(state="hidden")
    assert page.is_hidden("#trouble")


def test_a_token_refused_in_use_is_asked_for_and_nothing_is_lost(browser: Browser, images: list[Path]) -> None:
    with running(toy_scorer(), Settings(port=0, token=TOKEN)) as where:
        page = browser.new_page()
        page.goto(where)
        enter(page, TOKEN)
        page.locator("#model", has_text="Model toy").wait_for()
        choose(page, "#score", *images[:2])
        refuse(page)
        score(page)
        status(page, "score", "0 images scored, 2 could not be.")
        accept(page)
        score(page)
        status(page, "score", "2 images scored.")
        refuse(page)
        page.get_by_role("button", name="Why did 0.png").click()
        accept(page)
        page.get_by_role("button", name="Why did 0.png").click()
        page.locator(".why").wait_for()
        page.get_by_role("tab", name="Gallery").click()
        choose(page, "#gallery", *images)
        refuse(page)
        page.get_by_role("button", name="Score all").click()
        status(page, "gallery", "Stopped. 0 images scored")  # as the rest would be refused as well
        status(page, "gallery", 'lacked the right token: "Score all" tries again.')
        accept(page)
        page.get_by_role("button", name="Score all").click()
        status(page, "gallery", "4 images scored.")
        page.close()


def test_a_token_that_no_header_carries_is_a_wrong_one(browser: Browser) -> None:
    with running(toy_scorer(), Settings(port=0, token=TOKEN)) as where:
        page = browser.new_page()
        page.goto(where)
        enter(page, "пароль")
        page.locator("#trouble", has_text="That is not this server's token").wait_for()
        enter(page, f"  {TOKEN} ")
        page.locator("#model", has_text="Model toy").wait_for()
        page.close()
