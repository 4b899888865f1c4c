"""A report in Chromium: errors, requests, first paint, first view of its images, sorting, opening, and its size.

    python -m speed.page --draw 10000 drawn.html      # write a report of drawn rows with images, then measure it
    mst-clipiqa report scores.csv --generator-from name -o real.html
    python -m speed.page real.html drawn.html -o page.json

Each page is opened several times, each time in a context of its own, from a file. Times are seconds: those of the first
view on the page's own clock, from the navigation on, until every image in view is decoded; sorting and opening on
the clock of the program that presses the buttons, its own delay included. The exit code is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed.images import jpegs
from speed.machine import machine, report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BARS = {"images_s": 2.0, "megabytes": 40.0}
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "chrome"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
DECODED = """async () => {
  const seen = [...document.images].filter((one) => {
    const { top, bottom } = one.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  await Promise.all(seen.map((one) => one.decode().catch(() => null)));
  return [seen.length, performance.now()];
}"""


def draw(count: int, path: Path) -> None:
    """Write a report of drawn rows: six generators, ten prompts per hundred rows, one failure per thousand."""
    from mst_clipiqa.report import ReportOptions, write_report

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = jpegs(folder, count, side=512)
        rows = []
        for i, file in enumerate(files):
            words = {"prompt": f"an image of thing {i // 10}, highly detailed", "generator": f"generator {i % 6}"}
            quality, correspondence = i * 7919 % 5000 / 1000, i * 6101 % 5000 / 1000
            scores = {"quality": quality, "correspondence": correspondence, "quality_spread": i % 997 / 997}
            state = {"status": "error", "reason": "drawn to fail"} if i % 1000 == 999 else {"status": "ok"}
            rows.append({"file": str(file), **words, **scores, "gate": 0.5, **state, "width": 512, "height": 512})
        write_report(rows, path, folders=[folder], options=ReportOptions(f"{count:,} drawn rows"))


def measure(browser: Browser, path: Path, times: int) -> dict[str, Any]:
    """Return the measurements of one page: medians over several openings."""
    found = [once(browser, path) for _ in range(times)]
    seconds = [name for name in found[0] if name.endswith("_s")]
    return {
        "page": path.name,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        **{name: found[0][name] for name in ("rows", "images_in_view")},
        **{name: round(statistics.median(one[name] for one in found), 3) for name in seconds},
        "slowest_images_s": round(max(one["images_s"] for one in found), 3),
        **{name: sum(one[name] for one in found) for name in ("errors", "requests")},
    }


def once(browser: Browser, path: Path) -> dict[str, Any]:
    """Open a page, its overview, its images, another order and one image."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(f"{path.resolve().as_uri()}#/images")
    page.wait_for_selector("#gallery .card img")
    in_view, images = page.evaluate(DECODED)
    paint = page.evaluate(PAINT)
    sort, opening = _sort(page), _open(page)
    rows = page.evaluate("JSON.parse(document.getElementById('data').textContent).rows")
    context.close()
    foreign = [url for url in requests if not url.startswith(("data:", path.resolve().as_uri()))]
    times = {"first_paint_s": paint / 1e3, "images_s": images / 1e3, "sort_s": sort, "open_s": opening}
    return {"rows": rows, "images_in_view": in_view, **times, "errors": len(errors), "requests": len(foreign)}


def _sort(page: Page) -> float:
    first = str(page.get_attribute("#gallery .card >> nth=0", "title"))
    start = time.perf_counter()
    page.select_option("[name=sort]", "quality-up")
    page.locator("#count", has_text="worst first").wait_for()
    page.evaluate(DECODED)
    took = time.perf_counter() - start
    if page.get_attribute("#gallery .card >> nth=0", "title") == first:
        raise SystemExit("Expected another image first after sorting, got the same one.")
    return took


def _open(page: Page) -> float:
    start = time.perf_counter()
    page.click("#gallery .card >> nth=1")
    page.wait_for_selector("#viewer-image img")
    page.evaluate("document.querySelector('#viewer-image img').decode()")
    return time.perf_counter() - start


def main() -> int:
    """Measure pages; return 1 if one misses a bar."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--draw", type=int, metavar="N", help="write the first page anew, with N drawn rows")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.draw:
        draw(args.draw, args.pages[0])
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        found = [measure(browser, path, args.times) for path in args.pages]
        version = browser.version
        browser.close()
    missed = [
        f"{one['page']}: {name}"
        for one in found
        for name, bar in {**BARS, "errors": 0, "requests": 0}.items()
        if one[name] > bar
    ]
    said = {"claim": str(__doc__).splitlines()[0], "pages": found, "missed": missed}
    report({**said, "chromium": version, "machine": machine()}, args.output)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
