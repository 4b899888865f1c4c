"""Drawn scenes with captions: one thing of one colour, before a wall, on a table or before a photograph.

Rated prompts are too few to learn what colours are called. A scene knows its own colour, so a caption with another one
is wrong for certain, and a caption without any lies between the two. Sizes, backgrounds, light and details vary: a
head that has heard colours on one kind of drawing does not hear them on another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mini_training.shapes import SHAPES, Point

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
THINGS = tuple(SHAPES)
FORMS = (
    "a {} {}",
    "a photo of a {} {}",
    "{} {}",
    "a {} {} on a table",
    "one {} {}, close up",
    "a {} {} in a room",
    "a drawing of a {} {}",
    "there is a {} {} on the floor",
)
PER_COLOUR = 120
"""Scenes of each colour."""
WRONG = 5
"""Captions of a scene that name a wrong colour."""
SIDES = (224, 256, 320, 384, 512)
"""How large scenes are, pixels."""

BACKGROUNDS = ("photograph", "wall", "plain", "table")

_ALIKE = {"yellow": "golden", "golden": "yellow"}


@dataclass(frozen=True)
class Scene:
    """What is drawn, and what is said of it."""

    seed: int
    colour: str
    thing: str
    background: str
    right: str
    without: str  # the colour left out
    wrong: tuple[str, ...]  # other colours

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions: the right one, the one without a colour, and the wrong ones."""
        return self.right, self.without, *self.wrong


def scenes() -> list[Scene]:
    """Return every scene; always the same."""
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    out = []
    for seed in range(PER_COLOUR * len(names)):
        # Every colour on every background: else the background tells the colour.
        background = BACKGROUNDS[seed // len(names) % len(BACKGROUNDS)]
        colour, thing, form = names[seed % len(names)], str(rng.choice(THINGS)), str(rng.choice(FORMS))
        others = rng.permutation([name for name in names if name not in (colour, _ALIKE.get(colour))])[:WRONG]
        wrong = tuple(_said(form, str(other), thing) for other in others)
        without = " ".join(form.format("", thing).split())
        out.append(Scene(seed, colour, thing, background, _said(form, colour, thing), without, wrong))
    return out


def _said(form: str, colour: str, thing: str) -> str:
    return form.format(colour, thing).replace("a orange", "an orange")


def draw(scene: Scene, photograph: Image.Image) -> Image.Image:
    """Return the scene, RGB, square; some stand before a part of the photograph."""
    rng = np.random.default_rng(scene.seed)
    side = int(rng.choice(SIDES))
    image = _background(scene.background, photograph, side, rng)
    size, turn = rng.uniform(0.2, 0.48), rng.uniform(-0.3, 0.3) * rng.integers(2)
    centre = rng.uniform(size, 1 - size, 2)
    masks = {part: Image.new("L", (2 * side, 2 * side)) for part in ("body", "detail")}
    pens = {part: ImageDraw.Draw(mask) for part, mask in masks.items()}
    for outline in SHAPES[scene.thing]:
        points = [_placed(p, 2 * side * centre, 2 * side * size, turn) for p in outline.points]
        for part, pen in pens.items():
            pen.polygon(points, fill=255 if outline.part == part else 0)
    fills = {"body": _near(COLOURS[scene.colour], rng), "detail": _detail(scene.colour, rng)}
    for part, mask in masks.items():
        if mask.getbbox():
            image.paste(_surface(fills[part], side, rng), mask=mask.resize((side, side), Image.Resampling.BOX))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1) * side / max(SIDES)))


def _background(kind: str, photograph: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    match kind:
        case "photograph":
            return _part(photograph, side, rng)
        case "wall":
            return _wall(side, rng)
        case "plain":
            return _plain(side, rng)
        case _:
            image, table = _plain(side, rng), _plain(side, rng)
            image.paste(table, (0, int(rng.uniform(0.4, 0.85) * side)))
            return image


def _detail(colour: str, rng: np.random.Generator) -> np.ndarray:
    """Return the colour of details: dark, wooden, or any that is not the thing's own."""
    others = ["black", "brown"] if rng.random() < 0.5 else [name for name in COLOURS if name != colour]
    return _near(COLOURS[str(rng.choice(others))], rng)


def _placed(point: Point, centre: np.ndarray, size: float, turn: float) -> Point:
    x, y = point
    across, down = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return (centre[0] + size * across, centre[1] + size * down)


def _near(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a colour that goes by the same name."""
    return np.clip(np.array(colour) * rng.uniform(0.85, 1.12) + rng.uniform(-9, 9, 3), 0, 255)


def _surface(fill: np.ndarray, side: int, rng: np.random.Generator) -> Image.Image:
    """Return the colour, half of the time under light from one side, with a little grain."""
    light = 1 + rng.integers(2) * rng.uniform(0, 0.25) * (2 * _slope(side, rng) - 1)
    return _image(fill * light[..., None] + rng.uniform(0, 8) * _grain(side, rng))


def _wall(side: int, rng: np.random.Generator) -> Image.Image:
    """Return a background without a colour worth a name: light or dark, even, shaded or blotched."""
    low, high = np.sort(rng.uniform(30, 235, 2))
    shade = low + (high - low) * (0.15 + 0.7 * _slope(side, rng))
    blotches = (rng.standard_normal((8, 8)) * rng.uniform(0, 40)).astype(np.float32)
    shade = shade + np.asarray(Image.fromarray(blotches).resize((side, side), Image.Resampling.BICUBIC))
    return _image(shade[..., None] + rng.uniform(-12, 12, 3) + rng.uniform(0, 10) * _grain(side, rng))


def _plain(side: int, rng: np.random.Generator) -> Image.Image:
    """Return an even background of little colour, nearly without grain."""
    shade = rng.uniform(40, 245) + rng.uniform(0, 50) * (_slope(side, rng) - 0.5)
    return _image(shade[..., None] + rng.uniform(-20, 20, 3) * rng.integers(2) + rng.uniform(0, 5) * _grain(side, rng))


def _slope(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return a slope from about 0 to about 1 across the image, in any direction, float (side, side)."""
    along, a = np.linspace(-0.5, 0.5, side) / math.sqrt(2), rng.uniform(0, 2 * math.pi)
    slope: np.ndarray = 0.5 + along * math.cos(a) + along[:, None] * math.sin(a)
    return slope


def _grain(side: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise that is weaker in smaller images, as if they had been shrunk, float (side, side, 1)."""
    return rng.standard_normal((side, side, 1), dtype=np.float32) * (side / max(SIDES))


def _part(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """Return a square part of an image, mirrored or not."""
    length = int(rng.uniform(0.5, 1) * min(image.size))
    left, top = (int(rng.integers(whole - length + 1)) for whole in image.size)
    part = image.crop((left, top, left + length, top + length)).resize((side, side), Image.Resampling.BICUBIC)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else part


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
