"""Views of tensors: Pillow's within a stated tolerance, with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.model.pixel_views import (
    TOLERANCE,
    _PixelImage,
    coarse_pixels,
    fine_pixels,
    normalised_pixels,
    weights_of_axis,
)
from mst_clipiqa.model.preprocess import ViewSpec, coarse_view, fine_views, normalise

MINI_LIKE = ViewSpec(size=64, fine="native", crops=4, crop_size=40, native_side=130, gap=1.0)
CLIP_LIKE = ViewSpec(size=48)
STRIPS = ((1, 900), (1200, 2), (40, 1500), (900, 33))


def draw_any(seed: int) -> Image.Image:
    """Draw noise, stripes or a ramp, of any size; noise and stripes are the hardest to resize."""
    rng = np.random.default_rng(seed)
    width, height = STRIPS[seed // 25] if seed % 25 == 0 else rng.integers(12, 260, 2).tolist()
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    match seed % 3:
        case 0:
            return Image.fromarray(noise)
        case 1:
            return Image.fromarray(
                np.where(np.indices((height, width)).sum(0) % 7 < 3, 255, 0).astype(np.uint8)
            ).convert("RGB")
    ramp = np.linspace(0, 200, width)[None, :, None] + noise / 5
    return Image.fromarray(ramp.astype(np.uint8))


def as_pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255


def differences(image: Image.Image, spec: ViewSpec) -> tuple[float, float]:
    """Return the largest and the mean difference of both streams' views."""
    pixels, fine, views = as_pixels(image), fine_views(image, spec), coarse_view(image, spec)
    gaps = [(coarse_pixels(pixels, spec)[0] - views / 255).abs().flatten()]
    ours = fine_pixels(pixels, spec)
    assert (fine is None) == (ours is None)
    if fine is not None and ours is not None:
        gaps.append((ours[0] - fine / 255).abs().flatten())
    return max(gap.max().item() for gap in gaps), torch.cat(gaps).mean().item()


def test_pixels_of_100_images_are_pillows_within_the_tolerance() -> None:
    found = [differences(draw_any(seed), (MINI_LIKE, CLIP_LIKE)[seed % 2]) for seed in range(100)]
    assert max(worst for worst, _ in found) <= TOLERANCE
    assert np.mean([mean for _, mean in found]) <= 0.35 / 255  # a quarter of a byte is what rounding once costs


@pytest.mark.parametrize("gap", [None, 1.0, 2.0])
@pytest.mark.parametrize("box", [None, (3.2, 5.9, 70.4, 90.0)])
@pytest.mark.parametrize("size", [(80, 60), (80, 81), (80, 101), (80, 300), (30, 100), (200, 90)])  # width, height
def test_black_and_white_noise_is_clipped_as_pillow_clips_it(
    size: tuple[int, int], box: tuple[float, float, float, float] | None, gap: float | None
) -> None:
    width, height = size
    if box:
        box = (box[0] * width / 80, box[1] * height / 100, box[2] * width / 80, box[3] * height / 100)
    noise = np.random.default_rng(width * height).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
    image = Image.fromarray(noise)
    for out in ((40, 40), (70, 30), (9, 11), (90, 110)):
        pillow = as_pixels(image.resize(out, Image.Resampling.BICUBIC, box=box, reducing_gap=gap))
        ours = _PixelImage(as_pixels(image)).resize(out, Image.Resampling.BICUBIC, box, gap).pixels
        assert (ours - pillow).abs().max() <= TOLERANCE, out


@pytest.mark.parametrize("ends", [(0.0, 50.0), (3.3, 41.9), (0.0, 3.0), (49.0, 50.0)])
@pytest.mark.parametrize("out", [1, 3, 8, 33, 46, 49, 51, 200])
def test_weights_enlarge_a_rounding_by_no_more_than_the_tolerance_counts_on(
    out: int, ends: tuple[float, float]
) -> None:
    sums = weights_of_axis(50, out, ends, Image.Resampling.BICUBIC).abs().sum(dim=1)
    assert sums.max() <= 1.27


def test_normalised_pixels_are_normalised_bytes() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    torch.testing.assert_close(normalised_pixels(pixels / 255, MINI_LIKE), normalise(pixels, MINI_LIKE))


@pytest.mark.parametrize("ends", [(0.0, 50.0), (3.3, 41.9)])
@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_each_pixel_is_a_weighted_mean(ends: tuple[float, float], resample: Image.Resampling) -> None:
    weights = weights_of_axis(50, 8, ends, resample)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(8, dtype=torch.float64))
    column = np.random.default_rng(1).integers(0, 256, (50, 1), dtype=np.uint8)
    pillow = Image.fromarray(column).resize((1, 8), resample, box=(0, ends[0], 1, ends[1]))
    got = weights @ torch.from_numpy(column).double()
    assert (got.clamp(0, 255) - torch.from_numpy(np.array(pillow)).double()).abs().max() <= 0.501


@pytest.mark.parametrize("size", [(9, 14), (23, 17)])
def test_gradients_of_the_views(size: tuple[int, int]) -> None:
    spec = ViewSpec(size=5, fine="native", crops=4, crop_size=6, native_side=8, gap=1.0)
    pixels = 0.4 + 0.2 * torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        fine = fine_pixels(x, spec)
        assert fine is not None
        return coarse_pixels(x, spec), fine

    assert torch.autograd.gradcheck(both, pixels.requires_grad_(), fast_mode=True)
