"""The report in less common hands and eyes: Back, voice control, forced colours, paper, thousands of prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mst_clipiqa.report import ReportOptions, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def shown(
    browser: Browser, folder: Path, rows: Sequence[dict[str, Any]], tab: str = "overview", by: str = "", **setup: Any
) -> Page:
    """Return a page that has the report of the rows open at a tab."""
    path = folder / "report.html"
    write_report(rows, path, options=ReportOptions("Scores", by=(by,) if by else ()))
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 800}, **setup})
    page.goto(f"{path.as_uri()}#/{tab}")
    page.locator(f"#{tab}").wait_for()
    return page


def table(count: int, **more: Any) -> list[dict[str, Any]]:
    """Row i: its own prompt, quality i, and one of two generators."""
    return [
        {"file": f"{i:04}.png", "prompt": f"ball {i}", "quality": float(i), "generator": f"g{i % 2}", **more}
        for i in range(count)
    ]


def test_back_leads_to_the_tab_before(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(30))
    page.click("#tab-prompts")
    page.locator("#prompts tbody button").first.click()
    page.locator("#images").wait_for()
    page.go_back()
    page.locator("#prompts").wait_for()
    page.go_back()
    page.locator("#overview").wait_for()
    assert page.get_attribute("#tab-overview", "aria-selected") == "true"
    page.close()


@pytest.mark.parametrize("place", ["#tab-overview", ".bars button[tabindex='0']", "#images .card >> nth=0"])
def test_alt_and_an_arrow_are_left_to_the_browser(browser: Browser, tmp_path: Path, place: str) -> None:
    page = shown(browser, tmp_path, table(30), "images" if "images" in place else "overview")
    kept = """(node, altKey) => node.dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowRight", altKey, bubbles: true, cancelable: true }))"""
    page.locator(place).first.focus()
    assert page.locator(place).first.evaluate(kept, True) is True
    assert page.locator(place).first.evaluate(kept, False) is False
    page.close()


def test_alt_and_an_arrow_do_not_turn_to_another_image(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(30), "images")
    page.click("#gallery .card >> nth=0")
    name = page.inner_text("#viewer-name")
    key = """(altKey) => document.getElementById("viewer").dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowRight", altKey, bubbles: true, cancelable: true }))"""
    page.evaluate(key, True)
    assert page.inner_text("#viewer-name") == name
    page.evaluate(key, False)
    assert page.inner_text("#viewer-name") != name
    page.close()


def test_the_name_of_a_card_is_what_it_shows(browser: Browser, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"file": "a.png", "prompt": "a red ball", "quality": 3.3333, "correspondence": 4.0, "familiarity": 0.01},
        {"file": "b.png", "status": "error", "reason": "expected an image, got none"},
    ]
    page = shown(browser, tmp_path, rows, "images")
    assert page.inner_text("#gallery .meters >> nth=0").split()[0] == "Q"
    names = [page.get_by_role("button", name=re.compile(name)) for name in (
        r"unfamiliar.*quality 3\.33.*correspondence 4\.00.*a red ball.*a\.png",
        r"failed: expected an image, got none.*no prompt.*b\.png",
    )]  # fmt: skip
    assert [name.and_(page.locator("#gallery .card")).count() for name in names] == [1, 1]
    assert page.locator("#gallery .card[aria-label]").count() == 0
    page.close()


def test_forced_colours_keep_what_only_colour_says(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(30, correspondence=1.0, gate=0.4), forced_colors="active")
    edge = "node => getComputedStyle(node).borderBottomColor"
    back = "node => getComputedStyle(node).backgroundColor"
    assert page.locator("#tab-images").evaluate(edge) == page.locator("body").evaluate(back)
    assert page.locator("#tab-overview").evaluate(edge) != page.locator("body").evaluate(back)
    assert page.locator(".legend i").first.evaluate(back) == "rgb(59, 130, 246)"
    page.click("#strips .card >> nth=0")
    assert page.locator(".shares i").first.evaluate(back) != page.locator("#viewer").evaluate(back)
    page.close()


def test_paper_says_what_is_missing_only_if_something_is(browser: Browser, tmp_path: Path) -> None:
    said = "node => getComputedStyle(node, '::after').content"
    for count, words in ((30, '""'), (201, '"Only the first 200 images are printed."')):
        page = shown(browser, tmp_path, table(count), "images")
        page.emulate_media(media="print")
        assert page.locator("#gallery").evaluate(said) == words
        page.close()


def test_a_wide_table_fits_on_paper(browser: Browser, tmp_path: Path) -> None:
    rows = [*table(30, correspondence=1.0, familiarity=0.5), {"file": "z.png", "prompt": "z", "status": "error"}]
    page = shown(browser, tmp_path, rows, "prompts", viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    page.close()


def test_one_of_thousands_of_prompts_shows_its_own_images(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(2100), "prompts")
    page.fill("#prompts input", "ball 20")
    page.get_by_role("button", name="ball 20", exact=True).click()
    page.locator("#count", has_text="1 of 2,100").wait_for()
    assert page.locator("[name=prompt] option:checked").inner_text() == "ball 20"
    page.get_by_role("button", name="Reset").click()
    page.locator("#count", has_text="2,100 of 2,100").wait_for()
    page.close()


def test_a_group_named_as_another_column_is_no_link(browser: Browser, tmp_path: Path) -> None:
    rows = [{"file": f"{i}.png", "quality": 1.0, "reason": "cut"} for i in range(3)]
    page = shown(browser, tmp_path, rows, "generators", by="reason")
    assert page.locator("#generators tbody button").count() == 0
    page.close()


def test_the_tab_named_in_the_address_is_in_view_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(30), "failed", viewport={"width": 360, "height": 700})
    assert page.locator("#tab-failed").evaluate("tab => tab.getBoundingClientRect().right") <= 360
    page.close()


def test_the_focus_stays_near_the_last_rows_of_a_table(browser: Browser, tmp_path: Path) -> None:
    page = shown(browser, tmp_path, table(300), "prompts")
    page.get_by_role("button", name="Show 200 more").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "300 of 300 rows shown."
    page.close()
