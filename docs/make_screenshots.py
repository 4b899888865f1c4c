"""Take the screenshots in docs/images: each command, run on examples/, and the report, in Chromium.

    .venv/bin/python docs/make_screenshots.py [--model mini] [--only rank,report-phone]

Needs the extras ``dev`` and ``ray``, a system with pseudo-terminals (Linux, macOS), and Chromium for the report.
``make_serve_screenshots.py`` takes those of the web page.
"""

from __future__ import annotations

import csv
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter
from playwright.sync_api import Browser
from screenshots import DARK, DESK, PHONE, ROOT, chromium, options, save
from terminal import WIDTH, picture

# Run in this order, in a folder that ``prepare`` fills.
COMMANDS = {
    "score": "mst-clipiqa score examples -o scores.csv",
    "intervals": "mst-clipiqa score images/ -o scores.csv --intervals",
    "score-prompt": 'mst-clipiqa score ball.png --prompt "a red ball on a table"',
    "score-json": "mst-clipiqa score images/ --prompts prompts.csv --json",
    "stopped": "mst-clipiqa score images/ -o stopped.csv --batch-size 2",
    "score-resume": "mst-clipiqa score images/ -o stopped.csv --batch-size 2 --resume",
    "score-help": "mst-clipiqa score --help",
    "score-cluster": "mst-clipiqa score-cluster images/ -o scores.parquet",
    "rank": "mst-clipiqa rank scores.csv --top 20",
    "pick": "mst-clipiqa pick scores.csv | mst-clipiqa filter - --copy-to best --yes",
    "filter": "mst-clipiqa filter scores.csv --min-quality 2.5 --move-to good",
    "compare": 'mst-clipiqa compare images/red_ball.png images/red_ball_blur.webp --prompt "a red ball"',
    "new": "mst-clipiqa score blurred/ -o blurred.csv",
    "drift": "mst-clipiqa drift scores.csv blurred.csv",
    "gate": "mst-clipiqa gate blurred.csv --max-failed 0 --not-worse-than scores.csv",
    "report": "mst-clipiqa report scores.csv --title Examples -o report.html",
    "explain": 'mst-clipiqa explain images/coffee_blur.jpg --prompt "a cup of coffee with a spoon" -o why',
    "benchmark": "mst-clipiqa benchmark --data csv --root rated --heads template --splits 4 -o out",
}
NO_IMAGE = {"intervals", "stopped", "new"}
# Images that commands write: name -> image in the folder.
LEFT = {"explain-sheet": "why/explanation.png"}
CARD = "#gallery .card >> nth=0"
# name -> settings of the browser, part of the page, elements to click, element to scroll to
PAGES: dict[str, tuple[dict[str, Any], str, tuple[str, ...], str]] = {
    "report-overview": (DESK, "overview", (), ""),
    "report-images": (DARK, "images", (), ""),
    "report-image": (DESK, "images", (CARD,), ""),
    "report-why": (DARK, "images", (CARD, ".maps button >> nth=0"), ".words-table"),
    "report-phone": (PHONE, "images", (), ""),
}
RAY_LOG = re.compile(r"^(?:\x1b\[[\d;]*m)*\[\d{4}-[^]]+\] \w+\.cc:.*\n", re.MULTILINE)  # messages of Ray itself


def main() -> None:
    """Take all screenshots, or those named."""
    model, wanted = options(__doc__, [name for name in (*COMMANDS, *LEFT, *PAGES) if name not in NO_IMAGE])
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare(home)
        before = ""
        for name, line in COMMANDS.items():
            if name == "score-cluster" and name not in wanted:
                continue  # nothing builds on it, and Ray is slow to start
            screen = f"$ {line}\n{run(line, home, model)}"
            if name == "score-resume":
                screen = before + screen
            if name in wanted:
                save(name, picture(screen), lossless=True)
            before = screen
        for name, path in LEFT.items():
            if name in wanted:
                save(name, (home / path).read_bytes())
        if pages := [name for name in PAGES if name in wanted]:
            with chromium() as browser:
                for name in pages:
                    save(name, of_page(browser, home / "report.html", *PAGES[name]))


def prepare(home: Path) -> None:
    """Copy the examples, a blurred version of each with the same name and prompt, and a rated set made from them."""
    images = home / "images"
    shutil.copytree(ROOT / "examples", images, ignore=shutil.ignore_patterns("*.py", "*.md"))
    shutil.copytree(ROOT / "examples", home / "examples")
    shutil.copy(images / "red_ball.png", home / "ball.png")
    shutil.copy(images / "metadata.csv", home / "prompts.csv")
    for folder in ("blurred", "rated"):
        (home / folder).mkdir()
    shutil.copy(images / "metadata.csv", home / "blurred")
    with (images / "metadata.csv").open(encoding="utf-8") as file:
        prompts = {row["file_name"]: row["prompt"] for row in csv.DictReader(file)}
    lines = [("file_name", "prompt", "quality")]
    for name, prompt in prompts.items():
        with Image.open(images / name) as opened:
            image = opened.convert("RGB")
        image.filter(ImageFilter.GaussianBlur(4)).save(home / "blurred" / name)
        if prompt in {line[1] for line in lines}:
            continue  # distorted already
        for step in range(5):  # each stronger blur is rated one lower
            image.filter(ImageFilter.GaussianBlur(1.5 * step)).save(home / "rated" / f"{step}_{name}")
            lines.append((f"{step}_{name}", prompt, str(4.5 - step)))
    with (home / "rated" / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def run(line: str, home: Path, model: str) -> str:
    """Run a command on a pseudo-terminal; return its output, stdout before stderr."""
    ours, theirs = pty.openpty()
    scripts = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
    }
    scores = any(command in line for command in (" score", " compare", " report", " explain")) and "--help" not in line
    asked = f"{line} --model {model}" if scores and model != "mini" else line
    process = subprocess.Popen(
        f"exec {asked}" if "|" not in asked else asked,
        shell=True,
        cwd=home,
        env=env,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    if "stopped.csv" in line and "--resume" not in line:
        interrupt(process, home / "stopped.csv.part-wal")
    written = bytearray()
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:  # on Linux: the other end is closed
            break
        if not some:
            break
        written += some
    _, errors = process.communicate()
    os.close(ours)
    if process.returncode not in (0, 1, 3, 130):  # 3: the gate
        raise SystemExit(f"{line}\n{errors.decode()}")
    return RAY_LOG.sub("", (bytes(written) + errors).decode().replace("\r\n", "\n"))


def interrupt(process: subprocess.Popen[bytes], journal: Path) -> None:
    """Send what Ctrl-C sends, once the first rows are written."""
    while process.poll() is None and not (journal.is_file() and b"cat" in journal.read_bytes()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)


def of_page(
    browser: Browser, path: Path, setup: dict[str, Any], part: str, clicks: tuple[str, ...], scroll: str
) -> bytes:
    """Return a screenshot of a part of the report."""
    context = browser.new_context(**setup)
    page = context.new_page()
    page.goto(f"{path.as_uri()}#/{part}")
    page.wait_for_selector(f"#{part} .card img")
    for click in clicks:
        page.click(click)
    if scroll:
        page.locator(scroll).scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # images are decoded after the page is drawn
    image = page.screenshot()
    context.close()
    return image


if __name__ == "__main__":
    main()
