"""Recordings of a CUDA card: when a tower uses one, and which shapes are recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from mst_clipiqa.cli import group
from mst_clipiqa.encoders import recorded
from mst_clipiqa.encoders.clip import CHUNK, CHUNK_CUDA, CLIPPair, load_clip_pair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.precision import Precision
from mst_clipiqa.features.encoding import BATCH_SIZE
from mst_clipiqa.features.image_encoder import ImageEncoder
from tests.closed_form import save_clip
from tests.fakes import FakePair


@pytest.fixture
def clip(tmp_path: Path) -> CLIPPair:
    return load_clip_pair(str(save_clip(tmp_path / "32", 32)), str(save_clip(tmp_path / "16", 16)), "closed form")


class Noted:
    """In place of a recording: computes anew, and notes the shapes."""

    made: list[tuple[int, ...]]

    def __init__(self, work: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.work = work
        Noted.made.append(tuple(x.shape))

    def __call__(self, x: Tensor) -> Tensor:
        return self.work(x)


def test_each_shape_is_recorded_once_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_Recording", Noted)
    monkeypatch.setattr(Noted, "made", [], raising=False)
    twice = recorded.Recorded(lambda x: 2 * x)
    for count in (1, 2, 1, 3, 4, 5, 5, 2):
        assert torch.equal(twice(torch.ones(count)), torch.full((count,), 2.0))
    assert Noted.made == [(1,), (2,), (3,), (4,)]


def test_a_tower_replays_in_inference_alone_and_never_while_it_merges_tokens(clip: CLIPPair) -> None:
    tower = clip.mstfe.encoder_fine
    assert isinstance(tower, VisionTower)
    pixels, answer = torch.zeros(1, 3, 224, 224), torch.full((1, clip.dim), 7.0)
    tower.recorded = recorded.Recorded(lambda _: answer)
    tower.recorded._recordings[(pixels.shape, pixels.dtype, pixels.device)] = lambda _: answer
    with torch.inference_mode():
        assert torch.equal(tower(pixels), answer)
        tower.merge_tokens(1)
        assert not torch.equal(tower(pixels), answer)
        tower.merge_tokens(0)
    assert not torch.equal(tower(pixels), answer)  # with gradients
    tower.float()  # weights that move end the recording
    assert tower.recorded is None


def test_a_copy_of_a_tower_makes_recordings_of_its_own(clip: CLIPPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_Recording", Noted)
    monkeypatch.setattr(Noted, "made", [], raising=False)
    tower, pixels = clip.mstfe.encoder_fine, torch.zeros(1, 3, 224, 224)
    assert isinstance(tower, VisionTower)
    tower.recorded = recorded.Recorded(tower.computed)
    with torch.inference_mode():
        want = tower(pixels)
        other = copy.deepcopy(tower)
        tower.clip.visual_projection.weight.mul_(2)
        assert torch.allclose(other(pixels), want, atol=1e-4)
        assert torch.allclose(tower(pixels), 2 * want, atol=1e-4)
    assert len(Noted.made) == 2


def test_a_card_gets_larger_chunks_and_batches_that_fill_them(clip: CLIPPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "_precision", Precision("bf16"))
    assert clip.chunking.size == CHUNK
    monkeypatch.setattr(CLIPPair, "device", property(lambda _: torch.device("cuda")))
    assert clip.chunking.size == CHUNK_CUDA
    assert ImageEncoder(clip).batch_size == 2 * CHUNK_CUDA
    assert ImageEncoder(clip, batch_size=5).batch_size == 5
    assert ImageEncoder(FakePair()).batch_size == BATCH_SIZE


@pytest.mark.parametrize(("cores", "workers"), [(None, 2), (1, 1), (8, 8), (64, 16)])
def test_a_card_has_a_decoding_thread_per_core(
    clip: CLIPPair, cores: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr(CLIPPair, "device", property(lambda _: torch.device("cuda")))
    assert ImageEncoder(clip).workers == workers
    assert ImageEncoder(clip, workers=5).workers == 5
    assert ImageEncoder(FakePair()).workers == 2


def test_help_names_the_batches_that_are_made() -> None:
    of_score, of_cluster = (
        " ".join(CliRunner().invoke(group, [name, "--help"]).stdout.split()) for name in ("score", "score-cluster")
    )
    for text in (of_score, of_cluster):
        assert f"Images per batch; default: {BATCH_SIZE}, or {2 * CHUNK_CUDA} for CLIP on a CUDA card." in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_recording_gives_what_the_tower_computes_and_follows_weights_that_change_in_place(clip: CLIPPair) -> None:
    clip.to("cuda", "bf16")
    tower = clip.mstfe.encoder_fine
    assert isinstance(tower, VisionTower)
    with torch.inference_mode():
        for seed in range(3):
            rng = torch.Generator("cuda").manual_seed(seed)
            pixels = torch.randn(2, 3, 224, 224, generator=rng, device="cuda")
            assert torch.equal(tower(pixels), tower.computed(pixels))
        before = tower(pixels)
        tower.clip.visual_projection.weight.mul_(2)
        assert torch.equal(tower(pixels), 2 * before)
