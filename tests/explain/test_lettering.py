"""Lines of text in images: nothing runs out of its place, and letters are drawn if any font has them."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

from mst_clipiqa.explain import lettering
from mst_clipiqa.explain.lettering import fitted_line, font_for

DEJAVU = "DejaVuSans.ttf"


def has_dejavu() -> bool:
    try:
        return bool(ImageFont.truetype(DEJAVU, 15))
    except OSError:
        return False


@pytest.mark.parametrize("words", ["W" * 300, "i" * 300, "a red ball " * 40, "\u0645" * 300, "\u4e2d" * 300])
def test_a_line_is_as_long_as_fits_and_no_longer(words: str) -> None:
    font = font_for(words, 15)
    line = fitted_line(words, font, 500)
    assert line.endswith("...") and words.startswith(line[:-3])
    assert font.getlength(line) <= 500 < font.getlength(f"{words[: len(line) - 2]}...")


def test_a_line_that_fits_is_left_alone_and_signs_that_control_are_seen() -> None:
    font = font_for("a fox", 15)
    assert fitted_line("a fox", font, 500) == "a fox"
    assert fitted_line("a\x1bfox\n", font, 500) == "a\ufffdfox\ufffd"
    assert fitted_line("a fox", font, 1) == "..."


def test_english_needs_no_font_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_OF_SYSTEMS", ("no-such-font.ttf",))
    own = font_for("a fox (0 to 5)", 15)
    lettering._has.cache_clear()
    assert own is font_for("\u00e9\u4e2d", 15)  # without another one, it is all there is
    assert bytes(own.getmask("a")) != bytes(own.getmask("b"))


@pytest.mark.skipif(not has_dejavu(), reason="needs the font DejaVu Sans")
@pytest.mark.parametrize(
    "words", ["un renard \u00e9l\u00e9gant", "\u043b\u0438\u0441\u0430", "\u062b\u0639\u0644\u0628"]
)
def test_letters_come_from_a_font_that_has_them(words: str) -> None:
    font = font_for(words, 15)
    box = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in words if letter != " ")


def test_a_letter_that_no_font_has_does_not_change_the_others() -> None:
    font = font_for("fox \U0010fffe", 15)
    image = Image.new("L", (100, 30))
    ImageDraw.Draw(image).text((2, 2), "fox \U0010fffe", fill=255, font=font)
    assert image.getbbox() is not None
    assert bytes(font.getmask("f")) != bytes(font.getmask("\U0010ffff"))
