"""Token merging: nothing where none is merged, equal tokens lose nothing, and a batch changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from mst_clipiqa.encoders.clip import CLIPPair, load_clip_pair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.merging import merged, no_merges
from mst_clipiqa.encoders.pair import encode_views
from mst_clipiqa.errors import UsageError
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import clip_config, pixels, save_clip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("merging")
    deep = {**clip_config(16)["vision_config"], "num_hidden_layers": 4}
    return save_clip(root / "32", 32), save_clip(root / "16", 16, vision_config=deep)


def load(folders: tuple[Path, Path]) -> CLIPPair:
    return load_clip_pair(str(folders[0]), str(folders[1]), "closed form")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attended(query: torch.Tensor, tokens: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return attention of one query over tokens that are keys and values at once."""
    weights = (query @ tokens.transpose(1, 2) / tokens.shape[2] ** 0.5 + sizes.log().transpose(1, 2)).softmax(-1)
    seen: torch.Tensor = weights @ tokens
    return seen


def test_two_equal_tokens_merged_leave_attention_as_it_was() -> None:
    x = random(2, 9, 8)
    x[:, 4] = x[:, 7]  # an even and an odd place
    query, sizes = random(2, 1, 8, seed=1), no_merges(x)
    fewer, counts = merged(x, sizes, x.unsqueeze(1), 1)
    assert fewer.shape == (2, 8, 8)
    assert sorted(counts[0, :, 0].tolist()) == [1.0] * 7 + [2.0]
    torch.testing.assert_close(attended(query, fewer, counts), attended(query, x, sizes), atol=1e-6, rtol=1e-6)


def test_the_most_alike_are_merged_to_their_mean_and_the_class_token_is_kept() -> None:
    x = F.normalize(random(1, 8, 6), dim=-1)
    x[0, 1] = x[0, 0]  # a copy of [CLS], which is not merged all the same
    x[0, 5] = x[0, 2] + 0.01
    sizes = no_merges(x)
    sizes[0, 5] = 3
    fewer, counts = merged(x, sizes, x.unsqueeze(1), 1)
    assert torch.equal(fewer[0, 0], x[0, 0])
    assert float(counts.sum()) == float(sizes.sum())
    assert torch.allclose(fewer[0, counts[0, :, 0] == 4], (x[0, 2] + 3 * x[0, 5]) / 4)


def test_never_more_than_every_second_token_is_merged() -> None:
    x = random(1, 7, 4)
    assert merged(x, no_merges(x), x.unsqueeze(1), 99)[0].shape == (1, 4, 4)
    one = random(1, 1, 4)
    assert merged(one, no_merges(one), one.unsqueeze(1), 3)[0] is one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_none_changes_no_bit_and_merging_changes_little(folders: tuple[Path, Path], dtype: torch.dtype) -> None:
    clip = CLIPVisionModelWithProjection.from_pretrained(folders[1]).eval()
    tower = VisionTower(clip).compute_in(dtype)
    with torch.no_grad():
        whole = tower(pixels())
        assert torch.equal(tower.merge_tokens(0)(pixels()), whole)
        some = tower.merge_tokens(8)(pixels())
    assert not torch.equal(some, whole)
    assert float(F.cosine_similarity(some, whole).min()) > 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_mates_change_nothing(folders: tuple[Path, Path], precision: str) -> None:
    pair = load(folders).to("cpu", precision).merge_tokens(20)
    views = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    together, alone = encode_views(pair, views), encode_views(pair, views[2:])
    assert all(torch.equal(both[2:], one) for both, one in zip(together, alone, strict=True))


def test_merged_features_have_a_cache_of_their_own(folders: tuple[Path, Path]) -> None:
    pair = load(folders).to("cpu", "bf16").merge_tokens(20)
    assert pair.precision == "bf16-merge20"
    towers = [pair.mstfe.encoder_coarse, pair.mstfe.encoder_fine]
    assert [tower.merged_tokens for tower in towers if isinstance(tower, VisionTower)] == [5, 20]  # 49 and 196 patches
    assert pair.to("cpu", pair.precision).precision == "bf16-merge20"
    assert pair.merge_tokens(0).precision == "bf16"
    with pytest.raises(UsageError, match="Expected at most half of 196 tokens per block for --merge, got 99"):
        pair.merge_tokens(99)


def test_merging_is_refused_where_there_are_no_tokens(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="Expected CLIP-like encoders for --merge, got mini"):
        Scorer.load("mini", ScoreOptions(merge=8))
    scorer = Scorer.load(f"zero-shot:{folders[0]},{folders[1]}", merge=8, precision="fp32")
    assert scorer.encoder.encoders.precision == "fp32-merge8"
