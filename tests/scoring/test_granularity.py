"""How much of an image is looked at: bounds that hold, rows that say so, and nothing that depends on batch mates."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from mst_clipiqa.cli import group
from mst_clipiqa.data import Record
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.errors import DataError, ModelError, PromptError, UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, native_crops
from mst_clipiqa.scoring.calibration import CalibratedOn, Calibration, owner_of
from mst_clipiqa.scoring.fine_estimator import deviations
from mst_clipiqa.scoring.granular_encoding import UNLIKE_CALIBRATION, GranularEncoding, calibration_path
from mst_clipiqa.scoring.granularity import (
    CALIBRATION_FILE,
    Granularity,
    cheaper_than_fine,
    kept_crops,
    marked,
    unmarked,
)
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.score_rows import columns, origin, to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.granularity import GranularFeatures, fit_calibration
from tests.fakes import draw

PROMPTS = ("a red fox", "a photo", "good photo", "a bad red photo")
NATIVE = ViewSpec(fine="native", crops=9, crop_size=32)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Return 192 drawn images of 48 prompts."""
    folder, found = tmp_path_factory.mktemp("rated"), []
    for i in range(192):
        path = folder / f"{i}.png"
        draw(i, i * 37 % 100 / 100, 32 + i % 9).save(path)
        found.append(Record(path.name, path, PROMPTS[i % 4], f"toy/{i // 4}", f"gen{i % 2}", {}))
    return found


@pytest.fixture(scope="module")
def calibrating(
    small_model: Path, records: list[Record], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """Calibrate a copy of the small model by the command line; return its folder and what was said."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(small_model, folder)
    with (root := Path(str(records[0].file)).parent).joinpath("labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "prompt", "mos_quality", "prompt_group", "generator"])
        writer.writerows([r.name, r.prompt, 3, r.group, r.generator] for r in records)
    arguments = ["calibrate", "--data", "csv", "--root", root, "--range", 0, 5, "--model", folder]
    result = CliRunner().invoke(group, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def model(calibrating: tuple[Path, Result]) -> Path:
    return calibrating[0]


@pytest.fixture(scope="module")
def made(model: Path) -> Calibration:
    return Calibration.load(model / CALIBRATION_FILE, Scorer.load(model).model)


@pytest.fixture(scope="module")
def requests(records: list[Record]) -> list[ScoreRequest[None]]:
    return [ScoreRequest(record.file, record.prompt) for record in records[:24]]


@pytest.fixture(scope="module")
def halves(small_model: Path, made: Calibration, requests: list[ScoreRequest[None]]) -> Calibration:
    """Return a calibration whose limits lie among the deviations of the requests: each granularity gets some."""
    scorer = Scorer.load(small_model)
    f_c = torch.stack([one.f_c for one in scorer.encode([request.image for request in requests])])
    e = deviations(made.estimators, scorer.predictor, f_c, [request.prompt for request in requests])
    limits = {name: found.quantile(share, dim=0) for (name, found), share in zip(e.items(), (0.4, 0.8), strict=True)}
    everything_familiar = dataclasses.replace(made.reference, held=made.reference.held + 1e9)
    return dataclasses.replace(with_limits(made, limits), reference=everything_familiar, digest="01234567")


@pytest.fixture
def fine(small_model: Path) -> Scorer:
    return Scorer.load(small_model, batch_size=4)


@pytest.fixture
def auto(small_model: Path, halves: Calibration) -> Scorer:
    return scorer_with(small_model, halves)


def with_limits(calibration: Calibration, limits: dict[str, Tensor]) -> Calibration:
    """Return a calibration that has these limits at any tolerance, and a check that holds."""
    held = {}
    for name, most in limits.items():
        below, above = (torch.stack([most * by, torch.full_like(most, error)], 1) for by, error in ((0.5, 0), (1.5, 1)))
        held[name] = torch.stack([below] * 60 + [above] * 60)
    check = {name: torch.zeros(30, 2, 2) for name in limits}
    return dataclasses.replace(calibration, held=held, check=check, check_familiar=torch.ones(30, dtype=torch.bool))


def scorer_with(model: Path, calibration: Calibration, asked: str = "auto", check: int = 0, **options: Any) -> Scorer:
    scorer = Scorer.load(model, batch_size=4, **options)
    scorer.encoder.policy = GranularEncoding(scorer.predictor, calibration, Granularity.parse(asked), check)
    return scorer


def without_mark(score: Score) -> Score:
    return dataclasses.replace(score, model=unmarked(score.model), granularity=None)


# --- names ---


@pytest.mark.parametrize("text", ["coarse", "fine", "native:1", "native:4", "auto:0.05", "auto:0.125"])
def test_a_granularity_is_the_text_that_asks_for_it(text: str) -> None:
    asked = Granularity.parse(text)
    assert str(asked) == text
    assert unmarked(marked("mini", asked)) == "mini"
    assert (marked("mini", asked) == "mini") is (text == "fine")


def test_a_name_with_other_brackets_is_kept() -> None:
    assert unmarked("zero-shot:openai (uncalibrated)") == "zero-shot:openai (uncalibrated)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corse", r"Expected the granularity auto, auto:TOL, coarse, .*, got 'corse' \(did you mean 'coarse'\?\)\."),
        ("fine:2", "Expected the granularity"),
        ("native", "Expected the granularity"),
        ("native:3", "Expected a square number of crops in native:K, got 3"),
        ("native:0", "Expected a square number"),
        ("auto:0", "Expected a share of the scale between 0 and 1 in auto:TOL, got '0'"),
        ("auto:nan", "Expected a share"),
        ("auto:1", "Expected a share"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Granularity.parse(text)


def test_native_crops_need_a_native_view() -> None:
    assert Granularity.parse("native:9").seen_by(NATIVE) == Granularity("fine")
    assert Granularity.parse("native:4").seen_by(NATIVE).crops == 4
    with pytest.raises(UsageError, match="Expected at most native:9 for these encoders, got native:16"):
        Granularity.parse("native:16").seen_by(NATIVE)
    with pytest.raises(UsageError, match="Expected auto, coarse or fine for encoders that see no native crops"):
        Granularity.parse("native:1").seen_by(ViewSpec())
    assert cheaper_than_fine(ViewSpec()) == ["coarse"]
    assert cheaper_than_fine(dataclasses.replace(NATIVE, crops=16)) == ["coarse", "native:1", "native:4", "native:9"]


@pytest.mark.parametrize("kept", [1, 4, 9])
def test_some_crops_lie_as_so_many_crops_would(kept: int) -> None:
    image = draw(0, 0.5, 100)
    crops = native_crops(image, NATIVE)
    want = native_crops(image, dataclasses.replace(NATIVE, crops=kept))
    found = [crops[i] for i in kept_crops(f"native:{kept}", 9)]
    assert [np.asarray(one).tobytes() for one in found] == [np.asarray(one).tobytes() for one in want]


# --- the bound ---


def synthetic(scorer: Scorer, images: int, seed: int = 0) -> tuple[GranularFeatures, list[Record]]:
    """Return features whose fine half follows the coarse one, more closely for some images than for others."""
    draws = torch.Generator().manual_seed(seed)
    dim = scorer.encoder.encoders.dim
    f_c = torch.randn(images, dim, generator=draws)
    maps = torch.randn(dim, dim, generator=torch.Generator().manual_seed(9))
    f_f = f_c @ maps / 3 + 0.5 * torch.randn(images, dim, generator=draws)
    some = f_f + 0.3 * torch.randn(images, dim, generator=draws)
    records = [Record(str(i), Path(), PROMPTS[i % 4], f"toy/{i // 4}", "", {}) for i in range(images)]
    return GranularFeatures(f_c, {"native:1": some, "fine": f_f}, {"coarse": 0.3, "native:1": 0.5}), records


def fitted(scorer: Scorer, images: int = 1200) -> Calibration:
    features, records = synthetic(scorer, images)
    return fit_calibration(
        scorer.predictor, features, records, CalibratedOn("", tuple(scorer.ranges), costs=features.costs)
    )


def test_the_bound_holds_on_other_images_and_spares_some(fine: Scorer) -> None:
    calibration = fitted(fine)
    tolerance = float(calibration.check["coarse"][..., 1].quantile(0.9))
    features, records = synthetic(fine, 1200, seed=1)
    other = fit_calibration(fine.predictor, features, records, calibration.on)  # for e and errors of other images
    e = {name: rows[..., 0] for name, rows in other.check.items()}
    names = calibration.chosen(e, torch.ones(len(e["coarse"]), dtype=torch.bool), calibration.limits(tolerance))
    below = [(i, name) for i, name in enumerate(names) if name != "fine"]
    within = [bool((other.check[name][i, :, 1] <= tolerance).all()) for i, name in below]
    assert len(within) > 40  # a bound that spared none would hold as well
    assert sum(within) / len(within) >= 0.93
    assert len(set(names)) == 3
    errors = calibration.check["coarse"][..., 1].amax(dim=1)
    assert (errors <= tolerance).float().mean() < 0.9  # a bound that spared all would not hold


def test_a_promise_counts_the_images_below_fine(fine: Scorer) -> None:
    calibration = fitted(fine)
    tolerance = float(calibration.check["coarse"][..., 1].quantile(0.9))
    found, limits = calibration.promise(tolerance), calibration.limits(tolerance)
    counts, good = {"coarse": 0, "native:1": 0, "fine": 0}, 0
    for i in range(found.images):
        name = next(
            (
                n
                for n, rows in calibration.check.items()
                if calibration.check_familiar[i] and (rows[i, :, 0] <= limits[n]).all()
            ),
            "fine",
        )
        counts[name] += 1
        good += name != "fine" and bool((calibration.check[name][i, :, 1] <= tolerance).all())
    assert found.counts == counts
    assert found.within == pytest.approx(good / found.below)
    assert found.time == pytest.approx(
        (0.3 * counts["coarse"] + 0.5 * counts["native:1"] + counts["fine"]) / found.images
    )


def limit_of(e: list[float], errors: list[float], tolerance: float = 0.1, targets: int = 1) -> float:
    rows = torch.tensor([e, errors]).T
    empty = Calibration({}, {"coarse": rows.unsqueeze(1).expand(-1, targets, -1)}, {}, torch.ones(0), None, None)  # type: ignore[arg-type]
    return float(empty.limits(tolerance)["coarse"][0])


def test_a_limit_keeps_its_share_and_not_one_image_more() -> None:
    places = [i / 1000 for i in range(200)]
    bad = [0.0] * 100 + [1.0] * 100  # the first hundred are within the tolerance
    assert limit_of(places, [0.0] * 200) == pytest.approx(0.199)
    # (bad + 1) / (kept + 1) <= 0.05: five bad ones in 119, not six in 120
    assert limit_of(places, bad) == pytest.approx((0.103 + 0.104) / 2)
    assert limit_of(places, bad, targets=2) == pytest.approx((0.100 + 0.101) / 2)  # half of it for each of two


@pytest.mark.parametrize("seed", range(5))
def test_no_limit_lets_in_too_many_bad_images(seed: int) -> None:
    draws = np.random.default_rng(seed)
    e = draws.choice([0.1, 0.2, 0.3, 0.4, 0.5], 300) + (draws.random(300) * 0.05 if seed % 2 else 0)
    errors = draws.exponential(e)
    for tolerance in (0.05, 0.3, 1.0):
        limit = limit_of(e.tolist(), errors.tolist(), tolerance)
        kept = torch.tensor(e, dtype=torch.float32) <= limit
        bad = int((torch.tensor(errors, dtype=torch.float32)[kept] > tolerance).sum())
        assert (bad + 1) / (int(kept.sum()) + 1) <= 0.05 or limit == -torch.inf


def test_a_difference_of_exactly_the_tolerance_is_within_it() -> None:
    e = [i / 100 for i in range(60)]
    assert limit_of(e, [0.25] * 60, 0.25) == pytest.approx(0.59)
    assert limit_of(e, [0.2501] * 60, 0.25) == -torch.inf


def test_images_of_equal_deviation_go_together_and_few_images_set_no_limit() -> None:
    assert limit_of([0.1] * 100 + [0.2] * 100, [0.0] * 100 + [1.0] * 100) == pytest.approx(0.15)
    assert limit_of([0.1] * 18, [0.0] * 18) == -torch.inf
    assert limit_of([0.1] * 19, [0.0] * 19) == pytest.approx(0.1)
    assert limit_of([], []) == -torch.inf


def test_every_target_must_be_within_its_limit_and_unscored_ones_do_not_count(fine: Scorer) -> None:
    calibration = fitted(fine)
    limits = {"coarse": torch.tensor([1.0, 1.0]), "native:1": torch.tensor([2.0, 2.0])}
    rows = torch.tensor([[1.0, 1.0], [1.0, 1.1], [1.1, 1.0], [1.0, torch.nan], [3.0, 0.0], [0.0, 0.0]])
    familiar = torch.tensor([True] * 5 + [False])
    names = calibration.chosen({"coarse": rows, "native:1": rows}, familiar, limits)
    assert names == ["coarse", "native:1", "native:1", "coarse", "fine", "fine"]


def test_a_calibration_that_does_not_hold_is_refused(fine: Scorer) -> None:
    calibration = fitted(fine)
    tolerance = float(calibration.check["coarse"][..., 1].quantile(0.9))
    asked = Granularity("auto", tolerance=tolerance)
    calibration.require(asked)
    with pytest.raises(
        UsageError, match="Expected a tolerance at which calibration kept at least 20 images below fine"
    ):
        calibration.require(Granularity("auto", tolerance=tolerance / 1000))
    worse = {name: rows * torch.tensor([1.0, 3.0]) for name, rows in calibration.check.items()}
    with pytest.raises(UsageError, match="Expected a tolerance that held for 95% of the images"):
        dataclasses.replace(calibration, check=worse).require(asked)
    slow = dataclasses.replace(calibration.on, costs={"coarse": 0.99, "native:1": 1.2})
    with pytest.raises(UsageError, match="Expected a tolerance that saved 5% of the encoders' time in calibration"):
        dataclasses.replace(calibration, on=slow).require(asked)
    with pytest.raises(UsageError, match=r"that was calibrated \(coarse, native:1, fine\), got native:4"):
        calibration.require(Granularity("native", 4))


def test_a_target_that_calibration_could_not_score_keeps_images_fine(fine: Scorer) -> None:
    features, records = synthetic(fine, 400)
    silent = [dataclasses.replace(record, prompt=None) for record in records]
    calibration = fit_calibration(fine.predictor, features, silent, CalibratedOn("", tuple(fine.ranges)))
    limits = calibration.limits(0.9)["coarse"]
    assert limits[0] > 0
    assert limits[1] == -torch.inf


def test_too_few_images_are_refused(fine: Scorer) -> None:
    with pytest.raises(DataError, match="Expected at least 192 images of three prompts or more, got 20"):
        fitted(fine, 20)


# --- scoring ---


def test_fine_is_what_it_is_without_a_granularity(
    model: Path, small_model: Path, requests: list[ScoreRequest[None]]
) -> None:
    want = list(Scorer.load(small_model).many(requests))
    for name in ("fine", "native:4"):  # all four crops
        scorer = Scorer.load(model, granularity=name)
        assert list(scorer.many(requests)) == want
        assert "granularity" not in columns(scorer)
    assert {score.granularity for score in want} == {None}


def test_auto_gives_every_image_the_scores_of_its_granularity(
    model: Path, auto: Scorer, requests: list[ScoreRequest[None]]
) -> None:
    scores = list(auto.many(requests))
    names = [score.granularity for score in scores]
    assert set(names) == {"coarse", "native:1", "fine"}
    for name in ("coarse", "native:1", "fine"):
        alone = list(Scorer.load(model, granularity=name).many(requests))
        for score, want in zip(scores, alone, strict=True):
            if score.granularity == name:
                assert score.targets == want.targets
                assert score.gate == want.gate


@pytest.mark.parametrize("granularity", ["coarse", "native:1", "auto"])
def test_batch_mates_and_order_change_nothing(
    model: Path, auto: Scorer, requests: list[ScoreRequest[None]], granularity: str
) -> None:
    scorer = auto if granularity == "auto" else Scorer.load(model, granularity=granularity, batch_size=5)
    want = list(scorer.many(requests))
    assert list(scorer.many(requests[::-1])) == want[::-1]
    assert [scorer.many([request]).__next__() for request in requests[:8]] == want[:8]


def test_only_what_is_needed_is_encoded(
    model: Path, auto: Scorer, requests: list[ScoreRequest[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    encode = MiniPair.encode_chunk

    def counted(self: MiniPair, stream: Stream, views: Tensor) -> Tensor:
        seen.append((stream, views.shape[1] if stream == "fine" else 0))
        return encode(self, stream, views)

    monkeypatch.setattr(MiniPair, "encode_chunk", counted)
    list(Scorer.load(model, granularity="coarse").many(requests[:4]))
    assert {stream for stream, _ in seen} == {"coarse"}
    seen.clear()
    list(Scorer.load(model, granularity="native:1").many(requests[:4]))
    assert {crops for stream, crops in seen if stream == "fine"} == {1}
    seen.clear()
    names = {score.granularity for score in auto.many(requests)}
    assert {crops for stream, crops in seen if stream == "fine"} == {1, 4}
    assert names == {"coarse", "native:1", "fine"}


def test_the_cache_changes_nothing_and_saves_the_encoders(
    model: Path,
    requests: list[ScoreRequest[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    halves: Calibration,
) -> None:
    want = list(scorer_with(model, halves).many(requests))
    with Cache(tmp_path) as cache:
        some = scorer_with(model, halves, cache=cache)
        assert list(some.many(requests)) == want
        assert cache.info()[0].images == len(requests)
        monkeypatch.setattr(MiniPair, "encode_chunk", lambda *_: pytest.fail("encoded again"))
        assert list(scorer_with(model, halves, cache=cache).many(requests)) == want
        assert some.encoder.policy.summary().count("of 24 images") == 1


def test_features_of_one_granularity_are_not_those_of_another(
    model: Path, requests: list[ScoreRequest[None]], tmp_path: Path, halves: Calibration
) -> None:
    names = ("fine", "coarse", "native:1")
    want = {name: list(Scorer.load(model, granularity=name).many(requests)) for name in names}
    with Cache(tmp_path) as cache:
        for name in (*names, *names):
            assert list(Scorer.load(model, granularity=name, cache=cache).many(requests)) == want[name]
        assert cache.info()[0].images == 3 * len(requests)
        assert list(scorer_with(model, halves, cache=cache).many(requests)) == list(
            scorer_with(model, halves).many(requests)
        )


def test_an_unfamiliar_image_is_fine_with_auto_and_has_a_caution_otherwise(
    model: Path, requests: list[ScoreRequest[None]], made: Calibration
) -> None:
    calibration = with_limits(made, dict.fromkeys(("coarse", "native:1"), torch.tensor([9.0, 9.0])))
    strange = dataclasses.replace(calibration.reference, held=np.full(201, -1.0))
    for reference, granularity in ((calibration.reference, "coarse"), (strange, "fine")):
        some = dataclasses.replace(calibration, reference=reference)
        scores = list(scorer_with(model, some).many(requests[:8]))
        assert [score.granularity for score in scores].count(granularity) >= 7  # one in twenty is unfamiliar
        assert not [score for score in scores if UNLIKE_CALIBRATION in score.reason]
    (score,) = scorer_with(model, dataclasses.replace(calibration, reference=strange), "coarse").many(requests[:1])
    assert UNLIKE_CALIBRATION in score.reason
    assert score.granularity == "coarse"


def test_bad_images_and_missing_prompts_keep_their_place(
    model: Path, requests: list[ScoreRequest[None]], tmp_path: Path, halves: Calibration
) -> None:
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    asked = [ScoreRequest(bad), ScoreRequest(requests[0].image), *requests[1:3], ScoreRequest(requests[3].image, " ")]
    scores = list(scorer_with(model, halves).many(asked))
    assert [score.error for score in scores] == ["image", None, None, None, "prompt"]
    assert scores[1].correspondence is None
    assert scores[1].quality is not None
    assert scores[4].reason == EMPTY_PROMPT
    assert scores[0].granularity is None
    with pytest.raises(PromptError, match="expected words in the prompt"):
        Scorer.load(model, granularity="coarse")(requests[0].image, " ")


def test_one_image_with_several_prompts_is_fine_with_auto(
    model: Path, fine: Scorer, requests: list[ScoreRequest[None]], halves: Calibration
) -> None:
    scores = scorer_with(model, halves)(requests[0].image, ["a fox", "a photo"])
    assert [score.granularity for score in scores] == ["fine", "fine"]
    assert [without_mark(score) for score in scores] == fine(requests[0].image, ["a fox", "a photo"])


def test_all_prompts_of_an_image_decide(model: Path, requests: list[ScoreRequest[None]], halves: Calibration) -> None:
    policy = scorer_with(model, halves).encoder.policy
    fine = Scorer.load(model)
    order = ["coarse", "native:1", "fine"]
    for request in requests[:8]:
        alone = []
        for prompts in ((PROMPTS[0],), (PROMPTS[3],), (PROMPTS[0], PROMPTS[3])):
            viewed = fine.encoder.open(request.image, prompts)
            (one,) = policy.encode([viewed])  # type: ignore[list-item]
            alone.append(order.index(str(one.granularity)))
        assert alone[2] >= max(alone[:2])


def test_the_summary_counts_and_checks(
    model: Path, fine: Scorer, requests: list[ScoreRequest[None]], made: Calibration, halves: Calibration
) -> None:
    some = scorer_with(model, made, "coarse", check=3)
    scores = list(some.many(requests))
    assert [score.granularity for score in scores].count("fine") == 3
    assert [without_mark(score).targets for score in scores[:3]] == [score.targets for score in fine.many(requests[:3])]
    text = some.encoder.policy.summary()
    assert text.startswith(
        "Granularity: coarse for 24 of 24 images. In calibration, 95% of scores differed from those at"
    )
    estimated = list(Scorer.load(model, granularity="coarse").many(requests[:3]))
    most = max(
        abs(a.targets[t] - b.targets[t]) / 5  # type: ignore[operator]
        for a, b in zip(scores[:3], estimated, strict=True)
        for t in a.targets
    )
    assert f"Checked 3 images: the largest difference was {most:.1%} of the scale." in text
    auto = scorer_with(model, halves)
    list(auto.many(requests))
    assert (
        "In calibration, 100.0% of 30 images below fine were within 0.05 of the scale" in auto.encoder.policy.summary()
    )


# --- files ---


def test_calibrating_says_what_each_granularity_changes(calibrating: tuple[Path, Result], made: Calibration) -> None:
    folder, result = calibrating
    lines = [line.split("|")[1:-1] for line in result.output.splitlines() if line.startswith("|")]
    table = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    for name, cost in made.on.costs.items():
        assert table[name] == [f"{cost:.0%}", *(f"{size:.1%}" for size in made.differences(name).values())]
    found = made.promise(0.05)
    assert table["0.05"][:3] == [f"{count / found.images:.0%}" for count in found.counts.values()]
    assert f"Calibrated on 192 images of 48 prompts; saved {folder / CALIBRATION_FILE}." in result.output.replace(
        "\n", ""
    )
    errors = made.check["coarse"][:, 1, 1]
    assert (errors <= made.differences("coarse")["correspondence"]).float().mean() == pytest.approx(0.95, abs=0.02)


def test_a_calibration_is_read_as_it_was_written(small_model: Path, made: Calibration, tmp_path: Path) -> None:
    scorer = Scorer.load(small_model)
    made.save(tmp_path / CALIBRATION_FILE)
    read = Calibration.load(tmp_path / CALIBRATION_FILE, scorer.model)
    assert read.on == made.on
    assert (read.on.data, read.on.images, read.on.prompts) == ("csv", 192, 48)
    for name, estimator in made.estimators.items():
        assert torch.equal(read.estimators[name].weight, estimator.weight)
        assert torch.equal(read.estimators[name].spread, estimator.spread)
        assert torch.equal(read.check[name].nan_to_num(-1), made.check[name].nan_to_num(-1))
    for tolerance in (0.002, 0.01):
        for name, limit in made.limits(tolerance).items():
            assert torch.equal(read.limits(tolerance)[name], limit)
    assert torch.equal(read.check_familiar, made.check_familiar)
    assert len(read.digest) == 8


def test_a_saved_model_keeps_its_calibration(model: Path, requests: list[ScoreRequest[None]], tmp_path: Path) -> None:
    scorer = Scorer.load(model, granularity="coarse")
    scorer.save_pretrained(tmp_path / "copy")
    copy = Scorer.load(tmp_path / "copy", granularity="coarse")
    assert list(copy.many(requests[:4])) == list(scorer.many(requests[:4]))
    assert copy.model.config.name == "small"


def test_a_calibration_of_another_model_is_refused(model: Path, small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"Expected granularity\.safetensors beside the model, got none in .* calibrate"
    ):
        Scorer.load(small_model, granularity="auto")
    trained = Scorer.load(small_model).model
    other = dataclasses.replace(trained, parts={"quality": trained.parts["quality"]})
    assert owner_of(other) != owner_of(trained)
    with pytest.raises(ModelError, match="to belong to this model"):
        Calibration.load(model / CALIBRATION_FILE, other)
    for raw in (
        b"garbage",
        b"",
        (model / CALIBRATION_FILE).read_bytes()[:-9],
        (model / "model.safetensors").read_bytes(),
    ):
        (tmp_path / "damaged").write_bytes(raw)
        with pytest.raises(ModelError, match="Expected a calibration in"):
            Calibration.load(tmp_path / "damaged", trained)


def test_rows_say_their_granularity_and_cannot_be_mixed_up(model: Path, requests: list[ScoreRequest[None]]) -> None:
    fine, coarse = Scorer.load(model), Scorer.load(model, granularity="coarse")
    (score,) = coarse.many(requests[:1])
    assert score.model == "small (coarse)"
    assert to_row("a.png", None, score)["granularity"] == "coarse"
    assert columns(coarse) == columns(fine) | {"granularity": str}
    differs = {key for key, value in origin(fine, []).items() if origin(coarse, [])[key] != value}
    assert differs == {"model", "granularity"}
    assert coarse.encoder.policy.described.startswith("coarse by calibration ")


def test_usage(model: Path, small_model: Path) -> None:
    with pytest.raises(UsageError, match="--granularity-check needs a --granularity below fine"):
        Scorer.load(model, granularity_check=3)
    with pytest.raises(UsageError, match="Expected 0 or more images for --granularity-check, got -1"):
        Scorer.load(model, granularity="coarse", granularity_check=-1)
    with pytest.raises(UsageError, match="Expected no --merge beside --granularity"):
        Scorer.load(model, granularity="coarse", merge=3)
    with pytest.raises(UsageError, match="Expected a trained model for --granularity, got zero-shot"):
        calibration_path(None)
    with pytest.raises(UsageError, match="Expected at most native:4 for these encoders, got native:9"):
        Scorer.load(small_model, granularity="native:9")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
