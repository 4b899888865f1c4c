"""Do explanations tell the truth? One distorted region, and one wrong colour in a caption.

    python -m speed.explain_truth [--model mini] [--tries 50] [-o FILE]

Region test: one region of a clean image is distorted (blur, noise or JPEG blocks); the map is right if the centre
of its worst window is in that region. Word test: an image of a thing in a colour, asked with the right colour and
with a wrong one; the words are right if the wrong colour is the word that lowers the score most.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mst_clipiqa.explain import explain
from mst_clipiqa.explain.results import STREAMS, Box
from mst_clipiqa.explain.words import word_effects
from mst_clipiqa.scoring.scorer import Scorer
from speed.machine import machine, report

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CLEAN = (
    "astronaut.webp",
    "cat.jpg",
    "coffee.jpg",
    "red_ball.png",
    "rocket.jpg",
    "fractal.webp",
    "sunset.jpg",
    "dead_leaves.png",
)
DISTORTED = ("blur", "noise", "jpeg")
SIDE = 1 / 3
"""Side of the distorted region, as a share of width and height."""
VISIBLE = 10.0
"""Least root mean square change of the region, of 255: blurring a clear sky distorts nothing."""
COLOURS = {
    "red": (205, 30, 35),
    "green": (40, 150, 60),
    "blue": (40, 80, 200),
    "yellow": (235, 205, 40),
    "black": (25, 25, 28),
    "white": (240, 240, 238),
    "orange": (240, 130, 30),
    "pink": (240, 140, 180),
}
THINGS = ("ball", "car", "house", "flower")


@dataclass(frozen=True)
class Try:
    """An image with one distorted region."""

    image: Image.Image
    kind: str
    box: Box


def images() -> Iterator[Image.Image]:
    """Yield the clean images of examples/, photographs and drawings, as they are and mirrored, endlessly."""
    for turn in itertools.count():
        for name in CLEAN:
            image = Image.open(EXAMPLES / name).convert("RGB")
            yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn % 2 else image


def distorted(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """Return the whole image distorted in one way, at the strength of a ruined image."""
    match kind:
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(6))
        case "noise":
            noisy = np.asarray(image) + 60 * rng.standard_normal((image.height, image.width, 3))
            return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        case _:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=4)
            return Image.open(file).convert("RGB")


def region_tries(count: int, seed: int = 0) -> Iterator[Try]:
    """Yield images with one region distorted, placed at random where it can be seen."""
    rng = np.random.default_rng(seed)
    for index, image in zip(range(count), images(), strict=False):
        kind = DISTORTED[index % len(DISTORTED)]
        bad = distorted(image, kind, rng)
        change = np.square(np.asarray(bad, float) - np.asarray(image, float)).mean(axis=2)
        width, height = round(SIDE * image.width), round(SIDE * image.height)
        for _ in range(20):
            x, y = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
            if change[y : y + height, x : x + width].mean() >= VISIBLE**2:
                break
        damaged = image.copy()
        damaged.paste(bad.crop((x, y, x + width, y + height)), (x, y))
        box = (x / image.width, y / image.height, (x + width) / image.width, (y + height) / image.height)
        yield Try(damaged, kind, box)


def holds(region: Box, window: Box) -> bool:
    """Return whether the centre of a window is in a region."""
    x, y = (window[0] + window[2]) / 2, (window[1] + window[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]


def region_rates(scorer: Scorer, count: int) -> dict[str, Any]:
    """Return how often each stream's map finds the distorted region, overall and for each way to distort."""
    hits: dict[str, dict[str, list[bool]]] = {stream: defaultdict(list) for stream in STREAMS}
    for one in region_tries(count):
        maps = explain(scorer, one.image).maps["quality"]
        for stream in STREAMS:
            hits[stream][one.kind].append(holds(one.box, maps.worst(stream)))
    return {
        stream: {"all": _mean([hit for found in kinds.values() for hit in found])}
        | {kind: _mean(found) for kind, found in kinds.items()}
        for stream, kinds in hits.items()
    }


def thing(name: str, colour: str, size: int = 256) -> Image.Image:
    """Draw a thing in a colour on a plain table, large enough to be recognised."""
    seed = sum(map(ord, name + colour))
    rng = np.random.default_rng(seed)
    back = np.linspace(205, 165, size)[:, None, None] + 4 * rng.standard_normal((size, size, 3))
    image = Image.fromarray(back.clip(0, 255).astype(np.uint8)).resize((2 * size, 2 * size))
    pen, fill = ImageDraw.Draw(image), COLOURS[colour]
    match name:
        case "ball":
            pen.ellipse((110, 130, 400, 420), fill=fill)
        case "car":
            pen.rounded_rectangle((60, 250, 450, 370), 30, fill=fill)
            pen.polygon([(140, 250), (190, 170), (330, 170), (390, 250)], fill=fill)
            for x in (110, 320):
                pen.ellipse((x, 320, x + 90, 410), fill=(40, 40, 40))
        case "house":
            pen.rectangle((120, 240, 400, 440), fill=fill)
            pen.polygon([(90, 240), (260, 110), (430, 240)], fill=(120, 70, 50))
            pen.rectangle((230, 330, 290, 440), fill=(90, 60, 40))
        case _:
            pen.line((256, 280, 256, 490), fill=(50, 120, 50), width=14)
            for turn in np.linspace(0, 2 * np.pi, 6, endpoint=False):
                x, y = 256 + 75 * np.cos(turn), 220 + 75 * np.sin(turn)
                pen.ellipse((x - 60, y - 60, x + 60, y + 60), fill=fill)
            pen.ellipse((216, 180, 296, 260), fill=(230, 190, 60))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def word_rates(scorer: Scorer) -> dict[str, Any]:
    """Return how often a wrong colour is found, with two definitions of found."""
    lowest, below = [], []
    names = list(COLOURS)
    for name in THINGS:
        for index, colour in enumerate(names):
            image, wrong = thing(name, colour), names[(index + 3) % len(names)]
            effects = []
            encoded = scorer.encode([image])[0]
            for said in (colour, wrong):
                found = word_effects(scorer.predictor, "correspondence", encoded, f"a {said} {name} on a table")
                effects.append({word.text: word.effect for word in found})
            right, swapped = effects
            below.append(swapped[wrong] < right[colour])
            lowest.append(min(swapped, key=lambda word: swapped[word]) == wrong)
    return {"tries": len(below), "wrong below right": _mean(below), "wrong is the lowest word": _mean(lowest)}


def _mean(found: list[bool]) -> float | None:
    return round(sum(found) / len(found), 3) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--no-words", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    scorer = Scorer.load(args.model, device="cpu", precision="fp32")
    result = {
        "claim": (__doc__ or "").splitlines()[0],
        "model": args.model,
        "sha256": scorer.model.config.encoders.sha256[:12],
        "tries": args.tries,
        "regions": region_rates(scorer, args.tries),
        "words": None if args.no_words else word_rates(scorer),
        "machine": machine(),
    }
    report(result, args.output)


if __name__ == "__main__":
    main()
