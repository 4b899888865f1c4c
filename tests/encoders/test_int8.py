"""int8: the small encoders in integers, nearly the same numbers, and the same bits in any batch."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mini_training.int8 import chosen, measure_int8
from mst_clipiqa.encoders import int8_weights, load_encoders
from mst_clipiqa.encoders.int8_weights import LEVELS, PAIR_LEVELS, SumBits, pair_sums, rounded, sum_bits
from mst_clipiqa.encoders.mini import int8, pair
from mst_clipiqa.encoders.mini.folder import MINI, load_mini_pair, save_mini_pair
from mst_clipiqa.encoders.mini.int8 import RANGES_FILE, Int8Tower, measured_ranges
from mst_clipiqa.encoders.mini.pair import MiniConfig, MiniParts
from mst_clipiqa.encoders.mini.text import TextConfig, TextEncoder
from mst_clipiqa.encoders.mini.towers import TowerConfig
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.model.preprocess import normalise
from tests.encoders.test_mini import random_tower, some_views

needs_int8 = pytest.mark.skipif(sum_bits() is None, reason="needs a CPU with AVX2")


def small_folder(folder: Path) -> Path:
    """Write small encoders with random weights."""
    full = load_mini_pair()
    text = TextConfig(full.text.config.words, dim=8, width=8, inner=8, layers=1, heads=2)
    tower = TowerConfig(dim=8, blocks=6)
    parts = MiniParts(random_tower(6), random_tower(6), TextEncoder(text), full.tokenizer)
    save_mini_pair(folder, MiniConfig(tower, tower, text, full.view), parts)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small encoders with the ranges of two images."""
    folder = small_folder(tmp_path_factory.mktemp("int8"))
    images = folder / "images"
    images.mkdir()
    for i, angle in enumerate((0, 90)):
        Image.linear_gradient("L").rotate(angle).convert("RGB").save(images / f"{i}.png")
    measure_int8(folder, chosen([images], 2))
    return folder


def test_the_ranges_that_ship_are_of_the_encoders_that_ship() -> None:
    ranges = load_mini_pair().ranges
    assert ranges is not None, "Measure them again: python -m mini_training.int8 IMAGES"
    assert len(ranges.coarse) == len(ranges.fine) == 16


@needs_int8
@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_is_encoded_to_the_same_bits_anywhere(measured: Path, threads: int) -> None:
    before = torch.get_num_threads()
    small = load_encoders(str(measured), "cpu", "int8")
    coarse, fine = some_views(load_mini_pair(measured), 6)
    together = encode_views(small, coarse, fine)
    torch.set_num_threads(threads)
    try:
        for order in ([5], [3, 2, 1, 0], [4, 4, 0, 1, 5]):
            moved = encode_views(small, coarse[order], fine[order])
            assert all(torch.equal(whole[order], some) for whole, some in zip(together, moved, strict=True))
    finally:
        torch.set_num_threads(before)


@needs_int8
@pytest.mark.parametrize(("bits", "off"), [(16, 0.12), (32, 0.1)])
def test_a_view_is_described_nearly_as_in_float32(bits: SumBits, off: float) -> None:
    if bits > (sum_bits() or 0):
        pytest.skip("this CPU adds products in 16 bits")
    tower, view = random_tower(), load_mini_pair().view
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8, generator=rng)
    pixels = pixels.repeat_interleave(8, -1).repeat_interleave(8, -2)  # 64 x 64, as smooth as an image
    normal = normalise(pixels, view)
    with torch.inference_mode():
        exact = tower.describe(normal.flatten(0, 1)).unflatten(0, (2, 3))
        found = Int8Tower(tower, measured_ranges(tower, normal), view, bits).describe(pixels)
    assert found.shape == exact.shape
    assert float((found - exact).square().mean().sqrt()) < off * float(exact.std())


def test_rounded_kernels_keep_their_sums() -> None:
    kernels = torch.randn(50, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    levels, scale = rounded(kernels, 32)
    assert levels.dtype == torch.int8
    back = levels.float() * scale.view(-1, 1, 1, 1)
    assert ((back - kernels).abs().flatten(1).amax(1) < 1.01 * scale).all()
    off = (back - kernels).flatten(1).sum(1).abs()
    assert (off <= 0.501 * scale).all()
    assert float(off.mean()) < 0.22 * float(scale.mean())  # a quarter, were there one scale to choose from


@needs_int8
@pytest.mark.parametrize(("inputs", "outputs", "side"), [(16, 96, 1), (24, 144, 1), (1152, 320, 1), (3, 32, 3)])
def test_sums_of_products_are_exact_where_they_are_largest(inputs: int, outputs: int, side: int) -> None:
    kernels = torch.randn(outputs, inputs, side, side, generator=torch.Generator().manual_seed(0))
    kernels[0] = 1  # all of one sign
    kernels[1, :2] = 100  # the first two far above the others
    kernels[2, 1:3] = 100  # neighbours, but no pair
    levels, scale = rounded(kernels, sum_bits() or 16)
    x = torch.full((1, inputs, 9, 9), 255, dtype=torch.uint8)
    geometry, zeros = ([1, 1], [side // 2] * 2, [1, 1], 1), torch.zeros(outputs, dtype=torch.int32)
    packed = torch.ops.onednn.qconv_prepack(levels, scale, 1.0, 0, *geometry, None)
    how: tuple[Any, ...] = (None, *geometry, 1.0, 0, torch.float32, "none", [], "")
    ones = torch.ones(outputs)
    maps = x.contiguous(memory_format=torch.channels_last)
    found = torch.ops.onednn.qconv2d_pointwise(maps, 1.0, 0, packed, ones, zeros, *how)
    exact = torch.nn.functional.conv2d(x.double(), levels.double(), None, padding=side // 2)
    assert torch.equal(found.double(), exact)


def test_for_sums_in_16_bits_no_pair_of_weights_of_one_sign_is_above_128() -> None:
    kernels = torch.randn(400, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    kernels[0] = -1
    kernels[1, 5] = 50  # its pair is small, so it keeps all levels
    kernels[1, 4] = 0.1
    levels, scale = rounded(kernels, 16)
    assert int(pair_sums(levels.int()).max()) <= PAIR_LEVELS
    assert int(levels[1].max()) == LEVELS - 1
    back = levels.float() * scale.view(-1, 1, 1, 1)
    assert ((back - kernels).abs().flatten(1).amax(1) < 1.01 * scale).all()
    wide = rounded(kernels, 32)[1]
    assert (wide <= scale).all() and (scale < 2.1 * wide).all()


def test_a_cpu_that_cuts_sums_off_is_noticed_and_one_that_is_wrong_even_so_has_no_int8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    for exact, bits in (({127, 64}, 32), ({64}, 16), (set(), None)):
        monkeypatch.setattr(int8_weights, "_is_exact", exact.__contains__)
        assert int8_weights.sum_bits.__wrapped__() == bits
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert int8_weights.sum_bits.__wrapped__() is None


@needs_int8
def test_how_sums_are_added_is_part_of_the_precision(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for bits in (16, 32):
        monkeypatch.setattr(pair, "sum_bits", partial(int, bits))
        names.add(load_mini_pair(measured).to("cpu", "int8").precision)
    assert len(names) == 2


@needs_int8
def test_int8_stays_int8_when_a_scorer_is_moved(measured: Path) -> None:
    small = load_mini_pair(measured).to("cpu", "int8")
    precision = small.precision
    assert precision.startswith("int8-")
    assert small.to("cpu", precision).precision == precision


@needs_int8
def test_auto_is_int8_where_ranges_are(measured: Path, tmp_path: Path) -> None:
    assert load_encoders(str(measured), "cpu").precision.startswith("int8-")
    bare = small_folder(tmp_path)
    assert load_encoders(str(bare), "cpu").precision in ("fp32", "bf16")
    (bare / RANGES_FILE).write_text(json.dumps({"encoders": "0" * 64, "coarse": [], "fine": []}))
    assert load_mini_pair(bare).ranges is None  # they are of other encoders
    with pytest.raises(UsageError, match=r"Expected a CPU with AVX2 and int8\.json"):
        load_encoders(str(bare), "cpu", "int8")


def test_where_the_cpu_cannot_auto_is_not_int8(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "sum_bits", lambda: None)
    assert load_encoders(str(measured), "cpu").precision in ("fp32", "bf16")


@pytest.mark.parametrize(
    "change", [{"coarse": [[0, 1]]}, {"fine": [[1, 2]] * 6}, {"fine": [[0, 1e9]] * 6}, {"fine": 7}, {"fine": None}]
)
def test_broken_ranges_are_named(measured: Path, tmp_path: Path, change: dict[str, object]) -> None:
    data = json.loads((measured / RANGES_FILE).read_text())
    (tmp_path / RANGES_FILE).write_text(json.dumps(data | change))
    towers = (TowerConfig(8, 6), TowerConfig(8, 6))
    with pytest.raises(ModelError, match=r"in .*int8\.json, got .*: delete or measure it"):
        int8.read_ranges(tmp_path, data["encoders"], towers, load_mini_pair().view)


def test_ranges_are_part_of_the_precision_and_so_of_the_cache(measured: Path) -> None:
    data = json.loads((measured / RANGES_FILE).read_text())
    towers, view = (TowerConfig(8, 6), TowerConfig(8, 6)), load_mini_pair(MINI).view
    first = int8.read_ranges(measured, data["encoders"], towers, view)
    int8.write_ranges(measured, data["encoders"], tuple(data["fine"]), tuple(data["coarse"]))
    try:
        second = int8.read_ranges(measured, data["encoders"], towers, view)
    finally:
        int8.write_ranges(measured, data["encoders"], tuple(data["coarse"]), tuple(data["fine"]))
    assert first is not None
    assert second is not None
    assert first.digest != second.digest
