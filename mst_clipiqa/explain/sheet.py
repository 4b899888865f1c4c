"""An explanation as one image: the maps side by side, the five levels, the streams and the words."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from mst_clipiqa.errors import percent
from mst_clipiqa.explain.explanation import Explanation
from mst_clipiqa.explain.lettering import fitted_line, font_for
from mst_clipiqa.explain.overlay import LEAST_SPAN, RED, fitted
from mst_clipiqa.explain.results import MapStream
from mst_clipiqa.model.templates import QUALITY_LEVELS

WIDTH = 1200
MOST_WORDS = 14
"""Largest number of words shown, those with the largest effects; the JSON has all words."""

_ORDER: tuple[MapStream, ...] = ("both", "coarse", "fine")
_MARGIN, _GAP, _LINE = 24, 24, 26
_PANEL = (WIDTH - 2 * _MARGIN - 3 * _GAP) // 4
_INK, _GREY, _BLUE = (30, 34, 40), (110, 116, 124), (52, 104, 192)


@dataclass
class _Page:
    """A sheet that is filled from the top down."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    y: int = _MARGIN

    def text(
        self, x: int, words: str, size: int = 15, colour: tuple[int, int, int] = _INK, *, width: int | None = None
    ) -> None:
        """Write a line, cut to a width in pixels: by default up to the right margin."""
        font = font_for(words, size)
        line = fitted_line(words, font, WIDTH - _MARGIN - x if width is None else width)
        self.pen.text((x, self.y), line, fill=colour, font=font)


def draw_sheet(found: Explanation, target: str = "quality") -> Image.Image:
    """Return an RGB image, 1200 pixels wide, with the maps of one target and everything else.

    Args:
        found: what to draw.
        target: the target whose maps are drawn; if it was not scored, the first one that was.
    """
    target = target if target in found.maps else next(iter(found.maps))
    words = [name for name in found.words if found.words[name]]
    lines = max(12, 2 + sum(2 + min(MOST_WORDS, len(found.words[name])) for name in words))
    tall = max(panel.height for panel in _panels(found, target))
    image = Image.new("RGB", (WIDTH, _MARGIN * 2 + tall + _LINE * (lines + 4)), (255, 255, 255))
    page = _Page(image, ImageDraw.Draw(image))
    _write_head(page, found)
    _paste_maps(page, found, target)
    top = page.y
    _write_levels(page, found)
    _write_streams(page, found)
    page.y = top
    for name in words:
        _write_words(page, found, name)
    return image


def _panels(found: Explanation, target: str) -> list[Image.Image]:
    overlays = [found.overlay(stream, target, _PANEL) for stream in _ORDER]
    return [fitted(found.image, _PANEL), *overlays]


def _write_head(page: _Page, found: Explanation) -> None:
    scores = [
        f"{name} {value:.2f} ({low:g} to {high:g})"
        for name, value in found.score.targets.items()
        if value is not None
        for low, high in [found.score.ranges[name]]
    ]
    page.text(_MARGIN, "   ".join(scores) + f"   model {found.score.model}", 19)
    page.y += _LINE + 4
    if found.prompt is not None:
        page.text(_MARGIN, f"prompt: {found.prompt}", 15, _GREY)
    page.y += _LINE + 4


def _paste_maps(page: _Page, found: Explanation, target: str) -> None:
    panels = _panels(found, target)
    maps = found.maps[target]
    titles = ["the image", *(f"{stream}: up to {maps.of(stream).max():.2f} {maps.unit} lost" for stream in _ORDER)]
    for index, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x = _MARGIN + index * (_PANEL + _GAP)
        page.text(x, title, width=_PANEL)
        page.image.paste(panel, (x, page.y + _LINE))
    page.y += _LINE + max(panel.height for panel in panels) + 6
    note = f"Red: where more {target} is lost than in an average window; each scored alone. Frame: the worst one."
    page.text(_MARGIN, note, 13, _GREY)
    page.y += _LINE + 6


def _write_levels(page: _Page, found: Explanation) -> None:
    if found.score.levels is None:
        return
    page.text(_MARGIN, "Probability of each quality level", 16)
    page.y += _LINE
    for level, share in zip(QUALITY_LEVELS, found.score.levels, strict=True):
        page.text(_MARGIN, level)
        width = round(300 * share)
        page.pen.rectangle((_MARGIN + 80, page.y + 2, _MARGIN + 80 + width, page.y + 16), fill=_BLUE)
        page.text(_MARGIN + 390, percent(share), 14, _GREY)
        page.y += _LINE
    page.y += 8


def _write_streams(page: _Page, found: Explanation) -> None:
    page.text(_MARGIN, "Coarse and fine stream", 16)
    page.y += _LINE
    for name, one in found.fusion.items():
        page.text(_MARGIN, f"{name}: gate {percent(one.gate)} coarse, share of the result {percent(one.share)} coarse")
        page.y += _LINE - 4
        alone = f"scored alone: coarse {one.coarse_alone:.2f}, fine {one.fine_alone:.2f}"
        page.text(_MARGIN, alone, 14, _GREY)
        page.y += _LINE


def _write_words(page: _Page, found: Explanation, name: str) -> None:
    """Write the words with the largest effects, in the prompt's order; negative effects are red, left of an axis."""
    words = found.words[name]
    largest = sorted(range(len(words)), key=lambda i: -abs(words[i].effect))[:MOST_WORDS]
    x, axis, half = _MARGIN + 500, _MARGIN + 800, 120
    page.text(x, f"Words: how much each one changes {name}", 16)
    page.text(axis + half + 70, "attention", 13, _GREY)
    page.y += _LINE
    low, high = found.score.ranges[name]
    scale = max(LEAST_SPAN * (high - low), *(abs(words[i].effect) for i in largest))
    for i in sorted(largest):
        word = words[i]
        page.text(x, word.text, width=axis - half - _GAP // 2 - x)
        end = axis + round(half * word.effect / scale)
        colour = RED if word.effect < 0 else _BLUE
        page.pen.rectangle((min(axis, end), page.y + 2, max(axis, end), page.y + 16), fill=colour)
        page.text(axis + half + 10, f"{word.effect:+z.2f}", 14)
        if word.attention is not None:
            page.text(axis + half + 70, percent(word.attention), 14, _GREY)
        page.y += _LINE
    page.y += 8
