"""Where quality is lost: each window of the picture judged alone.

A window is mirrored until it fills the view, as if all of the picture looked like it, and scored. Windows that score
below the rest are where the score is lost. Covering one window and leaving the rest (the usual occlusion) asks the
opposite question, and was measured to find a spoilt region far less often: a small encoder that pools over the whole
picture hardly changes its mind for one window, however bad. Numbers: docs/explain.md.

Both views are cut so that a window keeps the scale at which its stream sees it: the coarse one from the picture as
shrunk for the coarse view, a native fine one from the picture as shrunk (or not) for native crops.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mst_clipiqa.explain.explanation import Floats, Maps
from mst_clipiqa.judge import Judge, Prompt
from mst_clipiqa.model.mst_clipiqa import to_native
from mst_clipiqa.model.preprocess import ViewSpec

GRID = 8
"""Windows a row and a column; all of them are encoded once, for every target and stream."""
WINDOW = 0.2
"""Side of a window, as a share of the picture's width and height."""
_BLOCK = 8  # pixels; also the least side of a window
_LONGEST = 16  # longer side of a picture, in shorter ones; a strip beyond that is squeezed
_STEP = 32  # rows encoded at a time

Bytes = NDArray[np.uint8]


@torch.inference_mode()
def window_maps(
    judge: Judge, image: Image.Image, features: tuple[Tensor, Tensor], targets: Mapping[str, Prompt | None]
) -> tuple[dict[str, Maps], int]:
    """Return the maps of each target, and how many rows were encoded for them.

    Args:
        judge: encoders and heads.
        image: RGB.
        features: f_c and f_f of the picture itself, float32 (D,).
        targets: the targets to map, each with the prompt that it is asked with.
    """
    corners = np.linspace(0, 1 - WINDOW, GRID)
    windows = np.array([[(x, y, x + WINDOW, y + WINDOW) for x in corners] for y in corners], np.float32)
    f_c, f_f = _encode(judge, image, windows.reshape(-1, 4))
    count = len(f_c)
    own_c, own_f = (one.expand(count, -1) for one in features)
    streams = {"coarse": (f_c, own_f), "fine": (own_c, f_f), "both": (f_c, f_f)}
    found = {}
    for name, prompt in targets.items():
        target = judge.config.targets[name]
        lost: dict[str, Floats] = {}
        for stream, pair in streams.items():
            native = to_native(judge.output(name, *pair, [prompt] * count).q, target.low, target.high)
            lost[stream] = (native.mean() - native).view(GRID, GRID).numpy()
        found[name] = Maps(windows=windows, **lost)
    return found, count


def _encode(judge: Judge, image: Image.Image, windows: Floats) -> tuple[Tensor, Tensor]:
    """Return f_c, f_f of each window (count, 4), float32 (count, D), on the CPU."""
    spec, device = judge.encoders.view, judge.encoders.device
    coarse = _filled(_scaled(image, spec.size), windows, spec.size)
    fine = None
    if spec.fine == "native":
        fine = _filled(_scaled(image, _native(image, spec)), windows, spec.crop_size).unsqueeze(1)
    parts = []
    for start in range(0, len(windows), _STEP):
        rows = slice(start, start + _STEP)
        crops = None if fine is None else fine[rows].to(device)
        parts.append(judge.encoders.encode_views(coarse[rows].to(device), crops))
    return torch.cat([p[0] for p in parts]).cpu(), torch.cat([p[1] for p in parts]).cpu()


def _native(image: Image.Image, spec: ViewSpec) -> int:
    """Return the shorter side at which native crops are cut."""
    shorter = min(image.size)
    return max(spec.crop_size, min(shorter, spec.native_side or shorter))


def _scaled(image: Image.Image, shorter: int) -> Bytes:
    """Return the picture's pixels (H, W, 3) with its shorter side at a length."""
    ratio = min(max(image.size) / min(image.size), _LONGEST)
    longer = round(shorter * ratio)
    size = (shorter, longer) if image.width <= image.height else (longer, shorter)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _filled(pixels: Bytes, windows: Floats, side: int) -> Tensor:
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
