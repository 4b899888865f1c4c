"""Text, lines of charts and the edges of fields stand out from what is behind them, in light and in dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "mst_clipiqa"
SHEETS = {"report": PACKAGE / "report" / "page.css", "serve": PACKAGE / "serve" / "page" / "page.css"}
OVERVIEW = PACKAGE / "report" / "script" / "overview.js"
TEXT = ("ink", "soft", "quality", "correspondence", "bad", "focus")


def colours(sheet: Path, dark: bool) -> dict[str, str]:
    """Return the colours of a style sheet by name, "#rrggbb"."""
    roots = re.findall(r":root \{(.+?)\}", sheet.read_text(encoding="utf-8"), re.DOTALL)
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", roots[dark]))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG defines it, 1..21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", SHEETS)
def test_text_and_the_edges_of_fields(name: str, dark: bool) -> None:
    found = colours(SHEETS[name], dark)
    for text in TEXT:
        for behind in ("ground", "sheet"):
            assert contrast(found[text], found[behind]) >= 4.5, (text, behind)
    edges = ("sheet", "well") if name == "serve" else ("sheet",)
    for behind in edges:
        assert contrast(found["edge"], found[behind]) >= 3, behind
    css = SHEETS[name].read_text(encoding="utf-8")
    assert "::placeholder { color: var(--soft); opacity: 1; }" in css
    assert len(re.findall(r"^input.*border: 1px solid var\(--edge\)", css, re.MULTILINE)) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_points_of_the_scatter_plot(dark: bool) -> None:
    palette = re.findall(r"#[0-9a-f]{6}", OVERVIEW.read_text(encoding="utf-8").partition("PALETTE = ")[2].split("]")[0])
    assert len(palette) == 8
    sheet = colours(SHEETS["report"], dark)["sheet"]
    assert [colour for colour in palette if contrast(colour, sheet) < 3] == []
