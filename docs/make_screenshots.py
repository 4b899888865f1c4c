"""Make the pictures in docs/pictures: each command and page, run on examples/ and photographed in Chromium.

    .venv/bin/python docs/make_screenshots.py [--model mini] [--only rank,report-phone]

Needs the extra `dev`, Chromium, and a system with pseudo-terminals (Linux, macOS).
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "pictures"
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "chrome"]
WIDTH = 100  # columns of the terminal

# Run in this order in a folder that holds pictures/ (the examples) and blurred/ (the same, spoilt).
COMMANDS = {
    "score": "mst-clipiqa score pictures -o scores.csv --intervals",
    "rank": "mst-clipiqa rank scores.csv --top 5",
    "pick": "mst-clipiqa pick scores.csv",
    "filter": "mst-clipiqa filter scores.csv --min-quality 2.5 --move-to good",
    "compare": 'mst-clipiqa compare pictures/red_ball.png pictures/red_ball_blur.webp --prompt "a red ball on a table"',
    "new": "mst-clipiqa score blurred -o blurred.csv",
    "drift": "mst-clipiqa drift scores.csv blurred.csv",
    "report": "mst-clipiqa report scores.csv --title Examples -o report.html",
}
NO_PICTURE = {"new", "report"}
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 1.5, "is_mobile": True}
# name -> how the browser is set up, the part of the page, and what is clicked there
PAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "report-overview": (DESK, "overview", ""),
    "report-pictures": ({**DESK, "color_scheme": "dark"}, "pictures", ""),
    "report-picture": (DESK, "pictures", "#gallery .card >> nth=0"),
    "report-phone": (PHONE, "pictures", ""),
}
TERMINAL = """<body style="margin:0;background:#fff"><pre id="t" style="display:inline-block;margin:0;padding:16px 20px;
border-radius:8px;background:#14171b;color:#e7eaee;font:14px/1.35 'DejaVu Sans Mono',monospace">{code}</pre>"""


def main() -> None:
    """Take all pictures, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", help="names, with commas between them")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else {*COMMANDS, *PAGES} - NO_PICTURE
    if unknown := wanted - {*COMMANDS, *PAGES}:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}; there are {', '.join([*COMMANDS, *PAGES])}")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        prepare(home)
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = next(path for name in CHROMIUM if (path := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for name, line in COMMANDS.items():
            screen = run(line, home, options.model)
            if name in wanted:
                save(name, of_terminal(browser, f"$ {line}\n{screen}"))
        for name in PAGES:
            if name in wanted:
                save(name, of_page(browser, home / "report.html", *PAGES[name]))
        browser.close()


def prepare(home: Path) -> None:
    """Lay out the examples, and a blurred copy of each that keeps its name and prompt."""
    shutil.copytree(ROOT / "examples", home / "pictures", ignore=shutil.ignore_patterns("*.py", "*.md"))
    shutil.copytree(home / "pictures", home / "blurred")
    for path in (home / "blurred").iterdir():
        if path.suffix != ".csv":
            with Image.open(path) as image:
                blurred = image.convert("RGB").filter(ImageFilter.GaussianBlur(4))
            blurred.save(path)


def run(line: str, home: Path, model: str) -> str:
    """Run a command as if on a terminal; return what it writes there, stdout before stderr."""
    ours, theirs = pty.openpty()
    scripts = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
    }
    with_model = line if " scores.csv" in line and " -o scores.csv" not in line else f"{line} --model {model}"
    process = subprocess.Popen(with_model, shell=True, cwd=home, env=env, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not some:
            break
        written += some
    _, errors = process.communicate()
    os.close(ours)
    if process.returncode > 1:
        raise SystemExit(f"{line}\n{errors.decode()}")
    return (bytes(written) + errors).decode().replace("\r\n", "\n")


def of_terminal(browser: Browser, screen: str) -> bytes:
    """Return a picture of some text with colours."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip("\n")), soft_wrap=True)
    page = browser.new_page(device_scale_factor=1.5)
    page.set_content(TERMINAL.format(code=console.export_html(inline_styles=True, code_format="{code}")))
    picture = page.locator("#t").screenshot()
    page.close()
    return picture


def of_page(browser: Browser, path: Path, setup: dict[str, Any], part: str, click: str) -> bytes:
    """Return a picture of a part of the report."""
    context = browser.new_context(**setup)
    page = context.new_page()
    page.goto(f"{path.as_uri()}#/{part}")
    page.wait_for_selector(f"#{part} .card img")
    if click:
        page.click(click)
    page.wait_for_timeout(300)  # pictures are decoded beside the page
    picture = page.screenshot()
    context.close()
    return picture


def save(name: str, picture: bytes) -> None:
    """Write a picture as WebP, small enough for a repository."""
    path = OUT / f"{name}.webp"
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(path, quality=82, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
