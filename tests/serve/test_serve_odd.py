"""The page in the hands of a first-time user: double clicks, second thoughts, long names, no prompt, leaving midway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mst_clipiqa.serve.settings import Settings
from tests.serve.test_serve_browser import CHROMIUM, TOKEN, browser, choose, status
from tests.serve.test_serve_use import address, held, images, page, score
from tests.serving import png, running, toy_scorer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["address", "browser", "images", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
LONG = "a picture with every setting of its generator in its name " * 3 + "x" * 60 + ".png"


def test_a_hint_goes_once_it_is_followed(page: Page, images: list[Path]) -> None:
    score(page)
    status(page, "score", "Choose an image first.")
    choose(page, "#score", images[0])
    assert page.inner_text("#score .status") == ""


def test_images_added_midway_wait_for_the_next_run(page: Page, images: list[Path]) -> None:
    let_go = held(page, "**/v1/score")
    choose(page, "#score", images[0])
    page.locator("#score button.main").dblclick()
    choose(page, "#score", *images[1:])
    let_go()
    status(page, "score", "1 image scored. Higher is better.")
    assert page.locator("#score .card").count() == 1
    score(page)
    status(page, "score", "4 images scored. Higher is better.")


def test_a_score_that_needs_a_prompt_says_that_there_is_none(page: Page, images: list[Path]) -> None:
    choose(page, "#score", images[0])
    page.fill("#score-prompt", "   ")
    score(page)
    status(page, "score", "1 image scored")
    assert page.inner_text("#score .correspondence") == "Correspondence – no prompt"
    page.fill("#score-prompt", "a red ball")
    score(page)
    page.locator("#score .correspondence", has_text="0 to 5").wait_for()
    assert "no prompt" not in page.inner_text("#score .correspondence")


def test_a_file_that_changed_is_not_explained_by_the_server(page: Page, images: list[Path]) -> None:
    choose(page, "#score", images[0])
    score(page)
    status(page, "score", "1 image scored")
    images[0].write_bytes(png(3, size=128))
    page.get_by_role("button", name="Why did").click()
    page.locator("#score .card", has_text="got a folder, or a file that has changed since: choose it again").wait_for()


def test_a_long_name_leaves_room_for_the_rest(browser: Browser, address: str, tmp_path: Path) -> None:
    (tmp_path / LONG).write_bytes(png(1))
    page = browser.new_page(viewport={"width": 360, "height": 640})
    page.goto(address)
    choose(page, "#score", tmp_path / LONG)
    assert page.locator("#score .chosen li").evaluate("node => node.offsetHeight") < 70
    score(page)
    status(page, "score", "1 image scored")
    assert page.locator("#score h2").evaluate("node => node.offsetHeight") < 120
    assert page.get_attribute("#score h2", "title") == LONG
    left = "node => node.getBoundingClientRect().left + parseFloat(getComputedStyle(node).paddingLeft)"
    assert page.locator("footer").evaluate(left) == page.locator("main").evaluate(left)
    page.close()


def test_a_frame_beside_a_long_text_has_one_ground(page: Page, images: list[Path]) -> None:
    choose(page, "#score", images[0])
    score(page)
    status(page, "score", "1 image scored")
    assert "linear-gradient" in page.locator("#score .card").evaluate("node => getComputedStyle(node).backgroundImage")


def test_a_gallery_is_scored_again_with_another_prompt(page: Page, images: list[Path]) -> None:
    page.get_by_role("tab", name="Gallery").click()
    assert page.is_hidden("#progress")
    choose(page, "#gallery", *images)
    page.locator("#progress").wait_for()
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", "4 images scored.")
    page.fill("#gallery-prompt", "a red ball ")
    page.get_by_role("button", name="Score all").click()
    page.locator("#gallery .card bdi", has_text="a red ball").nth(3).wait_for()
    status(page, "gallery", "4 images scored.")
    assert page.locator("#gallery .card").count() == 4
    page.get_by_role("button", name="Score all").click()
    status(page, "gallery", "No image is left to score: choose more.")


def test_leaving_a_gallery_midway_is_asked_about(page: Page, images: list[Path]) -> None:
    page.get_by_role("tab", name="Gallery").click()
    choose(page, "#gallery", images[0])
    let_go = held(page, "**/v1/score")
    page.get_by_role("button", name="Score all").click()
    page.locator("#stop:enabled").wait_for()
    page.get_by_role("tab", name="Score").click()
    with page.expect_event("dialog") as asked:
        page.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    let_go()
    page.get_by_role("tab", name="Gallery").click()
    status(page, "gallery", "1 image scored.")


def test_a_token_that_is_still_missing_is_shown_again(browser: Browser, images: list[Path]) -> None:
    with running(toy_scorer(), Settings(port=0, token=TOKEN)) as where:
        page = browser.new_page()
        page.goto(where)
        page.locator("#token:focus").wait_for()
        gap = "node => node.nextElementSibling.getBoundingClientRect().top - node.getBoundingClientRect().bottom"
        assert page.locator("#entry").evaluate(gap) > 5
        choose(page, "#score", images[0])
        score(page)
        page.locator("#token:focus").wait_for()
        status(page, "score", "0 images scored, 1 could not be.")
        assert "Higher is better" not in page.inner_text("#score .status")
        page.close()
