"""Take the screenshots of the web page in docs/images: each tab, filled from examples/, in Chromium.

    .venv/bin/python docs/make_serve_screenshots.py [--only serve-score,serve-phone]

Needs the extra ``dev`` and Chromium. ``make_screenshots.py`` takes those of the commands and of the report.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page
from screenshots import DARK, DESK, PHONE, ROOT, chromium, options, save

EXAMPLES = ROOT / "examples"
WAIT = 240_000  # milliseconds; an explanation takes as long as 60 scores


def score(page: Page) -> None:
    page.set_input_files("#score input[type=file]", [EXAMPLES / "red_ball.png", EXAMPLES / "red_ball_blur.webp"])
    page.fill("#score-prompt", "a red ball on a table")
    page.click("#score button.main")
    page.locator("#score .status", has_text="2 images scored").wait_for()


def explain(page: Page) -> None:
    page.set_input_files("#score input[type=file]", [EXAMPLES / "coffee_blur.jpg"])
    page.fill("#score-prompt", "a cup of coffee with a spoon")
    page.click("#score button.main")
    page.click("#score .said > button")
    page.wait_for_selector(".why img")
    page.evaluate("document.querySelector('#score .results').scrollIntoView()")


def compare(page: Page) -> None:
    page.click("#tab-compare")
    page.set_input_files("#drop-a input", EXAMPLES / "coffee.jpg")
    page.set_input_files("#drop-b input", EXAMPLES / "coffee_blur.jpg")
    page.fill("#compare-prompt", "a cup of coffee with a spoon")
    page.click("#compare button.main")
    page.wait_for_selector("#compare .card >> nth=1")


def gallery(page: Page) -> None:
    page.click("#tab-gallery")
    files = sorted(path for path in EXAMPLES.iterdir() if path.is_file() and path.suffix not in (".py", ".md"))
    page.set_input_files("#gallery input[type=file]", files)
    page.locator("#gallery .status", has_text="chosen.").wait_for()
    page.click("#gallery button.main")
    page.locator("#gallery .status", has_text="scored.").wait_for()
    page.evaluate("document.querySelector('#gallery .bar').scrollIntoView()")


def documentation(page: Page) -> None:
    page.goto(f"{page.url.split('#')[0]}docs")
    page.wait_for_selector("text=Score one image or many.")


IMAGES = {
    "serve-score": (DESK, score),
    "serve-explain": (DESK, explain),
    "serve-compare": (DESK, compare),
    "serve-gallery": (DARK, gallery),
    "serve-phone": (PHONE, score),
    "serve-docs": (DESK, documentation),
}


@contextmanager
def server(model: str) -> Iterator[str]:
    """Run ``mst-clipiqa serve``; yield the address that it prints."""
    command = [sys.executable, "-m", "mst_clipiqa", "serve", "--port", "0", "--model", model, "--timeout", "240"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline() if process.stderr else ""
        found = re.search(r"http://\S+", line)
        if not found:
            raise SystemExit(line)
        try:
            yield found[0]
        finally:
            process.terminate()


def main() -> None:
    """Take all screenshots, or those named."""
    model, wanted = options(__doc__, IMAGES)
    with server(model) as address, chromium() as browser:
        for name in sorted(wanted):
            setup, walk = IMAGES[name]
            context = browser.new_context(**setup)
            page = context.new_page()
            page.set_default_timeout(WAIT)
            page.goto(address)
            page.locator("#model", has_text="Model").wait_for()
            walk(page)
            page.wait_for_timeout(500)  # images are decoded after the page is drawn
            save(name, page.screenshot())
            context.close()


if __name__ == "__main__":
    main()
