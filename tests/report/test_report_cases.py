"""The report in Chromium in unusual cases: no score at all, foreign prompts, paper, no scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mst_clipiqa.report import ReportOptions, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def opened(browser: Browser, rows: list[dict[str, Any]], path: Path, **context: Any) -> Page:
    write_report(rows, path)
    page = browser.new_page(**context)
    page.goto(path.as_uri())
    return page


def test_a_report_without_scores_says_why(browser: Browser, tmp_path: Path) -> None:
    rows = [{"file": f"{name}.png", "quality": None, "status": "error", "reason": "Cut off."} for name in "ab"]
    page = opened(browser, rows, tmp_path / "r.html")
    assert page.inner_text("#summary") == "2 images, all failed"
    words = page.inner_text("#strips")
    assert "No image has a score" in words and "2 × Cut off." in words
    page.close()


def test_prompts_run_in_their_own_direction_and_fold(browser: Browser, tmp_path: Path) -> None:
    arabic = "قطة حمراء تجلس على طاولة خشبية " * 20
    page = opened(browser, [{"file": "a.png", "quality": 2.5, "prompt": arabic}], tmp_path / "r.html")
    direction = "node => getComputedStyle(node).direction"
    assert page.locator(".strip .two-lines").evaluate(direction) == "rtl"
    page.click(".strip .card")
    prompt = page.locator("#viewer-facts .long > span")
    assert prompt.evaluate(direction) == "rtl" and prompt.evaluate("node => node.clientHeight < node.scrollHeight")
    page.click("text=Show all")
    assert prompt.evaluate("node => node.scrollHeight - node.clientHeight < 2 && document.activeElement === node")
    page.close()


def test_paper_gets_all_images_that_fit_a_few_pages(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, [{"file": f"{i}.png", "quality": 2.5} for i in range(150)], tmp_path / "r.html")
    page.click("#tab-images")
    before = page.locator("#gallery .card").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    cards = page.locator("#gallery .card")
    assert before < 150 == cards.count()
    boxes = [box for one in (0, 4, 149) if (box := cards.nth(one).bounding_box())]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]  # four side by side
    assert not page.is_visible("#filter-box") and not page.is_visible("#tab-overview")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert cards.count() == before
    page.close()


def test_a_browser_without_scripts_gets_the_means(browser: Browser, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"file": f"{name}.png", "quality": 2.5} for name in "ab"]
    rows.append({"file": "c.png", "status": "error", "reason": "Cut off."})
    page = opened(browser, rows, tmp_path / "r.html", java_script_enabled=False)
    assert "3 images; 1 failed; mean quality 2.50, 95 % interval 2.50 to 2.50." in page.inner_text("noscript")
    page.close()


def test_a_score_says_its_scale_and_a_size_its_unit(browser: Browser, tmp_path: Path) -> None:
    write_report(
        [{"file": "a.png", "quality": 2.5, "width": 8, "height": 6, "familiarity": 0.5}],
        tmp_path / "r.html",
        options=ReportOptions(ranges={"quality": (0.0, 5.0)}),
    )
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    assert "On each image, Q is quality." in page.inner_text("#strips")
    page.click(".strip .card")
    words = page.inner_text("#viewer-facts")
    assert all(one in words for one in ("Quality (0 to 5)\n2.50", "8 × 6 pixels", "Familiarity (0 to 1)\n0.50"))
    page.close()
