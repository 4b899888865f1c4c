"""Drawn scenes with captions: one thing of one colour, before a wall, a gradient or a photograph.

Rated prompts are too few to learn what colours are called. A scene knows its own colour, so a caption with another one
is wrong for certain, and a caption without any lies between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 32, 36),
    "orange": (238, 132, 28),
    "yellow": (236, 208, 44),
    "green": (46, 148, 58),
    "blue": (40, 84, 196),
    "purple": (122, 48, 158),
    "pink": (240, 142, 182),
    "brown": (112, 68, 36),
    "black": (26, 26, 28),
    "white": (240, 240, 238),
    "gray": (128, 128, 130),
    "golden": (206, 162, 46),
}
"""What a colour is called, and what it looks like, red, green and blue 0..255."""
THINGS = ("ball", "box", "star", "heart", "ring", "house", "car", "flower", "tree", "boat", "cup", "balloon")
FORMS = ("a {} {}", "a photo of a {} {}", "{} {}", "a {} {} on a table", "one {} {}, close up", "a {} {} in a room")
PER_COLOUR = 60
"""Scenes of each colour."""

_SIDE = 512
_Point = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """What is drawn, and three captions, each worse than the one before."""

    seed: int
    colour: str
    thing: str
    right: str
    without: str  # the colour left out
    recoloured: str  # a wrong colour

    @property
    def captions(self) -> tuple[str, str, str]:
        """The captions, best first."""
        return self.right, self.without, self.recoloured


def scenes() -> list[Scene]:
    """Return every scene; always the same."""
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    out = []
    for seed in range(PER_COLOUR * len(names)):
        colour, thing = names[seed % len(names)], str(rng.choice(THINGS))
        form = str(rng.choice(FORMS))
        wrong = str(rng.choice([c for c in names if c != colour and {c, colour} != {"yellow", "golden"}]))
        without = " ".join(form.format("", thing).split())
        out.append(Scene(seed, colour, thing, _said(form, colour, thing), without, _said(form, wrong, thing)))
    return out


def _said(form: str, colour: str, thing: str) -> str:
    return form.format(colour, thing).replace("a orange", "an orange")


def draw(scene: Scene, photograph: Image.Image) -> Image.Image:
    """Return the scene, RGB 512 x 512; every third one stands before the photograph."""
    rng = np.random.default_rng(scene.seed)
    image = _square(photograph) if scene.seed % 3 == 0 else _wall(rng)
    fill = _near(COLOURS[scene.colour], rng)
    shape = Image.new("L", (2 * _SIDE, 2 * _SIDE))
    size, turn = rng.uniform(0.28, 0.46), rng.uniform(-0.3, 0.3)
    centre = rng.uniform(size, 1 - size, 2)
    pen = ImageDraw.Draw(shape)
    for outline in _outlines(scene.thing):
        pen.polygon([_placed(p, centre, size, turn) for p in outline.points], fill=255 if outline.filled else 0)
    mask = shape.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    image.paste(_surface(fill, rng), mask=mask)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


@dataclass(frozen=True)
class _Outline:
    points: list[_Point]  # within -1..1, y down
    filled: bool = True  # else cut out


def _outlines(thing: str) -> list[_Outline]:
    match thing:
        case "ball":
            return [_Outline(_ellipse(0, 0, 1, 1))]
        case "box":
            return [_Outline(_rectangle(-0.8, -0.7, 0.8, 0.7)), _Outline(_rectangle(-0.8, -0.42, 0.8, -0.38), False)]
        case "star":
            turns = [(k * math.pi / 5, 1 if k % 2 == 0 else 0.42) for k in range(10)]
            return [_Outline([(r * math.sin(a), -r * math.cos(a)) for a, r in turns])]
        case "heart":
            turn = np.linspace(0, 2 * math.pi, 60)
            x, y = np.sin(turn) ** 3, 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn)
            return [_Outline(list(zip(x.tolist(), (-y / 16).tolist(), strict=True)))]
        case "ring":
            return [_Outline(_ellipse(0, 0, 1, 1)), _Outline(_ellipse(0, 0, 0.55, 0.55), False)]
        case "house":
            roof, door = [(-0.95, -0.15), (0, -1), (0.95, -0.15)], _rectangle(-0.15, 0.4, 0.15, 0.9)
            return [_Outline(_rectangle(-0.75, -0.15, 0.75, 0.9)), _Outline(roof), _Outline(door, False)]
        case "car":
            cabin = [(-0.55, -0.05), (-0.3, -0.5), (0.35, -0.5), (0.65, -0.05)]
            wheels = [_Outline(_ellipse(x, 0.42, 0.2, 0.2)) for x in (-0.55, 0.55)]
            return [_Outline(_rectangle(-1, -0.05, 1, 0.4)), _Outline(cabin), *wheels]
        case "flower":
            angles = np.linspace(0, 2 * math.pi, 7)[:-1]
            petals = [_Outline(_ellipse(0.55 * math.cos(a), 0.55 * math.sin(a), 0.4, 0.4)) for a in angles]
            return [*petals, _Outline(_ellipse(0, 0, 0.22, 0.22), False)]
        case "tree":
            crowns = [[(-0.7, 0.4), (0, -0.4), (0.7, 0.4)], [(-0.55, -0.1), (0, -1), (0.55, -0.1)]]
            return [*map(_Outline, crowns), _Outline(_rectangle(-0.12, 0.4, 0.12, 1))]
        case "boat":
            hull, sail = [(-1, 0.3), (1, 0.3), (0.6, 0.8), (-0.6, 0.8)], [(0, -1), (0, 0.2), (0.75, 0.2)]
            return [_Outline(hull), _Outline(sail)]
        case "cup":
            handle = [_Outline(_ellipse(0.6, 0, 0.4, 0.4)), _Outline(_ellipse(0.6, 0, 0.22, 0.22), False)]
            return [*handle, _Outline([(-0.7, -0.7), (0.6, -0.7), (0.45, 0.8), (-0.55, 0.8)])]
        case _:
            return [_Outline(_ellipse(0, -0.25, 0.7, 0.75)), _Outline([(-0.1, 0.62), (0, 0.48), (0.1, 0.62)])]


def _ellipse(x: float, y: float, a: float, b: float) -> list[_Point]:
    return [(x + a * math.cos(t), y + b * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 48)]


def _rectangle(left: float, top: float, right: float, bottom: float) -> list[_Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _placed(point: _Point, centre: np.ndarray, size: float, turn: float) -> _Point:
    x, y = point
    across, down = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return (2 * _SIDE * (centre[0] + size * across), 2 * _SIDE * (centre[1] + size * down))


def _near(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a colour that goes by the same name."""
    return np.clip(np.array(colour) * rng.uniform(0.85, 1.12) + rng.uniform(-7, 7, 3), 0, 255)


def _surface(fill: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return the colour under light from one side, with a little grain."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    a = rng.uniform(0, 2 * math.pi)
    light = 1 + rng.uniform(0, 0.25) * (x * math.cos(a) + y * math.sin(a))
    pixels = fill * light[..., None] + rng.uniform(0, 8) * rng.standard_normal((_SIDE, _SIDE, 1))
    return _image(pixels)


def _wall(rng: np.random.Generator) -> Image.Image:
    """Return a background without a colour worth a name: light or dark, even, shaded or blotched."""
    low, high = np.sort(rng.uniform(30, 235, 2))
    y, x = np.mgrid[0 : 1 : _SIDE * 1j, 0 : 1 : _SIDE * 1j]
    a = rng.uniform(0, 2 * math.pi)
    shade = low + (high - low) * (0.5 + 0.35 * (x * math.cos(a) + y * math.sin(a)))
    blotches = rng.standard_normal((8, 8)) * rng.uniform(0, 40)
    shade = shade + np.asarray(
        Image.fromarray(blotches.astype(np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    )
    tint = rng.uniform(-12, 12, 3)
    return _image(shade[..., None] + tint + rng.uniform(0, 10) * rng.standard_normal((_SIDE, _SIDE, 1)))


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
