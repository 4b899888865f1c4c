"""Shared by the scripts that take the screenshots in docs/images: flags, browser, and saving small files."""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images"
LARGEST = 150_000  # bytes per image
CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "chrome"]
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 860}}
DARK: dict[str, Any] = {**DESK, "color_scheme": "dark"}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 1.5, "is_mobile": True}


def options(doc: str | None, names: Collection[str]) -> tuple[str, set[str]]:
    """Return the model and the names of the wanted screenshots, from the command line."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", help="names, separated by commas")
    given = parser.parse_args()
    wanted = set(given.only.split(",")) if given.only else set(names)
    if unknown := wanted - set(names):
        parser.error(f"Expected names of screenshots ({', '.join(names)}), got {', '.join(sorted(unknown))}.")
    return given.model, wanted


@contextmanager
def chromium() -> Iterator[Browser]:
    """Open this machine's Chromium; close it at the end of the block."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise SystemExit(f"Expected Chromium on this machine ({', '.join(CHROMIUM)}), found none: install it.")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


def save(name: str, shot: bytes, *, lossless: bool = False) -> None:
    """Write a screenshot as WebP; lower the quality in steps until the file is small, unless it is lossless."""
    path = OUT / f"{name}.webp"
    OUT.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(shot)) as opened:
        image = opened.convert("RGB")
    for quality in (86, 80, 70, 60):
        image.save(path, lossless=lossless, quality=quality, method=6)
        if lossless or path.stat().st_size < LARGEST:
            break
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB, {image.width} x {image.height}")
