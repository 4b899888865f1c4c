"""Outlines of the things that drawn scenes show, within -1..1, y down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True)
class Outline:
    """A part of a thing.

    Attributes:
        points: its corners.
        part: "body" has the thing's colour, "cut" shows the background, "detail" has a colour of its own.
    """

    points: list[Point]
    part: Literal["body", "cut", "detail"] = "body"


def outlines(thing: str) -> list[Outline]:
    """Return a thing's parts, in the order in which they are drawn."""
    return SHAPES[thing]


def ellipse(x: float, y: float, a: float, b: float) -> list[Point]:
    """Return an ellipse around (x, y)."""
    return [(x + a * math.cos(t), y + b * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 48)]


def rectangle(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(points: int, inner: float) -> list[Point]:
    turns = [(k * math.pi / points, 1 if k % 2 == 0 else inner) for k in range(2 * points)]
    return [(r * math.sin(a), -r * math.cos(a)) for a, r in turns]


def _heart() -> list[Point]:
    turn = np.linspace(0, 2 * math.pi, 60)
    x, y = np.sin(turn) ** 3, 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn)
    return list(zip(x.tolist(), (-y / 16).tolist(), strict=True))


def _half(y: float, width: float, height: float) -> list[Point]:
    """Return the upper half of an ellipse, its flat side at y."""
    return [(width * math.cos(t), y - height * math.sin(t)) for t in np.linspace(0, math.pi, 30)]


SHAPES: dict[str, list[Outline]] = {
    "apple": [
        Outline(ellipse(-0.3, 0.15, 0.6, 0.75)),
        Outline(ellipse(0.3, 0.15, 0.6, 0.75)),
        Outline(rectangle(-0.05, -0.95, 0.05, -0.45), "detail"),
    ],
    "balloon": [Outline(ellipse(0, -0.25, 0.7, 0.75)), Outline([(-0.1, 0.62), (0, 0.48), (0.1, 0.62)])],
    "bird": [
        Outline(ellipse(-0.05, 0.1, 0.65, 0.4)),
        Outline(ellipse(0.55, -0.3, 0.28, 0.28)),
        Outline([(-0.5, 0), (-1, -0.35), (-0.95, 0.25)]),
        Outline([(0.8, -0.35), (1, -0.25), (0.8, -0.18)], "detail"),
        Outline(rectangle(-0.08, 0.48, -0.02, 0.85), "detail"),
        Outline(rectangle(0.12, 0.48, 0.18, 0.85), "detail"),
    ],
    "boat": [
        Outline([(-1, 0.3), (1, 0.3), (0.6, 0.8), (-0.6, 0.8)]),
        Outline([(0, -1), (0, 0.2), (0.75, 0.2)]),
        Outline(rectangle(-0.06, -1, 0, 0.3), "detail"),
    ],
    "book": [
        Outline(rectangle(-0.7, -0.9, 0.7, 0.9)),
        Outline(rectangle(-0.6, 0.72, 0.72, 0.86), "detail"),
        Outline(rectangle(-0.35, -0.55, 0.4, -0.42), "detail"),
    ],
    "bottle": [
        Outline(rectangle(-0.38, -0.25, 0.38, 0.95)),
        Outline([(-0.38, -0.24), (-0.13, -0.6), (0.13, -0.6), (0.38, -0.24)]),
        Outline(rectangle(-0.13, -0.95, 0.13, -0.6), "detail"),
    ],
    "box": [Outline(rectangle(-0.8, -0.7, 0.8, 0.7)), Outline(rectangle(-0.8, -0.42, 0.8, -0.38), "cut")],
    "bus": [
        Outline(rectangle(-1, -0.55, 1, 0.45)),
        *(Outline(rectangle(x, -0.4, x + 0.36, 0), "detail") for x in (-0.9, -0.42, 0.06, 0.54)),
        *(Outline(ellipse(x, 0.45, 0.2, 0.2), "detail") for x in (-0.55, 0.55)),
    ],
    "butterfly": [
        *(Outline(ellipse(0.5 * s, -0.3, 0.48, 0.5)) for s in (-1, 1)),
        *(Outline(ellipse(0.4 * s, 0.45, 0.36, 0.4)) for s in (-1, 1)),
        Outline(ellipse(0, 0, 0.09, 0.8), "detail"),
    ],
    "chair": [
        Outline(rectangle(-0.6, -1, 0.6, -0.05)),
        Outline(rectangle(-0.75, 0.05, 0.75, 0.3)),
        *(Outline(rectangle(x, 0.3, x + 0.14, 1), "detail") for x in (-0.7, 0.56)),
    ],
    "cup": [
        Outline(ellipse(0.6, 0, 0.4, 0.4)),
        Outline(ellipse(0.6, 0, 0.22, 0.22), "cut"),
        Outline([(-0.7, -0.7), (0.6, -0.7), (0.45, 0.8), (-0.55, 0.8)]),
    ],
    "fish": [
        Outline(ellipse(0.1, 0, 0.75, 0.45)),
        Outline([(-0.5, 0), (-1, -0.45), (-1, 0.45)]),
        Outline(ellipse(0.5, -0.1, 0.07, 0.07), "detail"),
    ],
    "hat": [
        Outline(ellipse(0, 0.5, 1, 0.22)),
        Outline(_half(0.5, 0.6, 1)),
        Outline(rectangle(-0.6, 0.22, 0.6, 0.4), "detail"),
    ],
    "heart": [Outline(_heart())],
    "kite": [
        Outline([(0, -1), (0.65, -0.25), (0, 0.75), (-0.65, -0.25)]),
        Outline(rectangle(-0.02, -1, 0.02, 1), "detail"),
    ],
    "lamp": [
        Outline([(-0.4, -0.9), (0.4, -0.9), (0.8, 0.05), (-0.8, 0.05)]),
        Outline(rectangle(-0.06, 0.05, 0.06, 0.8), "detail"),
        Outline(ellipse(0, 0.85, 0.4, 0.1), "detail"),
    ],
    "leaf": [Outline(ellipse(0, -0.1, 0.5, 0.85)), Outline(rectangle(-0.03, -0.7, 0.03, 1), "detail")],
    "ring": [Outline(ellipse(0, 0, 1, 1)), Outline(ellipse(0, 0, 0.55, 0.55), "cut")],
    "shirt": [
        Outline(rectangle(-0.55, -0.7, 0.55, 0.9)),
        *(Outline([(0.5 * s, -0.7), (s, -0.2), (0.75 * s, 0.05), (0.45 * s, -0.2)]) for s in (-1, 1)),
        Outline(ellipse(0, -0.7, 0.22, 0.18), "cut"),
    ],
    "star": [Outline(_star(5, 0.42))],
    "tree": [
        Outline([(-0.7, 0.4), (0, -0.4), (0.7, 0.4)]),
        Outline([(-0.55, -0.1), (0, -1), (0.55, -0.1)]),
        Outline(rectangle(-0.12, 0.4, 0.12, 1), "detail"),
    ],
    "umbrella": [
        Outline(_half(0, 1, 0.9)),
        Outline(rectangle(-0.04, 0, 0.04, 0.9), "detail"),
        Outline(rectangle(-0.04, 0.82, 0.24, 0.9), "detail"),
    ],
    "vase": [
        Outline(ellipse(0, 0.3, 0.6, 0.6)),
        Outline([(-0.22, -0.2), (-0.4, -0.95), (0.4, -0.95), (0.22, -0.2)]),
    ],
}
"""Of each thing, its parts in the order in which they are drawn."""
