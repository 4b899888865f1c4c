"""Where quality is lost: each window of the image scored alone, and compared with degraded versions of itself.

    left(window) = l(window) - mean of l(window, strongly blurred) and l(window, strongly compressed)
    lost(window) = mean of left over all windows - left(window)        l = log((q - 1) / (5 - q)), q the head's score

A window is scored alone by mirroring it until it fills the view, as if the whole image looked like it. Its content
changes the score too, a face more than a smooth sky. Subtracting the score of the degraded window leaves what the
window can still lose; a window with little left has lost it already. For a target that reads prompts, the content is
what is scored, so nothing is subtracted: lost = mean of q - q(window).

Occlusion, which covers one window and keeps the rest, shows less: an encoder that pools over the image hardly reacts
to one window. The map of both streams is the mean of two: the fine stream alone sees windows, and both see them. It is
right more often than either (docs/explain.md).

A window is cut at the scale at which its stream sees it: from the image as resized for the stream's view, or, for a
native fine stream, as resized (or not) for native crops.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.explain.results import Float32Array, Maps, MapUnit
from mst_clipiqa.features.encoded import EncodedPrompt
from mst_clipiqa.model.mst_clipiqa import to_native
from mst_clipiqa.model.preprocess import ViewSpec
from mst_clipiqa.scoring.predictor import Predictor

GRID = 8
"""Windows per row and column; each is encoded three times, for all targets and streams at once."""
WINDOW = 0.2
"""Side of a window, as a share of the image's width and height."""
_BLOCK = 8  # pixels; also the least side of a window
_MAX_ASPECT = 16  # largest aspect ratio; narrower images are squeezed
_EDGE = 0.02  # keeps the log-odds finite at the ends of the scale
_WINDOW_BATCH = 32  # windows per batch

Bytes: TypeAlias = NDArray[np.uint8]
Ruin: TypeAlias = Callable[[Image.Image], Image.Image]
Pair: TypeAlias = tuple[Tensor, Tensor]


@torch.inference_mode()
def window_maps(
    predictor: Predictor,
    image: Image.Image,
    features: tuple[Tensor, Tensor],
    targets: Mapping[str, EncodedPrompt | None],
) -> tuple[dict[str, Maps], int]:
    """Return the maps of each target, and how many rows were encoded for them.

    Args:
        predictor: encoders and heads.
        image: RGB.
        features: f_c and f_f of the image itself, float32 (D,).
        targets: the targets to map, each with its encoded prompt, or None.
    """
    corners = np.linspace(0, 1 - WINDOW, GRID)
    windows = np.array([[(x, y, x + WINDOW, y + WINDOW) for x in corners] for y in corners], np.float32)
    reads = {name: predictor.config.targets[name].head != "template" for name in targets}
    versions = [_encode(predictor, image, windows.reshape(-1, 4), ruin) for ruin in (_whole, *_RUINS)]
    found = {}
    for name, prompt in targets.items():
        lost: list[Float32Array] = []
        for seen in (_coarse_seen, _fine_seen, _both_seen):
            alone, *ruined = (_scores(predictor, name, prompt, seen(version, features)) for version in versions)
            left = alone if reads[name] else alone - torch.stack(ruined).mean(dim=0)
            lost.append((left.mean() - left).view(GRID, GRID).numpy())
        coarse, fine, both = lost
        unit: MapUnit = "points" if reads[name] else "log-odds"
        found[name] = Maps(coarse, fine, np.mean([fine, both], axis=0, dtype=np.float32), windows, unit)
    return found, len(versions) * GRID**2


def _coarse_seen(windows: Pair, own: Pair) -> Pair:
    """Return f_c of each window and f_f of the whole image, (windows, D) each."""
    return windows[0], own[1].expand_as(windows[1])


def _fine_seen(windows: Pair, own: Pair) -> Pair:
    """Return f_c of the whole image and f_f of each window, (windows, D) each."""
    return own[0].expand_as(windows[0]), windows[1]


def _both_seen(windows: Pair, own: Pair) -> Pair:
    """Return f_c and f_f of each window, (windows, D) each."""
    return windows


def _scores(predictor: Predictor, name: str, prompt: EncodedPrompt | None, features: tuple[Tensor, Tensor]) -> Tensor:
    """Return a target's scores of rows of features: native units, or log-odds for a head that reads no prompt."""
    target = predictor.config.targets[name]
    q = predictor.output(name, *features, [prompt] * len(features[0])).q
    if target.head != "template":
        return to_native(q, target.low, target.high)
    return torch.log((q - 1 + _EDGE) / (5 - q + _EDGE))  # near an end of the scale little can be lost in points


def _encode(predictor: Predictor, image: Image.Image, windows: Float32Array, ruin: Ruin) -> tuple[Tensor, Tensor]:
    """Return f_c, f_f of each window (count, 4), ruined at the scale of its view, float32 (count, D), on the CPU."""
    spec, device = predictor.encoders.view, predictor.encoders.device
    coarse = _filled(np.asarray(ruin(_scaled_as(image, spec))), windows, spec.size)
    fine = None
    if spec.own:
        fine = _filled(np.asarray(ruin(_scaled_as(image, spec.own))), windows, spec.own.size).unsqueeze(1)
    if spec.fine == "native":
        pixels = np.asarray(ruin(_scaled(image, _native(image, spec))))
        fine = _filled(pixels, windows, spec.crop_size).unsqueeze(1)
    parts = []
    for start in range(0, len(windows), _WINDOW_BATCH):
        rows = slice(start, start + _WINDOW_BATCH)
        crops = None if fine is None else fine[rows].to(device)
        parts.append(encode_views(predictor.encoders, coarse[rows].to(device), crops))
    return torch.cat([p[0] for p in parts]).cpu(), torch.cat([p[1] for p in parts]).cpu()


def _whole(image: Image.Image) -> Image.Image:
    return image


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(4))


def _compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=5)
    return Image.open(file)


_RUINS: tuple[Ruin, ...] = (_blurred, _compressed)


def _scaled_as(image: Image.Image, spec: ViewSpec) -> Image.Image:
    """Return the whole image at the scale at which a view shows it."""
    if spec.squash:
        return image.resize((spec.size, spec.size), Image.Resampling.BICUBIC, reducing_gap=spec.gap)
    return _scaled(image, spec.shorter or spec.size, spec.gap)


def _native(image: Image.Image, spec: ViewSpec) -> int:
    """Return the shorter side at which native crops are cut."""
    shorter = min(image.size)
    return max(spec.crop_size, min(shorter, spec.native_side or shorter))


def _scaled(image: Image.Image, shorter: int, gap: float | None = None) -> Image.Image:
    """Return the image with its shorter side at a length, shrunk as the view is."""
    ratio = min(max(image.size) / min(image.size), _MAX_ASPECT)
    longer = round(shorter * ratio)
    size = (shorter, longer) if image.width <= image.height else (longer, shorter)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=gap)


def _filled(pixels: Bytes, windows: Float32Array, side: int) -> Tensor:
    """Return each window, mirrored until it fills a square, uint8 (count, 3, side, side)."""
    height, width = pixels.shape[:2]
    views = []
    for left, top, right, bottom in windows.tolist():
        columns = _mirrored(*_span(left, right, width), side)
        rows = _mirrored(*_span(top, bottom, height), side)
        views.append(pixels[rows[:, None], columns].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(views))


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    """Return first pixel and number of pixels of a stretch that is given in shares, both whole blocks where possible.

    Compression leaves its marks on a grid of 8 pixels; a window that begins and mirrors on it keeps them in place.
    """
    count = min(length, max(_BLOCK, round((end - start) * length / _BLOCK) * _BLOCK))
    return max(0, min(round(start * length / _BLOCK) * _BLOCK, length - count)), count


def _mirrored(first: int, count: int, side: int) -> NDArray[np.intp]:
    """Return ``side`` indices that run to and fro over ``count`` pixels from ``first`` on."""
    phase = np.arange(side) % (2 * count)
    return np.asarray(first + np.where(phase < count, phase, 2 * count - 1 - phase), np.intp)
