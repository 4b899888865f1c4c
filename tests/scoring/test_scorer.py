"""The scorer: one answer an image, whatever it comes as, whoever its batch mates are."""

from __future__ import annotations

import dataclasses
import inspect
import math
import multiprocessing
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_clipiqa.encoders.precision import resolve_device
from mst_clipiqa.errors import ImageError, ModelError, PromptError, UsageError
from mst_clipiqa.evaluate import make_reference
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import AlreadyScored, Failed
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model_folder import ModelConfig, Target, TrainedModel, save_model
from mst_clipiqa.scoring.differentiable import DifferentiableTarget
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT, TRUNCATED, UNKNOWN_WORDS, UNLIKE_TRAINING, zero_shot_model
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import fill, toy_model
from tests.fakes import FakePair, draw
from tests.scoring.elsewhere import scored_elsewhere


def model(pair: FakePair) -> TrainedModel:
    found = toy_model(pair)
    head = found.parts["correspondence"].head
    assert isinstance(head, PromptHead)
    torch.nn.init.constant_(head.w_o.bias, 3.0)  # so that scores are within the scale
    return found


@pytest.fixture
def pair() -> FakePair:
    return FakePair()


@pytest.fixture
def scorer(pair: FakePair) -> Scorer:
    return Scorer(model(pair), ImageEncoder(pair, batch_size=4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(9):
        draw(i, i / 9, size=40 + 7 * i).save(tmp_path / f"{i}.png")
    return tmp_path


def numbers(score: Score) -> tuple[float | None, ...]:
    return score.quality, score.correspondence, score.gate


def test_a_score_says_what_it_means(scorer: Scorer, folder: Path) -> None:
    score = scorer(folder / "3.png", "a red fox")
    assert isinstance(score, Score)
    assert score.quality is not None
    assert 0 <= score.quality <= 5
    assert score.correspondence is not None
    assert (score.width, score.height, score.model, score.status, score.reason) == (61, 61, "toy", "ok", "")
    assert score.ranges == {"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)}
    assert score.intervals["quality"] == (max(0, score.quality - 0.5), min(5, score.quality + 0.5))
    assert "correspondence" not in score.intervals
    assert score.levels is not None
    assert sum(score.levels) == pytest.approx(1)
    assert score.targets == {"quality": score.quality, "correspondence": score.correspondence}


@pytest.mark.parametrize(
    ("levels", "spread"),
    [
        (None, None),
        ((0, 0, 1, 0, 0), 0.0),
        ((0.5, 0, 0, 0, 0.5), 20.0),  # two levels to either side of the middle, ten units each
        ((0, 0.5, 0.5, 0, 0), 5.0),
    ],
)
def test_the_spread_is_the_deviation_of_the_levels_in_native_units(levels: Any, spread: float | None) -> None:
    score = Score(levels=levels, ranges={"quality": (10.0, 50.0)})
    assert score.quality_spread == (None if spread is None else pytest.approx(spread, abs=1e-9))


def test_every_way_to_hand_over_an_image_gives_the_same_score(scorer: Scorer, folder: Path) -> None:
    path = folder / "5.png"
    image = Image.open(path).convert("RGB")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy()).float() / 255
    want = numbers(scorer(path, "a fox"))
    for source in (str(path), path.read_bytes(), image, array, tensor):
        assert numbers(scorer(source, "a fox")) == pytest.approx(want, abs=1e-5)


def test_alone_in_any_batch_and_in_any_order(pair: FakePair, folder: Path) -> None:
    files = sorted(folder.glob("*.png"))
    prompts = ["a fox", "a very long red fox in a wide green field", "one", *(["a car"] * 6)]
    by_size = []
    for size in (1, 2, 4, 100):
        scorer = Scorer(model(pair), ImageEncoder(pair, batch_size=size, workers=size))
        by_size.append([numbers(s) for s in scorer(files, prompts)])
    alone = Scorer(model(pair), ImageEncoder(pair))
    want = [numbers(alone(f, p)) for f, p in zip(files, prompts, strict=True)]
    backwards = [numbers(s) for s in alone(files[::-1], prompts[::-1])][::-1]
    for got in (*by_size, backwards):
        for one, expected in zip(got, want, strict=True):
            assert one == pytest.approx(expected, abs=1e-5)


def test_an_image_is_encoded_once_for_many_prompts(scorer: Scorer, pair: FakePair, folder: Path) -> None:
    scores = scorer(folder / "1.png", ["a fox", "a car", "a fox"])
    assert pair.images == 1
    assert pair.prompts == 2  # templates do not count, and a prompt is encoded once
    assert len({s.quality for s in scores}) == 1
    assert scores[0].correspondence == scores[2].correspondence != scores[1].correspondence
    encoded = scorer.encode([folder / "1.png"])
    assert numbers(scorer.score_encoded(encoded, ["a car"])[0]) == pytest.approx(numbers(scores[1]), abs=1e-6)


@pytest.mark.parametrize(("cores", "batches"), [(1, 1), (2, 2)])
def test_a_stream_is_read_only_as_far_as_needed(scorer: Scorer, folder: Path, cores: int, batches: int) -> None:
    taken, before = [], torch.get_num_threads()
    torch.set_num_threads(cores)

    def endless() -> Iterator[ScoreRequest[None]]:
        for i in range(10_000):
            taken.append(i)
            yield ScoreRequest(folder / f"{i % 9}.png")

    stream = scorer.many(endless())
    for _ in range(3):
        next(stream)
    torch.set_num_threads(before)
    # Opened ahead and under way: three batches; what was yielded, and one.
    assert len(taken) <= (3 - batches) * 4 + batches * 4 + (batches - 1) * 4 + 1


def test_the_heads_leave_the_cores_to_the_encoders(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, threads, exact = torch.get_num_threads(), [], scorer.predictor._float64_output

    def watched(*inputs: Any) -> Any:
        threads.append(torch.get_num_threads())
        return exact(*inputs)

    monkeypatch.setattr(scorer.predictor, "_float64_output", watched)
    torch.set_num_threads(2)
    try:
        scorer(folder / "0.png", "a cat")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1]  # quality and correspondence


def test_bad_images_keep_their_place(scorer: Scorer, folder: Path) -> None:
    files = sorted(folder.glob("*.png"))
    good = [numbers(s) for s in scorer.many(files)]
    (folder / "bad.png").write_bytes(b"")
    mixed: list[Any] = [*files[:3], folder / "bad.png", *files[3:], folder / "gone.png", 42]
    scores = list(scorer.many(mixed))
    assert [s.status for s in scores] == ["ok"] * 3 + ["error"] + ["ok"] * 6 + ["error"] * 2
    for one, want in zip([numbers(s) for s in scores if s.status == "ok"], good, strict=True):
        assert one == pytest.approx(want, abs=1e-5)
    for bad in (scores[3], *scores[-2:]):
        assert numbers(bad) == (None, None, None)
        assert bad.reason.startswith("expected")
        assert bad.model == "toy"
    with pytest.raises(ImageError, match="0 bytes"):
        scorer(folder / "bad.png")


def test_a_reason_is_a_note_and_an_error_a_sentence_that_names_the_file(scorer: Scorer, folder: Path) -> None:
    gone = str(folder / "gone.png")
    requests: list[ScoreRequest[None]] = [
        ScoreRequest(gone),
        ScoreRequest(folder / "1.png", " "),
        ScoreRequest(b"", "a fox"),
    ]
    reasons = [score.reason for _, score in scorer.stream(requests)]
    assert reasons[0] == "expected an image, found no file of this name: check the name and its folder"
    assert reasons[1] == EMPTY_PROMPT
    assert reasons[2] == "expected an image, got nothing (0 bytes): save or download it again"
    for ask in (lambda: scorer(gone), lambda: scorer.encode([gone]), lambda: scorer(folder / "1.png", reference=gone)):
        with pytest.raises(ImageError) as caught:
            ask()
        assert str(caught.value) == f"{gone!r}: E{reasons[0][1:]}."
    for prompts in (" ", ["a fox", " "]):
        with pytest.raises(PromptError) as refused:
            scorer(str(folder / "1.png"), prompts)
        assert str(refused.value) == f"{str(folder / '1.png')!r}: E{EMPTY_PROMPT[1:]}."
    with pytest.raises(ImageError, match=r"^Expected an image, got nothing \(0 bytes\): save or download it again\.$"):
        scorer([b""])


def test_prompts_missing_empty_unknown_and_too_long(scorer: Scorer, folder: Path) -> None:
    path = folder / "1.png"
    plain = scorer(path)
    assert plain.correspondence is None
    assert (plain.status, plain.reason) == ("ok", "")
    with pytest.raises(PromptError, match="Expected words in the prompt, got an empty one"):
        scorer(path, "  ")
    row = next(iter(scorer.many([ScoreRequest(path, "")])))
    assert (row.status, row.error, row.reason, row.quality) == ("error", "prompt", EMPTY_PROMPT, None)
    unknown = scorer(path, "zzz zzz")
    assert (unknown.correspondence, unknown.reason) == (None, UNKNOWN_WORDS)
    assert unknown.quality == plain.quality
    long = scorer(path, "fox " * 100)
    assert long.correspondence is not None
    assert long.reason == TRUNCATED


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (torch.rand(3, 8, 8).to_sparse(), r"expected a dense tensor that holds values, got a torch\.sparse_coo one"),
        (torch.rand(3, 8, 8, device="meta"), "got a meta one"),
        (torch.nested.nested_tensor([torch.rand(3, 8, 8)], layout=torch.jagged), "got a nested one"),
        (torch.rand(3, 8), "expected a tensor .3, H, W."),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), "expected a float tensor"),
        (np.zeros((8, 8), dtype=object), "expected an array of dtype uint8"),
    ],
)
def test_an_odd_tensor_is_one_failed_score(scorer: Scorer, odd: Any, reason: str) -> None:
    scores = list(scorer.many([draw(1, 0.2), odd, draw(2, 0.2)]))
    assert [score.status for score in scores] == ["ok", "error", "ok"]
    assert re.search(reason, scores[1].reason)


@pytest.mark.parametrize(
    "one", [np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8), draw(0, 0.2), bytearray(b"x"), None]
)
def test_one_image_in_place_of_several_is_refused_and_not_read_row_by_row(scorer: Scorer, one: Any) -> None:
    with pytest.raises(UsageError, match=r"^Expected several images, got one"):
        list(scorer.many(one))
    with pytest.raises(UsageError, match=r"^Expected several images, got one"):
        scorer.encode(one)


def test_several_images_may_come_from_a_dataset_that_is_only_indexed(scorer: Scorer) -> None:
    class TwoImages(torch.utils.data.Dataset[Any]):
        def __getitem__(self, place: int) -> Any:
            return [draw(0, 0.2), draw(1, 0.4)][place]

    assert [score.status for score in scorer.many(TwoImages())] == ["ok", "ok"]  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [0, 3, 20])
def test_scores_of_what_was_read_come_before_what_the_callers_generator_raises(scorer: Scorer, before: int) -> None:
    def images() -> Iterator[Any]:
        for seed in range(before):
            yield draw(seed, 0.2)
        raise RuntimeError("the list ends here")

    found: list[Score] = []
    with pytest.raises(RuntimeError, match="the list ends here"):
        found.extend(scorer.many(images()))
    assert [score.status for score in found] == ["ok"] * before


def test_a_stream_gives_each_request_back_beside_its_score(scorer: Scorer, folder: Path) -> None:
    images: list[Any] = [folder / "1.png", Failed("gone"), folder / "2.png", AlreadyScored(Score(quality=3.0)), b"bad"]
    requests = [ScoreRequest(image, "a fox", tag=i) for i, image in enumerate(images)]
    answered = list(scorer.stream(iter(requests)))
    assert [request.tag for request, _ in answered] == [0, 1, 2, 3, 4]
    assert [score.error for _, score in answered] == [None, "image", None, None, "image"]
    assert answered[1][1].reason == "gone"
    assert answered[3][1] == Score(quality=3.0)
    assert numbers(answered[2][1]) == pytest.approx(numbers(scorer(folder / "2.png", "a fox")), abs=1e-6)


def test_types_need_no_help_for_what_is_allowed(scorer: Scorer, folder: Path) -> None:
    requests = [ScoreRequest(folder / "1.png", "a fox"), ScoreRequest(folder / "2.png")]
    asked: list[Score] = [score for _, score in scorer.stream(requests)]
    scores: list[Score] = scorer([folder / "1.png", folder / "2.png"], ["a fox", None])
    assert [numbers(score) for score in scores] == [numbers(score) for score in asked]
    batch: list[Score] = scorer(np.stack([np.asarray(draw(0, 0.2))] * 2))
    one: Score = scorer(np.asarray(draw(0, 0.2)))
    assert [score.quality for score in batch] == [one.quality] * 2


def test_a_pair_is_scored_with_its_prompt(scorer: Scorer, folder: Path) -> None:
    (score,) = scorer.many([(folder / "1.png", "a fox")])
    assert numbers(score) == numbers(scorer(folder / "1.png", "a fox"))
    with pytest.raises(UsageError, match="Expected a ScoreRequest, got tuple"):
        next(scorer.stream([(folder / "1.png", "a fox")]))  # type: ignore[list-item]


def test_a_template_model_takes_an_empty_prompt(pair: FakePair, folder: Path) -> None:
    whole = model(pair)
    targets = {"quality": whole.config.targets["quality"]}
    config = ModelConfig("toy", whole.config.encoders, targets)
    scorer = Scorer(TrainedModel(config, {"quality": whole.parts["quality"]}), ImageEncoder(pair))
    score = scorer(folder / "1.png", "")
    assert (score.status, score.reason) == ("ok", "")
    assert score.quality == scorer(folder / "1.png").quality


def test_zero_shot_needs_no_training_and_says_that_it_is_uncalibrated(pair: FakePair, folder: Path) -> None:
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    score = scorer(folder / "1.png", "a fox")
    assert score.calibrated is False
    assert score.gate == pytest.approx(0.5)
    assert score.correspondence is not None
    assert -1 <= score.correspondence <= 1
    f = scorer.encode([folder / "1.png"])[0]
    cosine = torch.cosine_similarity((f.f_c + f.f_f) / 2, pair.encode_templates(["a fox"])[0], dim=0)
    assert score.correspondence == pytest.approx(cosine.item(), abs=1e-6)
    assert scorer(folder / "1.png").correspondence is None
    assert score.levels is not None
    assert score.quality == pytest.approx(sum(k * p for k, p in enumerate(score.levels, 1)))
    assert score.ranges == {"quality": (1.0, 5.0), "correspondence": (-1.0, 1.0)}
    assert "uncalibrated" in score.model


def test_what_does_not_fit_together_is_refused(pair: FakePair) -> None:
    trained = model(pair)
    with pytest.raises(ModelError, match="Expected the encoders that toy was trained on"):
        Scorer(trained, ImageEncoder(FakePair(sha256="0" * 64)))
    with pytest.raises(ModelError, match="Expected encoders with features of size 64, got 32"):
        Scorer(trained, ImageEncoder(FakePair(dim=32)))
    with pytest.raises(ModelError, match="Expected token states of size 64"):
        Scorer(trained, ImageEncoder(FakePair(text_dim=32)))
    with pytest.raises(UsageError, match="Expected batch_size to be a whole number of at least 1, got 0"):
        ImageEncoder(pair, batch_size=0)
    with pytest.raises(ModelError, match="or a model folder, got 'no-such-model'"):
        Scorer.load("no-such-model")


def test_as_many_prompts_as_images(scorer: Scorer, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected one prompt or one per image \(3\), got 2"):
        scorer([folder / "1.png"] * 3, ["a", "b"])
    assert [s.status for s in scorer([folder / "1.png"] * 3, "a fox")] == ["ok"] * 3
    assert scorer([], "a fox") == []


def test_float_images_of_the_wrong_scale_are_refused(scorer: Scorer) -> None:
    with pytest.raises(ImageError, match=r"Expected .*\[0, 1\]"):
        scorer(torch.rand(3, 32, 32) * 255)


@pytest.mark.parametrize("first", ["quality", "correspondence"])  # a head that reads no prompt, and one that does
def test_the_gate_is_of_the_first_target_whoever_the_batch_mates_are(pair: FakePair, first: str) -> None:
    made = model(pair)
    names = sorted(made.parts, key=lambda name: name != first)
    config = dataclasses.replace(made.config, targets={name: made.config.targets[name] for name in names})
    turned = TrainedModel(config, {name: made.parts[name] for name in names})
    scorer = Scorer(turned, ImageEncoder(pair, batch_size=4))
    asked = [ScoreRequest[None](draw(1, 0.2), "a fox"), ScoreRequest[None](draw(2, 0.5), None)]
    together = [score.gate for score in scorer.many(asked)]
    assert together == pytest.approx([next(scorer.many([one])).gate for one in asked], abs=1e-6)
    features = scorer.encode([one.image for one in asked])
    f_c, f_f = (torch.stack([getattr(one, name) for one in features]) for name in ("f_c", "f_f"))
    with torch.no_grad():
        g, _ = made.parts[first].gff(f_c, f_f)
    assert together == pytest.approx(g.mean(dim=1).tolist(), abs=1e-5)


@pytest.mark.parametrize(("bias", "end"), [(50.0, 5.0), (-50.0, 0.0)])
def test_no_score_is_outside_the_scale(pair: FakePair, bias: float, end: float) -> None:
    made = model(pair)
    targets = {"correspondence": Target("prompt", 0.0, 5.0, 0.2)}
    part = made.parts["correspondence"]
    assert isinstance(part.head, PromptHead)
    torch.nn.init.constant_(part.head.w_o.bias, bias)
    beyond = TrainedModel(dataclasses.replace(made.config, targets=targets), {"correspondence": part})
    score = Scorer(beyond, ImageEncoder(pair))(draw(1, 0.2), "a fox")
    assert score.correspondence == end
    assert score.intervals["correspondence"] == (max(0, end - 0.2), min(5, end + 0.2))


def test_an_unlike_image_gets_a_caution_and_a_wider_interval(pair: FakePair, folder: Path) -> None:
    encoder = ImageEncoder(pair, batch_size=4)
    features = encoder.encode([draw(i, i / 40) for i in range(40)])
    f_c, f_f = (torch.stack([getattr(one, name) for one in features]).numpy() for name in ("f_c", "f_f"))
    reference = make_reference(f_c, f_f, [None] * 40)
    made = model(pair)
    targets = {"quality": Target("template", 0.0, 5.0, 0.5, growth=0.4)}
    config = dataclasses.replace(made.config, targets=targets)
    calibrated = reference.calibrated(reference.distance(f_c, f_f))
    scorer = Scorer(TrainedModel(config, {"quality": made.parts["quality"]}, reference=calibrated), encoder)
    noise = np.random.default_rng(0).integers(0, 2, (64, 64, 3), np.uint8) * 255
    near, far = scorer(draw(20, 0.5)), scorer(noise)
    assert (near.familiarity or 0) > 0.05
    assert near.reason == ""
    assert far.familiarity == 0
    assert far.reason == UNLIKE_TRAINING
    middle = far.quality or 0
    assert far.intervals["quality"] == pytest.approx((max(0, middle - 1.1), min(5, middle + 1.1)))  # 0.5 (1 + 0.4 x 3)
    low, high = near.intervals["quality"]
    assert 1.0 <= high - low < 2.2
    assert to_row("a.png", None, far)["familiarity"] == 0


def test_without_a_reference_there_is_no_familiarity(scorer: Scorer) -> None:
    assert scorer(draw(1, 0.2)).familiarity is None


def test_an_error_says_nothing_of_levels(scorer: Scorer) -> None:
    score = next(scorer.many([ScoreRequest(draw(1, 0.2), "")]))
    assert (score.status, score.levels, score.quality_spread) == ("error", None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": 3}, "Expected device to be text, got 3."),
        ({"device": None}, "Expected device to be text, got None."),
        ({"precision": None}, "Expected precision to be text, got None."),
        ({"granularity": 1}, "Expected granularity to be text, got 1."),
        ({"encoders": ["openai"]}, "Expected encoders to be text or a path, got ['openai']."),
        ({"backend": None}, "Expected backend to be text or a path, got None."),
        ({"cache": "folder"}, "Expected cache to be a Cache of a folder, got 'folder'."),
        ({"fast_decode": "no"}, "Expected fast_decode to be True or False, got 'no'."),
        ({"batch_size": "8"}, "Expected batch_size to be a whole number of at least 1, got '8'."),
        ({"batch_size": True}, "Expected batch_size to be a whole number of at least 1, got True."),
        ({"workers": 0}, "Expected workers to be a whole number of at least 1, got 0."),
        ({"workers": 10**7}, "Expected workers to be at most 1,000,000, got 10000000."),
        ({"batch_size": 10**7}, "Expected batch_size to be at most 1,000,000, got 10000000."),
        ({"merge": -1}, "Expected merge to be a whole number of at least 0, got -1."),
        ({"max_pixels": math.nan}, "Expected max_pixels to be a whole number of at least 1, got nan."),
        ({"max_pixels": -5}, "Expected max_pixels to be a whole number of at least 1, got -5."),
        ({"bach_size": 3}, "Expected an option of a scorer, got 'bach_size' (did you mean 'batch_size'?)."),
        ({"zzz": 3}, "Expected an option of a scorer, got 'zzz': the options are device, precision, batch_size"),
        ({"options": "cpu"}, "Expected options to be a ScoreOptions, got 'cpu': give options by name"),
        ({"model": {"mini"}}, "Expected the name of a model or its folder, got {'mini'}: give one such as 'mini'."),
        ({"model": ""}, "Expected the name of a model or its folder, got '': give one such as 'mini'."),
    ],
)
def test_an_odd_option_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Scorer.load(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_device_of_torch_is_as_good_as_its_name() -> None:
    assert ScoreOptions(device=torch.device("cpu")) == ScoreOptions(device="cpu")  # type: ignore[arg-type]
    assert ScoreOptions(batch_size=np.int64(3)).batch_size == 3  # type: ignore[arg-type]


def test_a_path_of_encoders_is_as_good_as_its_name(small_model: Path, small_encoders: Path) -> None:
    by_path, by_name = (Scorer.load(small_model, encoders=place) for place in (small_encoders, str(small_encoders)))
    assert repr(by_path) == repr(by_name)
    assert ScoreOptions(backend=Path("torch")) == ScoreOptions()  # type: ignore[arg-type]


def test_a_scorer_that_was_sent_to_a_spawned_process_gives_the_same_bits(small_model: Path, folder: Path) -> None:
    scorer = Scorer.load(small_model, device="cpu", batch_size=3, color="as-stored")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=scored_elsewhere, args=(scorer, folder / "1.png", sender))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    here = scorer(folder / "1.png", "a red fox")
    assert found == (here.targets, here.gate, repr(scorer))


def test_a_pickle_of_a_scorer_is_small_and_keeps_its_options(small_model: Path, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache") as cache:
        scorer = Scorer.load(small_model, device="cpu", precision="fp32", cache=cache, max_pixels=5000, workers=1)
        scorer.encoder.batch_size = 5
        packed = pickle.dumps(scorer.to("cpu"))
        other: Scorer = pickle.loads(packed)  # noqa: S301 - its own
    assert len(packed) < 2000
    encoder = other.encoder
    assert (encoder.batch_size, encoder.workers, encoder.opening.max_pixels) == (5, 1, 5000)
    assert encoder.encoders.precision == "fp32"
    assert encoder.cache is not None and encoder.cache.cache.path == tmp_path / "cache" / "features.sqlite"
    encoder.cache.cache.close()


def test_a_scorer_whose_folder_has_changed_since_is_refused(small_model: Path, tmp_path: Path) -> None:
    shutil.copytree(small_model, tmp_path / "model")
    scorer = Scorer.load(tmp_path / "model", device="cpu")
    packed = pickle.dumps(scorer)
    fill(scorer.model.parts["quality"], "another.")
    save_model(scorer.model, tmp_path / "model", "# another\n")
    with pytest.raises(ModelError, match=r"Expected the model .* at .*model, got .*: copy the same folder there"):
        pickle.loads(packed)  # noqa: S301 - its own


def test_a_scorer_made_of_parts_says_why_it_cannot_be_pickled(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match=r"Expected a scorer made by Scorer\.load"):
        pickle.dumps(scorer)


def test_a_card_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0").index == 0
    with pytest.raises(UsageError, match="Expected a device that this machine has, got 'cuda:3'"):
        resolve_device("cuda:3")


@pytest.mark.parametrize("prompt", [float("nan"), 3, b"a fox", ["a fox"]])
def test_a_prompt_that_is_no_text_is_a_row_with_its_reason(scorer: Scorer, folder: Path, prompt: Any) -> None:
    good = ScoreRequest[None](folder / "1.png", "a red fox")
    first, wrong, last = scorer.many([good, ScoreRequest(folder / "2.png", prompt), good])
    assert (wrong.status, wrong.error, wrong.quality) == ("error", "prompt", None)
    assert f"expected the prompt as text, got {type(prompt).__name__}" in wrong.reason
    assert first == last == scorer(folder / "1.png", "a red fox")


@pytest.mark.parametrize("prompt", [float("nan"), 3, b"a fox"])
def test_the_call_refuses_a_prompt_that_is_no_text(scorer: Scorer, folder: Path, prompt: Any) -> None:
    for given in (prompt, [prompt]):
        with pytest.raises(PromptError, match="Expected the prompt as text"):
            scorer(folder / "1.png", given)


def test_options_of_a_download_are_given_by_name_and_the_model_either_way() -> None:
    model, *options = inspect.signature(Scorer.from_pretrained).parameters.values()
    assert (model.name, model.kind) == ("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert {one.kind for one in options} == {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


def test_a_remark_on_an_image_stands_beside_its_scores_and_not_beside_an_error(scorer: Scorer) -> None:
    (plain,) = scorer.encode([draw(1, 0.2)])
    assert isinstance(plain, Encoded)
    cut = dataclasses.replace(plain, note="Half of it is missing.")
    same, scored, unread, failed = scorer.score_encoded([plain, cut, cut, cut], ["a fox", "a fox", "a zzz", ""])
    assert (same.reason, scored.reason) == ("", "Half of it is missing.")
    assert numbers(same) == numbers(scored)
    assert unread.reason.endswith("; Half of it is missing.")  # beside what else there is to say
    assert (failed.status, failed.reason) == ("error", EMPTY_PROMPT)


@pytest.mark.parametrize("target", ["quality", "correspondence"])
def test_scores_with_gradients_are_those_of_the_same_features(small_model: Path, target: str) -> None:
    scorer = Scorer.load(small_model)
    differentiable = DifferentiableTarget(scorer, target)
    images = torch.rand(2, 3, 90, 100, generator=torch.Generator().manual_seed(0))
    prompts: list[str | None] = ["a red fox", "a photo with bad quality"]
    found = differentiable(images, prompts)
    same = scorer.predictor.predict(*differentiable.features(images), prompts)
    torch.testing.assert_close(found, torch.tensor([score.targets[target] for score in same]), atol=1e-4, rtol=1e-4)
    for unread in (None, "  ", "zzz"):
        if target == "correspondence":
            with pytest.raises(PromptError):
                differentiable(images, [prompts[0], unread])
        else:
            assert torch.equal(differentiable(images, [prompts[0], unread]), found)


def test_saving_says_why_a_folder_cannot_be_used(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.load(small_model, device="cpu")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Expected a folder to save the model in, got an empty name"):
        scorer.save_pretrained("")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/below"):
        with pytest.raises(UsageError, match=rf"Expected a folder that the model can be saved in, got '{folder}' \("):
            scorer.save_pretrained(folder)
    other = tmp_path / "other" / "encoders"
    other.mkdir(parents=True)
    (other / "config.json").write_text("mine")
    with pytest.raises(UsageError, match="which holds encoders of something else"):
        scorer.save_pretrained(other.parent)
    assert (other / "config.json").read_text() == "mine" and len(list(other.parent.iterdir())) == 1
    scorer.save_pretrained("new")
    scorer.save_pretrained("new")
    assert Scorer.load("new", device="cpu")(draw(0, 0.2)) == scorer(draw(0, 0.2))
