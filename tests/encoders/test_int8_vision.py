"""CLIP's blocks in int8: near to float32, exact sums, evened inputs, and the same bits in any batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CLIPVisionModelWithProjection

from mst_clipiqa.encoders import int8_vision, load_encoders
from mst_clipiqa.encoders.adapter import merge_adapter, new_adapter
from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.int8_vision import Int8Block
from mst_clipiqa.encoders.int8_weights import sum_bits
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.encoders.precision import resolve_precision
from mst_clipiqa.errors import UsageError
from tests.closed_form import clip_config, save_clip
from tests.encoders.tiny import COARSE, FINE, altclip, chinese_clip, metaclip_2, siglip

BITS = sum_bits()
pytestmark = pytest.mark.skipif(BITS is None, reason="needs a CPU with AVX2")
WIDTH, INNER = 64, 256


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def product(weight: torch.Tensor, bias: torch.Tensor) -> int8_vision.Product:
    assert BITS is not None
    return int8_vision.Product(weight, bias, BITS)


@pytest.mark.parametrize("is_low_bounded", [False, True])
@torch.inference_mode()
def test_sums_are_exact_at_every_level(is_low_bounded: bool) -> None:
    # Levels and weights of whole numbers: float64 gives the same. The weights of each row have one sign, so that sums
    # in 16 bits would be cut off if too large.
    weight = normal(24, WIDTH).sign() * 63 * torch.ones(24, 1)
    weight[:8], weight[8:16] = 63, -63
    weight[:, 0] = 127 if BITS == 32 else 63
    x = torch.randint(-127, 128, (2, 9, WIDTH), generator=torch.Generator().manual_seed(1)).float()
    x[..., 0], x[..., 1] = 127, -127
    if is_low_bounded:
        x[..., 0] = 128
    got = product(weight, torch.arange(24.0))(x, is_low_bounded)
    want = x.double() @ weight.double().T + torch.arange(24)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


@torch.inference_mode()
def test_each_token_has_a_scale_of_its_own() -> None:
    one = product(normal(24, WIDTH), normal(24, seed=1))
    x = normal(1, 5, WIDTH, seed=2)
    alone = one(x[:, 2:3])
    x[:, 3] *= 1000
    assert torch.equal(one(x)[:, 2:3], alone)
    assert torch.isfinite(one(torch.zeros(1, 1, WIDTH))).all()


@torch.inference_mode()
def test_levels_are_rounded_to_the_nearest() -> None:
    one, x = product(torch.eye(WIDTH), torch.zeros(WIDTH)), normal(1, 50, WIDTH, seed=6).abs() - 0.1
    span, unit = x.amax(2, keepdim=True) + 0.1, 1 + 1e-4
    assert bool(((one(x, is_low_bounded=True) - x).abs() <= unit * span / 255).all())  # rounded twice: x, and 0
    assert bool(((one(x) - x).abs() <= unit * x.abs().amax(2, keepdim=True) / 254).all())
    constant = torch.full((1, 1, WIDTH), 3.0)
    torch.testing.assert_close(one(constant, is_low_bounded=True), constant)


@torch.inference_mode()
def test_after_the_activation_all_levels_are_used(folders: tuple[Path, Path]) -> None:
    layer = CLIPVisionModelWithProjection.from_pretrained(folders[1]).vision_model.encoder.layers[0]
    assert BITS is not None
    block, x = Int8Block(layer, BITS), normal(1, 50, layer.mlp.fc1.in_features, seed=7)
    hidden = block.activation(block.up(block.norm_mlp(x)))
    assert torch.equal(block.add_mlp(x.clone()), x + block.down(hidden, is_low_bounded=True))
    want = layer.mlp.fc2(hidden)
    errors = [float((block.down(hidden, flag) - want).norm()) for flag in (True, False)]
    assert errors[0] < 0.9 * errors[1]


@torch.inference_mode()
def test_evened_inputs_change_the_rounding_and_nothing_else() -> None:
    norm, weight = nn.LayerNorm(WIDTH), normal(24, WIDTH, seed=3)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.weight[3] *= 40
    evened, columns = int8_vision.evened(norm, weight)
    x = normal(1, 50, WIDTH, seed=4)
    want = norm(x) @ weight.T
    torch.testing.assert_close(evened(x) @ columns.T, want, rtol=1e-4, atol=1e-4)
    bias = torch.zeros(24)
    errors = [float((got - want).norm()) for got in (product(columns, bias)(evened(x)), product(weight, bias)(norm(x)))]
    assert errors[0] < errors[1] / 2


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("int8")
    text = {**clip_config(16)["text_config"], "hidden_act": request.param}
    coarse, fine = (
        save_clip(
            root / str(patch),
            patch,
            vision_config={**clip_config(patch)["vision_config"], "num_hidden_layers": 4, "hidden_act": request.param},
            text_config=text,
        )
        for patch in (32, 16)
    )
    return coarse, fine


def load(folders: tuple[Path, Path], precision: str) -> CLIPPair:
    pair = load_encoders(",".join(map(str, folders)), "cpu", precision)
    assert isinstance(pair, CLIPPair)
    return pair


def some_views(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def test_features_are_near_those_of_fp32(folders: tuple[Path, Path]) -> None:
    exact, small = load(folders, "fp32"), load(folders, "int8")
    assert small.precision == ("int8" if BITS == 32 else "int8-pairs")
    for tower in small.towers:
        assert isinstance(tower, VisionTower)
        assert len(tower.fused) == 3  # all blocks but the last
        assert all(isinstance(block, Int8Block) for block in tower.fused)
    for want, got in zip(encode_views(exact, some_views(5)), encode_views(small, some_views(5)), strict=True):
        assert not torch.equal(want, got)
        assert float((got - want).norm() / want.norm()) < 0.05


def test_a_pair_that_moves_where_int8_is_not_computes_as_auto_does_there(folders: tuple[Path, Path]) -> None:
    pair = load(folders, "int8").merge_tokens(4)
    assert pair.to("meta", pair.precision).precision == f"{resolve_precision('auto', torch.device('meta'))}-merge4"
    with pytest.raises(UsageError, match="Expected a CPU with AVX2 for precision int8"):
        pair.to("meta", "int8")


@pytest.mark.parametrize("family", [metaclip_2, altclip, chinese_clip])
def test_other_clip_like_families_have_it_too(family: Callable[[Path, int], Path], tmp_path: Path) -> None:
    pair = family(tmp_path / "coarse", COARSE), family(tmp_path / "fine", FINE)
    views = some_views(3)[..., :32, :32].contiguous()
    for want, got in zip(*(encode_views(load(pair, name), views) for name in ("fp32", "int8")), strict=True):
        assert not torch.equal(want, got)
        assert float((got - want).norm() / want.norm()) < 0.05


@pytest.mark.parametrize("merged", [0, 12])
def test_batch_mates_and_threads_change_nothing(folders: tuple[Path, Path], merged: int) -> None:
    pair, views = load(folders, "int8").merge_tokens(merged), some_views(7)
    together = encode_views(pair, views)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        for alone, whole in zip(encode_views(pair, views[5:]), together, strict=True):
            assert torch.equal(alone, whole[5:])
    finally:
        torch.set_num_threads(threads)


def test_an_adapter_is_merged_into_weights_before_they_are_rounded(folders: tuple[Path, Path]) -> None:
    before, exact, small = (load(folders, precision) for precision in ("int8", "fp32", "int8"))
    for pair in (exact, small):
        adapter = new_adapter(pair, "norm")
        for weight in adapter.weights.values():
            weight.add_(0.05)
        merge_adapter(pair, adapter, "some")
    views = some_views(2)
    features = (encode_views(pair, views) for pair in (before, exact, small))
    for old, want, got in zip(*features, strict=True):
        assert float((got - want).norm()) < float((got - old).norm()) / 5


def test_fp32_comes_back_to_the_last_bit(folders: tuple[Path, Path]) -> None:
    want = encode_views(load(folders, "fp32"), some_views(2))
    got = encode_views(load(folders, "int8").to("cpu"), some_views(2))
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_the_name_of_a_precision_asks_for_it_again(folders: tuple[Path, Path]) -> None:
    pair = load(folders, "int8").merge_tokens(8)
    name = pair.precision
    assert pair.to("cpu", name).precision == name == f"{load(folders, 'int8').precision}-merge8"


def test_what_has_no_int8_says_so(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = siglip(tmp_path / "coarse", COARSE), siglip(tmp_path / "fine", FINE)
    with pytest.raises(UsageError, match=r"Expected CLIP-like encoders for int8, got .*: choose auto\."):
        load(pooled, "int8")
    monkeypatch.setattr("mst_clipiqa.encoders.clip.sum_bits", lambda: None)
    with pytest.raises(UsageError, match=r"Expected a CPU with AVX2 for precision int8, got none: choose auto\."):
        load(folders, "int8")


def test_a_loaded_model_of_transformers_is_left_as_it_was(folders: tuple[Path, Path]) -> None:
    clip = CLIPVisionModelWithProjection.from_pretrained(folders[1]).eval()
    before = {name: weight.clone() for name, weight in clip.state_dict().items()}
    tower = VisionTower(clip)
    tower.sum_bits = BITS
    tower.fuse().release()
    assert not tower.fused
    assert all(torch.equal(before[name], weight) for name, weight in clip.state_dict().items())
