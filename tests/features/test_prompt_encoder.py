"""Prompts are encoded once: found again in memory, then on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mst_clipiqa.encoders.pair import PromptTokens
from mst_clipiqa.features import prompt_encoder
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.prompt_encoder import PromptEncoder
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair, draw

PROMPTS = ["a fox", "a very long red fox", "a fox", "zzz"]


def test_memory_comes_before_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = FakePair()
    with Cache(tmp_path) as cache:
        encoder = PromptEncoder(pair, cache.space(pair))
        first = encoder.encode(PROMPTS)
        assert (pair.prompts, cache.info()[0].prompts) == (3, 3)
        monkeypatch.setattr(cache, "row", None)  # the disk is not asked again
        again = encoder.encode(PROMPTS[::-1])[::-1]
    assert pair.prompts == 3
    assert all(one is two for one, two in zip(first, again, strict=True))
    assert [len(one.tokens) for one in first] == [4, 7, 4, 3]  # the words and two tokens around them, no padding


def test_the_oldest_prompts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_encoder, "_IN_MEMORY", 2)
    encoder = PromptEncoder(pair := FakePair())
    assert len(encoder.encode(["one", "two", "three"])) == 3  # more at once than are kept
    encoder.encode(["two", "three"])
    assert pair.prompts == 3
    encoder.encode(["one"])
    assert pair.prompts == 4


@pytest.mark.parametrize(("at_once", "cores", "expected"), [(2, 1, [1, 2, 2]), (16, 2, [2, 3]), (16, 8, [1] * 5)])
def test_prompts_are_shared_out_in_groups_as_large_as_the_encoder_takes(
    at_once: int, cores: int, expected: list[int]
) -> None:
    sizes: list[int] = []

    class Counting(FakePair):
        def encode_prompts(self, prompts: list[str]) -> PromptTokens:
            sizes.append(len(prompts))
            return super().encode_prompts(prompts)

    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        PromptEncoder(Counting(prompts_at_once=at_once)).encode(["one", "two", "three", "four", "five"])
    finally:
        torch.set_num_threads(before)
    assert sorted(sizes) == expected


def test_no_prompt_is_lost_between_two_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_encoder, "_CHUNK", 2)
    PromptEncoder(pair := FakePair()).encode(["one", "two", "three", "four", "five"])
    assert pair.prompts == 5


def test_each_prompt_of_a_group_keeps_its_own_tokens_and_remarks() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    read = PromptTokens(torch.ones(2, 3, 4), mask, [True, False], [False, True], [False, True])
    long, short = prompt_encoder._each(read)
    assert (len(long.tokens), long.truncated, long.in_vocabulary, long.unread) == (3, True, False, False)
    assert (len(short.tokens), short.truncated, short.in_vocabulary, short.unread) == (1, False, True, True)


def test_what_is_not_worth_keeping_is_not_written(tmp_path: Path) -> None:
    pair = FakePair()
    with Cache(tmp_path) as cache:
        PromptEncoder(pair, cache.space(pair)).encode(PROMPTS, keep=False)
        assert cache.info()[0].prompts == 0


def test_embeddings_are_computed_beside_cached_tokens(tmp_path: Path) -> None:
    pair = FakePair()
    with Cache(tmp_path) as cache:
        PromptEncoder(pair, cache.space(pair)).encode(["a fox"])
        (found,) = PromptEncoder(pair, cache.space(pair), embeddings=True).encode(["a fox"])
    assert pair.prompts == 1
    assert found.embedding is not None
    assert torch.equal(found.embedding, pair.encode_templates(["a fox"])[0])


def test_scoring_reads_prompts_from_the_cache(tmp_path: Path) -> None:
    pair, image = FakePair(), draw(1, 0.2)
    with Cache(tmp_path) as cache:
        scores = [Scorer(zero_shot_model(pair), ImageEncoder(pair, cache=cache))(image, "a fox") for _ in range(2)]
    assert pair.prompts == 1
    assert scores[0] == scores[1]


def test_threads_share_an_encoder() -> None:
    encoder = PromptEncoder(pair := FakePair())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.encode, [PROMPTS] * 40))
    assert pair.prompts == 3
    assert all(one is two for some in found for one, two in zip(some, found[0], strict=True))
