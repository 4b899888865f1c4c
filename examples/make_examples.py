"""Draws the images of this folder and writes metadata.csv: ``python examples/make_examples.py [FOLDER]``.

Four photographs come from the wheel of scikit-image (licences: README.md), four images are drawn here; some
also come in a distorted version. The same seeds give the same images.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

Floats = npt.NDArray[np.float64]
SAVE: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 86, "optimize": True},
    ".webp": {"quality": 84, "method": 6},
    ".png": {"optimize": True},
}


@dataclass(frozen=True)
class Example:
    """One file of the folder: what it shows, what the prompt asked for, and how it was distorted."""

    file_name: str
    prompt: str
    draw: Callable[[], Image.Image]
    distort: Callable[[Image.Image], Image.Image] = lambda image: image


# --- drawn here


def _to_image(rgb: Floats, width: int, height: int) -> Image.Image:
    """Turn floats in [0, 1], drawn larger than needed, into an image with smooth edges."""
    pixels = (rgb.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)


def _smooth_noise(shape: tuple[int, int], seed: int) -> Floats:
    """Return noise in [0, 1] that looks like clouds: its amplitude falls with the frequency."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(shape)) ** 1.6
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * falloff, s=shape)
    return np.asarray((noise - noise.min()) / (noise.max() - noise.min()))


def _wood(x: Floats, depth: Floats) -> Floats:
    """Return the colour of a wooden table at points of its plane: boards, and rings within a board."""
    board = np.floor(x * 1.1)
    shift = np.sin(board * 12.9898) * 43.7
    rings = np.sin(9 * (x + 0.12 * np.sin(depth * 1.3 + shift)) + 2.5 * np.sin(depth * 0.5 + shift) + shift)
    fibre = np.sin(x * 160 + 5 * np.sin(depth * 3 + shift))
    tone = 0.78 + 0.10 * rings + 0.03 * fibre + 0.06 * np.sin(shift)
    tone = tone * (1 - 0.5 * np.exp(-(((x * 1.1 - board) % 1 - 0.02) ** 2) / 0.00012))
    return np.asarray(tone[..., None] * np.array([0.72, 0.47, 0.27]))


def red_ball() -> Image.Image:
    """Draw a red ball on a wooden table, one ray a pixel, one lamp, a soft shadow."""
    width, height, scale = 384, 288, 3
    v, u = np.mgrid[0 : height * scale, 0 : width * scale] / (height * scale)
    ray = np.stack([u - 0.5 * width / height, 0.33 - v, np.full_like(u, 1.15)], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    eye, centre, radius = np.array([0.0, 1.55, 0.0]), np.array([0.05, 0.75, 3.6]), 0.75
    lamp = np.array([-3.0, 5.0, 0.8])

    depth = np.where(ray[..., 1] < -1e-3, -eye[1] / np.minimum(ray[..., 1], -1e-3), 60.0).clip(0, 60)
    ground = eye + ray * depth[..., None]
    to_lamp = lamp - ground
    to_lamp /= np.linalg.norm(to_lamp, axis=-1, keepdims=True)
    miss = np.linalg.norm(np.cross(to_lamp, centre - ground), axis=-1)  # how far the lamp's ray passes the ball
    shade = 0.30 + 0.70 / (1 + np.exp(-(miss - radius) / 0.06))
    table = _wood(ground[..., 0], ground[..., 2]) * (shade * to_lamp[..., 1] * 1.25)[..., None]
    wall = np.array([0.80, 0.84, 0.86]) * (1.05 - 0.35 * v[..., None])
    rgb = np.where((ground[..., 2] < 9.0)[..., None], table, wall)

    along = ray @ (centre - eye)
    inside = along**2 - ((centre - eye) @ (centre - eye) - radius**2)
    normal = (eye + ray * (along - np.sqrt(inside.clip(0)))[..., None] - centre) / radius
    light = (lamp - centre) / np.linalg.norm(lamp - centre)
    diffuse = (normal @ light).clip(0)[..., None]
    mirror = ray - 2 * np.sum(ray * normal, axis=-1, keepdims=True) * normal
    shine = (mirror @ light).clip(0)[..., None]
    from_table = (-normal[..., 1:2]).clip(0) * np.array([0.20, 0.11, 0.05])
    ball = np.array([0.82, 0.06, 0.07]) * (0.16 + 0.9 * diffuse) + from_table + 0.85 * shine**60 + 0.08 * shine**6
    return _to_image(np.where((inside > 0)[..., None], ball, rgb), width, height)


def dead_leaves() -> Image.Image:
    """Draw overlapping discs of many sizes, as fallen leaves cover each other: edges at every scale."""
    side, scale = 256, 3
    rng = np.random.default_rng(7)
    autumn = [
        (176, 58, 30),
        (214, 126, 38),
        (232, 182, 74),
        (120, 82, 44),
        (96, 110, 52),
        (150, 40, 44),
        (66, 50, 40),
    ]
    image = Image.new("RGB", (side * scale, side * scale), (60, 45, 35))
    pen = ImageDraw.Draw(image)
    for _ in range(900):
        radius = scale * 7 / rng.uniform(0.012, 1) ** 0.5
        x, y = rng.uniform(-0.1, 1.1, 2) * side * scale
        colour = np.array(autumn[rng.integers(len(autumn))]) * rng.uniform(0.75, 1.15)
        red, green, blue = (int(c) for c in colour.clip(0, 255))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def fractal() -> Image.Image:
    """Draw a Julia set, coloured by how fast each point escapes."""
    width, height, scale = 400, 300, 3
    y, x = np.mgrid[-1.05 : 1.05 : height * scale * 1j, -1.4 : 1.4 : width * scale * 1j]
    z, speed = x + 1j * y, np.zeros(x.shape)
    for _ in range(220):
        inside = np.abs(z) < 8
        z[inside] = z[inside] ** 2 + (-0.79 + 0.15j)
        speed += inside
    smooth = speed + 1 - np.log2(np.maximum(np.log(np.maximum(np.abs(z), 1.001)), 1e-9))
    tone = np.log1p(smooth.clip(0))[..., None]
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (0.62 * tone + np.array([0.55, 0.40, 0.22])))
    return _to_image(np.where((speed < 220)[..., None], wave, 0.03), width, height)


def sunset() -> Image.Image:
    """Draw a sunset behind three ranges of hills, with a few clouds."""
    width, height, scale = 512, 320, 2
    v, u = np.mgrid[0 : height * scale, 0 : width * scale] / (height * scale)
    stops = np.array([[0.10, 0.17, 0.42], [0.46, 0.36, 0.58], [0.95, 0.55, 0.36], [1.0, 0.83, 0.52]])
    sky = np.stack([np.interp(v, [0, 0.28, 0.52, 0.68], stops[:, c]) for c in range(3)], axis=-1)
    from_sun = np.hypot(u - 1.05, v - 0.55)[..., None]
    sky += np.exp(-from_sun / 0.16) * np.array([0.5, 0.36, 0.16])
    cloud = ((_smooth_noise((v.shape[0], v.shape[1]), 3) - 0.52) * 4).clip(0, 1) * (0.75 - v).clip(0, 1)
    sky = sky + 0.7 * cloud[..., None] * (np.array([1.0, 0.66, 0.55]) - sky)
    rgb = np.where(from_sun < 0.06, np.array([1.0, 0.96, 0.80]), sky)
    hills = [
        (0.60, 0.16, 5, (0.40, 0.27, 0.38)),
        (0.72, 0.20, 6, (0.24, 0.17, 0.27)),
        (0.85, 0.22, 9, (0.09, 0.08, 0.13)),
    ]
    for level, rough, seed, colour in hills:
        ridge = level + rough * (_smooth_noise((4, v.shape[1]), seed)[1] - 0.5)
        haze = ((v - ridge) * 0.5).clip(0, 0.12)[..., None]
        rgb = np.where((v > ridge)[..., None], np.array(colour) + haze, rgb)
    return _to_image(rgb, width, height)


# --- photographs, and what is done to them


def _photo(load: Callable[[], npt.NDArray[np.uint8]], width: int) -> Callable[[], Image.Image]:
    def draw() -> Image.Image:
        image = Image.fromarray(load()).convert("RGB")
        return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)

    return draw


coffee, cat = _photo(data.coffee, 480), _photo(data.chelsea, 400)
astronaut, rocket = _photo(data.astronaut, 320), _photo(data.rocket, 448)


def blurred(image: Image.Image) -> Image.Image:
    """Blur as an unfocused lens does, with a radius of 4 pixels."""
    return image.filter(ImageFilter.GaussianBlur(4))


def noisy(image: Image.Image) -> Image.Image:
    """Add independent noise with a standard deviation of 35 of 255 to each value."""
    noise = np.random.default_rng(1).normal(0, 35, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image, dtype=np.float64) + noise).clip(0, 255).round().astype(np.uint8))


def squeezed(image: Image.Image) -> Image.Image:
    """Send the image through JPEG at quality 5."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=5)
    return Image.open(buffer).convert("RGB")


def shrunk(image: Image.Image) -> Image.Image:
    """Shrink the image to a sixth and enlarge it again."""
    small = image.resize((image.width // 6, image.height // 6), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


COFFEE = "a cup of coffee with a spoon on a wooden table"
CAT = "a close-up photo of a ginger cat"
ASTRONAUT = "a portrait of a smiling astronaut in an orange space suit"
ROCKET = "a rocket on its launch pad at dusk"
BALL = "a red ball on a wooden table"
SUNSET = "a sunset sky over dark hills"
EXAMPLES = [
    Example("astronaut.webp", ASTRONAUT, astronaut),
    Example("astronaut_noise.jpg", ASTRONAUT, astronaut, noisy),
    Example("cat.jpg", CAT, cat),
    Example("cat_jpeg.png", CAT, cat, squeezed),
    Example("coffee.jpg", COFFEE, coffee),
    Example("coffee_blur.jpg", COFFEE, coffee, blurred),
    Example("dead_leaves.png", "overlapping round autumn leaves", dead_leaves),
    Example("fractal.webp", "a colourful fractal", fractal),
    Example("red_ball.png", BALL, red_ball),
    Example("red_ball_blur.webp", BALL, red_ball, blurred),
    Example("red_ball_wrong_prompt.jpg", "a black dog running through snow", red_ball),
    Example("rocket.jpg", ROCKET, rocket),
    Example("rocket_small.png", ROCKET, rocket, shrunk),
    Example("sunset.jpg", SUNSET, sunset),
]


def main(folder: Path) -> None:
    """Write every example and the table of prompts into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    clean = {draw: draw() for draw in dict.fromkeys(example.draw for example in EXAMPLES)}
    for example in EXAMPLES:
        path = folder / example.file_name
        example.distort(clean[example.draw]).save(path, **SAVE[path.suffix])
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "prompt"])
        rows.writerows([example.file_name, example.prompt] for example in EXAMPLES)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
