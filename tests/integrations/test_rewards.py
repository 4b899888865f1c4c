"""Rewards as trainers call them, here and over HTTP: made of the scorer's scores, and NaN if one is missing."""

from __future__ import annotations

import io
import math
import pickle
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mst_clipiqa.errors import ImageError, UsageError
from mst_clipiqa.integrations import remote
from mst_clipiqa.integrations.rewards import (
    RewardMix,
    RewardScorer,
    mst_clipiqa_remote_score,
    mst_clipiqa_score,
    pick_best,
)
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.settings import Limits, Settings
from tests.fakes import draw
from tests.serving import png, running, toy_scorer

PROMPTS = ["a red fox", "two blue chairs", "a tall green tower", "a bowl"]
RANGE = {"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return toy_scorer()


@pytest.fixture(scope="module")
def arrays() -> np.ndarray:
    return np.stack([np.asarray(draw(seed, seed / 4)) for seed in range(4)])


def tensors(arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255


def test_a_reward_is_the_weighted_sum_of_shares_of_the_scales(scorer: Scorer, arrays: np.ndarray) -> None:
    fn = mst_clipiqa_score(model=scorer, weights={"quality": 2.0, "correspondence": -0.5})
    rewards, info = fn(tensors(arrays), PROMPTS, [{} for _ in PROMPTS])
    scores = scorer(list(arrays), PROMPTS)
    want = [2 * (score.quality or 0) / 5 - 0.5 * (score.correspondence or 0) / 5 for score in scores]
    np.testing.assert_allclose(rewards, want, rtol=1e-5)
    assert rewards.dtype == np.float32 and rewards.shape == (4,)
    assert len(set(rewards.tolist())) == 4
    np.testing.assert_allclose(info["quality"], [score.quality or 0 for score in scores], rtol=1e-6)
    np.testing.assert_allclose(info["correspondence"], [score.correspondence or 0 for score in scores], rtol=1e-6)
    assert info["reason"] == [""] * 4


def test_a_reward_function_can_be_sent_to_another_process(small_model: Path, arrays: np.ndarray) -> None:
    fn = mst_clipiqa_score("cpu", model=small_model, weights={"quality": 1.0}, failed=-1.0)
    again = pickle.loads(pickle.dumps(fn))  # noqa: S301 - made a moment ago
    images = [*arrays, b"no image"]
    rewards, _ = fn(images, None)  # trainers alone give metadata
    assert again(images, None, None)[0].tolist() == rewards.tolist()
    assert rewards[-1] == -1


def test_tensors_arrays_and_lists_of_the_same_pixels_get_the_same_rewards(scorer: Scorer, arrays: np.ndarray) -> None:
    fn = mst_clipiqa_score(model=scorer)
    want, _ = fn(arrays, PROMPTS, None)
    for images in (tensors(arrays), [draw(seed, seed / 4) for seed in range(4)], list(arrays)):
        np.testing.assert_array_equal(fn(images, PROMPTS, None)[0], want)


def test_by_default_both_scores_count_the_same_and_rewards_are_in_0_to_1() -> None:
    mix = RewardMix()
    assert mix.reward({"quality": 5.0, "correspondence": 5.0}, RANGE) == 1
    assert mix.reward({"quality": 0.0, "correspondence": 5.0}, RANGE) == 0.5
    assert mix.reward({"quality": 0.0, "correspondence": 0.0}, {"quality": (0, 5), "correspondence": (-1, 1)}) == 0.25


@pytest.mark.parametrize(("failed", "is_it"), [(math.nan, math.isnan), (-1.0, lambda reward: reward == -1)])
def test_an_image_that_fails_gets_nan_or_what_was_asked_for_and_a_reason(
    scorer: Scorer, arrays: np.ndarray, failed: float, is_it: object
) -> None:
    images = tensors(arrays)
    images[1] = math.nan
    fn = mst_clipiqa_score(model=scorer, failed=failed)
    rewards, info = fn(images, ["a red fox", "a chair", "zzz", ""], None)
    assert callable(is_it)
    assert [is_it(float(reward)) for reward in rewards] == [False, True, True, True]
    assert np.isnan(info["quality"]).tolist() == [False, True, False, False]  # of zzz only correspondence is missing
    assert "NaN" in info["reason"][1]
    assert "outside" in info["reason"][2]
    assert info["reason"][3] == "the prompt is empty or missing, so correspondence cannot be scored"
    alone = fn(images[:1], ["a red fox"], None)[0]
    assert rewards[0] == alone[0]  # a failed image changes no other reward


def test_no_prompt_is_no_reward_unless_only_quality_counts(scorer: Scorer, arrays: np.ndarray) -> None:
    for prompts in (None, " ", ["", None, "\n", ""]):
        rewards, info = RewardScorer(scorer).rewards(arrays, prompts)
        assert np.isnan(rewards).all() and all("empty or missing" in reason for reason in info["reason"])
        rewards, info = RewardScorer(scorer, weights={"quality": 1.0}).rewards(arrays, prompts)
        assert not np.isnan(rewards).any() and info["reason"] == [""] * 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"qualty": 1.0}, "did you mean 'quality'"),
        ({}, "at least one target"),
        ({"quality": 0.0}, "at least one target"),
        ({"quality": math.inf}, "Expected a finite weight of quality, got inf"),
        ({"quality": "1"}, "Expected a finite weight of quality, got '1'"),
        ({"quality"}, r"Expected weights such as \{\"quality\": 1.0\}, got \{'quality'\}"),
    ],
)
def test_weights_that_mean_nothing_are_refused(scorer: Scorer, weights: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mst_clipiqa_score(model=scorer, weights=weights)


def test_a_batch_that_cannot_be_meant_is_refused(scorer: Scorer, arrays: np.ndarray) -> None:
    fn = mst_clipiqa_score(model=scorer)
    with pytest.raises(UsageError, match=r"Expected one prompt or one per image \(4\), got 1"):
        fn(arrays, ["a red fox"], None)
    with pytest.raises(UsageError, match=r"Expected a float tensor .* divide it by 255"):
        fn(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a red fox"], None)


# ---------------------------------------------------------------------------------------------- ImageReward, diffusers


def test_score_and_inference_rank_answer_as_image_reward_does(scorer: Scorer, arrays: np.ndarray) -> None:
    model = RewardScorer(scorer)
    one, many = model.score("a red fox", arrays[0]), model.score("a red fox", list(arrays))
    assert isinstance(one, float) and isinstance(many, list)
    assert many[0] == one
    ranks, rewards = model.inference_rank("a red fox", list(arrays))
    assert rewards == many
    assert sorted(ranks) == [1, 2, 3, 4]
    assert [rewards[ranks.index(rank)] for rank in (1, 2, 3, 4)] == sorted(rewards, reverse=True)


def test_failed_images_rank_last_and_are_never_picked(scorer: Scorer, arrays: np.ndarray) -> None:
    images = [b"no image", *arrays]
    ranks, rewards = RewardScorer(scorer).inference_rank("a red fox", images)
    assert ranks[0] == 5 and math.isnan(rewards[0])
    best = pick_best(images, "a red fox", n=9, scorer=scorer)
    order = sorted(range(1, 5), key=lambda place: -rewards[place])
    assert [id(image) for image in best] == [id(images[place]) for place in order]
    assert pick_best(images, "a red fox", scorer=scorer)[0] is images[order[0]]


def test_pick_best_without_a_prompt_goes_by_quality(scorer: Scorer, arrays: np.ndarray) -> None:
    images = list(arrays)
    quality = [score.quality or 0 for score in scorer(images)]
    assert pick_best(images, scorer=scorer)[0] is images[int(np.argmax(quality))]


def test_pick_best_says_why_there_is_nothing_to_pick(scorer: Scorer, arrays: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"got none: expected an image \(PNG"):
        pick_best([b"no image"], "a red fox", scorer=scorer)
    with pytest.raises(ImageError, match="got none: there is none"):
        pick_best([], "a red fox", scorer=scorer)
    with pytest.raises(UsageError, match=r"Expected n to be a whole number of at least 1, got 0\."):
        pick_best(list(arrays), "a red fox", n=0, scorer=scorer)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_pick_best_takes_what_a_pipeline_of_diffusers_returns(scorer: Scorer) -> None:
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=10))  # random weights
    pipe.set_progress_bar_config(disable=True)
    for kind in ("pil", "np"):
        found = pipe(batch_size=4, num_inference_steps=2, output_type=kind).images
        best = pick_best(found, "a red fox", n=2, scorer=scorer)
        rewards = RewardScorer(scorer).rewards([*best, *found], "a red fox")[0].tolist()
        assert rewards[:2] == sorted(rewards[2:], reverse=True)[:2]


# ------------------------------------------------------------------------------------------------------------- remote

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(scorer: Scorer) -> Iterator[str]:
    limits = Limits(max_images=3, max_bytes=120_000)
    with running(scorer, Settings(port=0, token=TOKEN, limits=limits)) as where:
        yield where


def test_remote_rewards_are_those_of_the_same_model_here(server: str, scorer: Scorer, arrays: np.ndarray) -> None:
    images = [*arrays, b"no image", png(9), tensors(arrays)[0]]  # more than one request takes
    prompts = [*PROMPTS, "a cat", "zzz", "a red fox"]
    weights = {"quality": 0.2, "correspondence": 0.8}
    want, info = mst_clipiqa_score(model=scorer, weights=weights)(images, prompts, None)
    fn = mst_clipiqa_remote_score(server, token=TOKEN, weights=weights)
    rewards, found = fn(images, prompts, [{}] * 7)
    np.testing.assert_allclose(rewards, want, rtol=1e-5)  # the server rounds to six digits
    np.testing.assert_allclose(found["quality"], info["quality"], rtol=1e-5)
    assert found["reason"] == info["reason"]
    assert np.isnan(rewards).tolist() == [False] * 4 + [True, True, False]


def test_a_request_of_which_nothing_is_scored_gives_failed_rewards(server: str) -> None:
    rewards, info = mst_clipiqa_remote_score(server, token=TOKEN, failed=-1.0)([b"none", b"no image"], ["a", "b"], None)
    assert rewards.tolist() == [-1, -1]
    assert "expected an image" in info["reason"][0]


def test_one_item_that_the_server_refuses_costs_no_other_its_reward(server: str, arrays: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)  # as PNG more than a body may have
    images = [arrays[0], arrays[1], arrays[2], noise, arrays[3], torch.rand(3, 8, 8).to_sparse()]
    prompts: list[object] = [PROMPTS[0], "long " * 3000, b"bytes", PROMPTS[1], "\ud800", "a red fox"]
    fn = mst_clipiqa_remote_score(server, token=TOKEN)
    rewards, info = fn(images, prompts, None)  # type: ignore[arg-type]
    assert np.isnan(rewards).tolist() == [False] + [True] * 5
    assert rewards[0] == fn(arrays[:1], PROMPTS[:1], None)[0][0]
    assert info["reason"][0] == ""
    assert "expected prompts of at most 10,000 characters" in info["reason"][1]
    assert info["reason"][2] == "expected the prompt as text, got bytes: write it as text, or leave it out"
    assert "expected a body of at most 120,000 bytes" in info["reason"][3]
    assert "expected JSON" in info["reason"][4]
    assert "expected a dense tensor that holds values" in info["reason"][5]


def test_each_image_of_a_request_of_which_nothing_is_scored_has_its_own_reason(server: str) -> None:
    _, info = mst_clipiqa_remote_score(server, token=TOKEN)([b"", b"GIF89a", png(1)], ["a", "b", "x " * 9000], None)
    assert len(set(info["reason"])) == 3


def test_an_empty_prompt_still_has_a_quality_elsewhere(server: str, arrays: np.ndarray) -> None:
    rewards, info = mst_clipiqa_remote_score(server, token=TOKEN)(arrays[:2], ["", " "], None)
    assert np.isnan(rewards).all() and not np.isnan(info["quality"]).any()
    assert "empty or missing" in info["reason"][0]


def test_a_server_that_refuses_is_quoted(server: str, arrays: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"got status 401: Expected the header 'Authorization"):
        mst_clipiqa_remote_score(server, token="f" * 16)(arrays[:1], ["a red fox"], None)
    with pytest.raises(UsageError, match="Expected weights of the model's targets"):
        mst_clipiqa_remote_score(server, token=TOKEN, weights={"beauty": 1.0})(arrays[:1], ["a red fox"], None)


def test_no_server_is_one_sentence(arrays: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"Expected mst-clipiqa serve at http://127\.0\.0\.1:9.*start it there"):
        mst_clipiqa_remote_score("http://127.0.0.1:9")(arrays[:1], ["a red fox"], None)
    with pytest.raises(UsageError, match="Expected the address of a server"):
        mst_clipiqa_remote_score("file:///etc/passwd")


def test_a_busy_server_is_asked_again(
    server: str, scorer: Scorer, arrays: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    waits: list[float] = []
    reach = urllib.request.urlopen

    def busy(request: urllib.request.Request, timeout: float) -> object:
        asked.append(request.full_url)
        if len(asked) % 3:
            headers = Message()
            headers["Retry-After"] = "7"
            raise urllib.error.HTTPError(request.full_url, 503, "busy", headers, io.BytesIO(b'{"error": "Too many."}'))
        return reach(request, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", busy)
    monkeypatch.setattr(remote, "_pause", waits.append)
    fn = mst_clipiqa_remote_score(server, token=TOKEN)
    rewards, _ = fn(arrays[:1], ["a red fox"], None)
    np.testing.assert_allclose(rewards, mst_clipiqa_score(model=scorer)(arrays[:1], ["a red fox"], None)[0], rtol=1e-5)
    assert waits == [7, 7, 7, 7] and len(asked) == 6  # /v1/info and /v1/score, each at the third try
    monkeypatch.setattr(remote, "_TRIES", 2)
    with pytest.raises(UsageError, match="got status 503: Too many"):
        fn(arrays[:1], ["a red fox"], None)


def test_prompts_may_come_from_a_generator_and_one_number_is_no_prompt(scorer: Scorer, arrays: np.ndarray) -> None:
    fn = mst_clipiqa_score(model=scorer)
    want = fn(arrays, PROMPTS, {})[0]
    np.testing.assert_array_equal(fn(arrays, (prompt for prompt in PROMPTS), {})[0], want)
    assert fn(arrays[:1], 5, {})[1]["reason"] == [  # type: ignore[arg-type]
        "expected the prompt as text, got int: write it as text, or leave it out"
    ]


def test_a_failed_image_ranks_last_whatever_its_reward(scorer: Scorer, arrays: np.ndarray) -> None:
    ranks, rewards = RewardScorer(scorer, failed=9.0).inference_rank(PROMPTS[0], [b"no image", arrays[0], arrays[1]])
    assert ranks[0] == 3 and sorted(ranks[1:]) == [1, 2]
    assert rewards[0] == 9.0


def test_a_target_without_a_weight_need_not_be_scored(scorer: Scorer, arrays: np.ndarray) -> None:
    rewards, info = RewardScorer(scorer, weights={"quality": 1.0, "correspondence": 0.0}).rewards(arrays, None)
    alone = RewardScorer(scorer, weights={"quality": 1.0}).rewards(arrays, None)[0]
    np.testing.assert_array_equal(rewards, alone)
    assert info["reason"] == [""] * 4


def test_rewards_refuse_a_failure_that_is_no_number_and_a_count_that_is_not_whole(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match=r"Expected failed to be a number, which may be NaN, got 'x'\."):
        RewardScorer(scorer, failed="x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Expected weights of the model's targets .*, got one of 1: give"):
        RewardScorer(scorer, weights={1: 1.0})  # type: ignore[dict-item]
    for n in (1.5, "2", 0):
        with pytest.raises(UsageError, match="Expected n to be a whole number of at least 1"):
            pick_best([b""], n=n, scorer=scorer)  # type: ignore[arg-type]
