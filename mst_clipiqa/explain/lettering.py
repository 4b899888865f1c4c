"""Lines of text in an image: in a font that has their letters, cut to the width that there is."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OF_SYSTEMS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "segoeui.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "msyh.ttc", "PingFang.ttc", "YuGothM.ttc", "malgun.ttf"),
    *("NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "Nirmala.ttf"),
)
"""Fonts of Linux, Windows and macOS, in the order in which they are tried; Pillow's own has English letters alone."""

_NO_LETTER = "\U0010ffff"


def font_for(words: str, size: int) -> Font:
    """Return Pillow's own font, or the first of the system's with the most letters if it lacks some."""
    letters = {letter for letter in words if not letter.isspace()}
    if all(_has("", letter) for letter in letters):
        return _font("", size)
    return _font(max(("", *_OF_SYSTEMS), key=lambda name: sum(_has(name, letter) for letter in letters)), size)


def fitted_line(words: str, font: Font, width: float) -> str:
    """Return text for one line of at most ``width`` pixels; control characters are replaced by visible ones."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in words)
    if font.getlength(shown) <= width:
        return shown
    low, high = 0, len(shown)  # the longest beginning that fits lies between
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(f"{shown[:middle]}...") <= width else (low, middle - 1)
    return f"{shown[:low]}..."


@lru_cache(256)
def _font(name: str, size: int) -> Font:
    """Return a font by its name; Pillow's own if the system does not have it."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return ImageFont.load_default(size)


@lru_cache(4096)
def _has(name: str, letter: str) -> bool:
    """Return whether a font draws a letter as anything but the sign for letters that it lacks."""
    font = _font(name, 15)
    return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))
