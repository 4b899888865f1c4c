"""Score the same images in batches of several sizes, in two orders and with several threads, and compare every bit.

    python -m speed.same_bits --folder AGIQA-3K/images kodak ... --images 500

A part of the images comes from the folders, as evenly as possible; the others are drawn: one colour, gradients,
fractals and screenshots, whose values lie on the boundaries of whatever is counted or compared. Each has a prompt, of
several lengths, or none. Of several precisions, each is compared with itself. JSON goes to stdout; the exit code is 1
if any score differs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.names import is_image_name
from speed.machine import machine, report

_DRAWN = 0.2  # share of the images
_PROMPTS = ("a fox", None, "a red car", "a photo of a red dog and a cat in the long grass of a park, soft light", "sea")


@dataclass(frozen=True)
class Way:
    """One way to score all images."""

    batch_size: int
    threads: int
    is_reversed: bool = False


WAYS = (Way(1, 1), Way(7, 2), Way(32, 4), Way(32, 1, True), Way(7, 4, True))
"""The first is what the others are compared with; each size, order and number of threads occurs."""


def flat(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (224 + int(rng.integers(200)), 240), tuple(rng.integers(0, 256, 3).tolist()))


def gradient(rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0 : 200 + rng.integers(200), 0:256] / 255
    slopes = rng.uniform(-255, 255, (2, 3))
    pixels = 128 + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def fractal(rng: np.random.Generator) -> Image.Image:
    """Return a part of the Mandelbrot set: flat areas, and edges of every direction."""
    y, x = np.mgrid[0:260, 0:260] / 260
    width = rng.uniform(0.5, 3)
    c = rng.uniform(-1.5, -0.5) + width * (x - 0.5) + 1j * width * (y - 0.5)
    z, steps = c.copy(), np.zeros(c.shape, int)
    for _ in range(50):
        inside = abs(z) < 2
        z = np.where(inside, z * z + c, z)
        steps += inside
    return Image.fromarray(np.dstack([x * 76, steps * 5, y * 76]).astype(np.uint8))


def screenshot(rng: np.random.Generator) -> Image.Image:
    """Return boxes and text with exact horizontal and vertical edges."""
    width, height = (int(side) for side in rng.integers(300, 700, 2))
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 24), fill=tuple(rng.integers(0, 256, 3).tolist()))
    for row in range(40, height, int(rng.integers(12, 30))):
        pen.text((8, row), "File Edit View Help " * 3, fill=(20, 20, 20))
        pen.line((0, row, width, row), fill=(200, 200, 200))
    return image


DRAWINGS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    function.__name__: function for function in (flat, gradient, fractal, screenshot)
}


def collect(folders: Sequence[Path], count: int, into: Path) -> list[tuple[str, Path]]:
    """Return kind and path of ``count`` images; those that are drawn are written to a folder."""
    rng = np.random.default_rng(0)
    files = [sorted(p for p in folder.iterdir() if is_image_name(p.name)) for folder in folders]
    names = [folder.parent.name if folder.name == "images" else folder.name for folder in folders]
    shuffled = [[(name, some[i]) for i in rng.permutation(len(some))] for name, some in zip(names, files, strict=True)]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shuffled))  # small folders are used up first
    found = list(itertools.islice((one for one in turns if one), round(count * (1 - _DRAWN))))
    for i in range(count - len(found)):
        kind = list(DRAWINGS)[i % len(DRAWINGS)]
        DRAWINGS[kind](rng).save(path := into / f"{kind}-{i}.png")
        found.append((kind, path))
    return [found[i] for i in rng.permutation(len(found))]


def scored(scorer: Scorer, files: Sequence[Path], way: Way) -> list[Score]:
    """Return the score of each image, in the order of the files."""
    requests = [
        ScoreRequest[int](file, prompt, i) for i, (file, prompt) in enumerate(zip(files, prompts(), strict=False))
    ]
    torch.set_num_threads(way.threads)
    scorer.encoder.batch_size = way.batch_size
    found = scorer.stream(requests[::-1] if way.is_reversed else requests)
    return [score for _, score in sorted(found, key=lambda pair: pair[0].tag or 0)]


def prompts() -> itertools.cycle[str | None]:
    return itertools.cycle(_PROMPTS)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="folders of images")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="one or more; default: fp32")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args(argv)
    facts, threads = machine(), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        chosen = collect(args.folder, args.images, Path(folder))
        files, different = [file for _, file in chosen], 0
        for precision in args.precision:
            scorer = Scorer.load(args.model, device="cpu", precision=precision)
            first = scored(scorer, files, WAYS[0])
            different += sum(_different(first, scored(scorer, files, way)) for way in WAYS[1:])
    torch.set_num_threads(threads)
    kinds = [kind for kind, _ in chosen]
    found = {
        "claim": (__doc__ or "").splitlines()[0],
        "model": args.model,
        "precision": args.precision,
        "images": len(files),
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "failed": sum(score.error is not None for score in first),
        "ways": [asdict(way) for way in WAYS],
        "different": different,
        "machine": facts,
    }
    report(found, args.output)
    return 1 if found["different"] else 0


def _different(first: Sequence[Score], other: Sequence[Score]) -> int:
    """Return how many scores differ, in any number or word."""
    return sum(one != two for one, two in zip(first, other, strict=True))


if __name__ == "__main__":
    sys.exit(main())
