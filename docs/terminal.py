"""A picture of a terminal: text with colours, wrapped and cut off as on a screen."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from PIL import Image, ImageColor, ImageDraw, ImageFont
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, TerminalTheme
from rich.text import Text

WIDTH, LINES = 100, 48  # characters and lines; longer output is cut off
SIZE, LINE_HEIGHT, MARGIN = 21, 28.35, (27, 21)  # pixels
INK, PAPER = ImageColor.getrgb("#e7eaee"), ImageColor.getrgb("#14171b")
_FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
_ANSI = [(one.red, one.green, one.blue) for one in map(DEFAULT_TERMINAL_THEME.ansi_colors.__getitem__, range(16))]
THEME = TerminalTheme(PAPER[:3], INK[:3], _ANSI[:8], _ANSI[8:])


def picture(screen: str) -> bytes:
    """Return a PNG of what a command wrote, ANSI colours included."""
    console = Console(width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    lines = list(Text.from_ansi(screen.rstrip("\n")).wrap(console, WIDTH, overflow="fold"))
    if len(lines) > LINES:
        lines[LINES - 1 :] = [Text("...", style="dim")]
    fonts = [ImageFont.truetype(_FONTS / f"DejaVuSansMono{weight}.ttf", SIZE) for weight in ("", "-Bold")]
    advance = fonts[0].getlength("0")
    width = 2 * MARGIN[0] + max(line.cell_len for line in lines) * advance
    image = Image.new("RGB", (round(width), round(2 * MARGIN[1] + len(lines) * LINE_HEIGHT)), PAPER)
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        x, y = float(MARGIN[0]), MARGIN[1] + row * LINE_HEIGHT
        for segment in line.render(console):
            style = segment.style or Style()
            pen.text((x, y), segment.text.rstrip("\n"), _colour(style), fonts[bool(style.bold)])
            x += segment.cell_length * advance
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _colour(style: Style) -> tuple[int, ...]:
    """Return the colour of letters; dim ones are half as bright above the paper."""
    colour = tuple(style.color.get_truecolor(THEME)) if style.color else INK
    return tuple((a + b) // 2 for a, b in zip(colour, PAPER, strict=True)) if style.dim else colour
