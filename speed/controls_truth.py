"""Do the answers to controls tell the truth? Tries whose right order is known by construction.

    python -m speed.controls_truth [--model mini] [--tries 50] [-o FILE]

Negative prompt: a drawn thing must match its own colour better than another one. Reference: a part of an image must be
more like a copy of itself (JPEG, quality 90) than like a part of another image; the same with a degraded copy, four
fifths as large and of quality 60. Edges: the degraded copy must agree with the edge map of its original better than a
part of another image does.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.nn import functional as F

from mst_clipiqa.scoring.edges import edge_agreement, edge_map
from mst_clipiqa.scoring.scorer import Scorer
from speed.explain_truth import COLOURS, THINGS, images, thing
from speed.machine import machine, report

SHARE = 0.6
"""Side of a part, as a share of width and height."""


def colour_tries(count: int) -> Iterator[tuple[Image.Image, str, str, str]]:
    """Yield an image, the thing on it, its colour, and another colour."""
    names = list(COLOURS)
    every = itertools.product((3, 5, 2), THINGS, range(len(names)))
    for shift, name, index in itertools.islice(every, count):
        yield thing(name, names[index]), name, names[index], names[(index + shift) % len(names)]


def part_tries(count: int, seed: int = 0) -> Iterator[tuple[Image.Image, Image.Image, Image.Image]]:
    """Yield a part of an image, a degraded copy of it, and a part of another image."""
    rng = np.random.default_rng(seed)
    some = list(itertools.islice(images(), 8))
    for index in range(count):
        own = part(some[index % len(some)], rng)
        other = part(some[(index + 1 + int(rng.integers(len(some) - 1))) % len(some)], rng)
        yield own, degraded(own), other


def part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = round(SHARE * image.width), round(SHARE * image.height)
    x, y = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
    return image.crop((x, y, x + width, y + height))


def stored(image: Image.Image, quality: int) -> Image.Image:
    """Return an image as a JPEG gives it back."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def degraded(image: Image.Image) -> Image.Image:
    """Return an image four fifths as large, stored as a JPEG of quality 60."""
    return stored(image.resize((image.width * 4 // 5, image.height * 4 // 5)), 60)


def negative_rates(scorer: Scorer, count: int) -> dict[str, float]:
    """Return how often the own colour matches better, as a bare word and in a phrase."""
    right: dict[str, list[bool]] = {"word": [], "phrase": []}
    for image, name, own, other in colour_tries(count):
        encoded = scorer.encode([image]) * 4
        prompts = [own, other, f"a {own} {name}", f"a {other} {name}"]
        a, b, c, d = (score.correspondence or 0.0 for score in scorer.score_encoded(encoded, prompts))
        right["word"].append(a > b)
        right["phrase"].append(c > d)
    return {kind: float(np.mean(some)) for kind, some in right.items()}


def reference_rates(scorer: Scorer, count: int) -> dict[str, float]:
    """Return how often a copy is more alike than the other image, by stream and kind of copy."""
    right: dict[str, list[bool]] = {}
    for own, poor, other in part_tries(count):
        features = scorer.encode([own, stored(own, 90), poor, other])
        for stream, name in (("coarse", "f_c"), ("fine", "f_f")):
            mine, *others = (getattr(one, name) for one in features)
            copy, bad, far = (float(F.cosine_similarity(mine, one, dim=0)) for one in others)
            right.setdefault(f"{stream}, copy", []).append(copy > far)
            right.setdefault(f"{stream}, degraded copy", []).append(bad > far)
    return {kind: float(np.mean(some)) for kind, some in right.items()}


def edge_rate(count: int) -> float:
    """Return how often the copy agrees with the map better than the other image."""
    found = []
    for own, copy, other in part_tries(count):
        control = edge_map(own)
        found.append((edge_agreement(copy, control) or 0.0) > (edge_agreement(other, control) or 0.0))
    return float(np.mean(found))


def measure(model: str, tries: int) -> dict[str, Any]:
    scorer = Scorer.load(model, device="cpu", precision="fp32")
    return {
        "claim": (__doc__ or "").splitlines()[0],
        "model": model,
        "sha256": scorer.model.sha256[:12],
        "tries": tries,
        "negative": negative_rates(scorer, tries),
        "reference": reference_rates(scorer, tries),
        "edges": edge_rate(tries),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    report(measure(args.model, args.tries), args.output)


if __name__ == "__main__":
    main()
