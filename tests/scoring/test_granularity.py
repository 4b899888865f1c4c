"""How much of an image is looked at: bounds that hold, rows that say so, and nothing that depends on batch mates."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from torch import Tensor

from mst_clipiqa.cli.commands.calibrate import _say
from mst_clipiqa.data import Record
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.errors import DataError, ModelError, PromptError, UsageError, percent
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.encoding import BATCH_SIZE
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, native_crops
from mst_clipiqa.scoring.calibration import PARTS, CalibratedOn, Calibration, Promise, weights_sha256
from mst_clipiqa.scoring.calibration_file import calibration_path, load_calibration, save_calibration
from mst_clipiqa.scoring.fine_estimator import deviations, scaled_scores
from mst_clipiqa.scoring.granular_encoding import GranularEncoding
from mst_clipiqa.scoring.granularity import (
    CALIBRATION_FILE,
    Granularity,
    cheaper_than_fine,
    kept_crops,
    with_setting,
    without_setting,
)
from mst_clipiqa.scoring.granularity_choice import UNLIKE_CALIBRATION
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT
from mst_clipiqa.scoring.risk import cheapest, lowest_price, outcomes, risks
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.score_rows import columns, origin, to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.granularity import GranularFeatures, fit_calibration
from tests.commands import run
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
    return folder, run(*arguments)


@pytest.fixture(scope="module")
def model(calibrating: tuple[Path, Result]) -> Path:
    return calibrating[0]


@pytest.fixture(scope="module")
def made(model: Path) -> Calibration:
    return load_calibration(model / CALIBRATION_FILE, Scorer.load(model).model)


@pytest.fixture(scope="module")
def requests(records: list[Record]) -> list[ScoreRequest[None]]:
    return [ScoreRequest(record.file, record.prompt) for record in records[:24]]


@pytest.fixture(scope="module")
def mixed(small_model: Path, made: Calibration, requests: list[ScoreRequest[None]]) -> Calibration:
    """Return a calibration that gives each granularity some of the requests, and to which all are familiar."""
    scorer = Scorer.load(small_model)
    f_c = torch.stack([one.f_c for one in scorer.encode([request.image for request in requests])])
    prompts = [request.prompt for request in requests]
    guess = made.estimators["coarse"].fine(f_c)
    everything_familiar = replace(made.reference, held=made.reference.held + 1e9)
    familiar, tolerance = torch.ones(len(requests), dtype=torch.bool), Granularity.parse("auto").tolerance
    spreads = {name: one.spread for name, one in made.estimators.items()}
    e = deviations(spreads, scorer.predictor, f_c, guess, prompts)
    fixed, order = at_price(made, 1.0), ("coarse", "native:1", "fine")
    sizes = {name: found / found.nan_to_num(0).amax(dim=1).median() for name, found in e.items()}
    for steeper, share in itertools.product(np.geomspace(0.5, 3, 30) * tolerance, np.linspace(0.3, 0.9, 13)):
        by = {"coarse": steeper, "native:1": steeper * share}
        names = fixed.choose({name: size * by[name] for name, size in sizes.items()}, familiar, tolerance, 1.0)
        if min(map(names.count, order)) >= 4:
            unit = {name: float((e[name] / sizes[name]).nanmedian()) for name in e}
            estimators = {n: replace(one, spread=one.spread * by[n] / unit[n]) for n, one in made.estimators.items()}
            return replace(fixed, estimators=estimators, reference=everything_familiar, digest="01234567")
    raise AssertionError("no such calibration")


@pytest.fixture
def fine(small_model: Path) -> Scorer:
    return Scorer.load(small_model, batch_size=4)


@pytest.fixture
def auto(small_model: Path, mixed: Calibration) -> Scorer:
    return scorer_with(small_model, mixed)


def at_price(calibration: Calibration, price: float) -> Calibration:
    """Return a calibration with this price of risk at any tolerance, and images that all were within it."""
    n = 30
    fixed = FixedPrice(**{field.name: getattr(calibration, field.name) for field in dataclasses.fields(calibration)})
    costs = replace(calibration.on, costs=dict(zip(calibration.estimators, (0.3, 0.5), strict=True)))
    return replace(
        fixed,
        fixed=price,
        measured={name: torch.zeros(n, 2, 2) for name in calibration.estimators},
        is_familiar=torch.ones(n, dtype=torch.bool),
        part=torch.arange(n) % PARTS,
        on=costs,
    )


@dataclasses.dataclass(frozen=True)
class FixedPrice(Calibration):
    """A calibration whose price of risk does not depend on what it measured."""

    fixed: float = 0.0

    def price(self, tolerance: float) -> float:
        return self.fixed

    def promise(self, tolerance: float) -> Promise:
        counts = dict.fromkeys(self.estimators, 15) | {"fine": 0}
        return Promise(tolerance, 30, counts, 1.0, 0.4)


def scorer_with(model: Path, calibration: Calibration, asked: str = "auto", check: int = 0, **options: Any) -> Scorer:
    scorer = Scorer.load(model, batch_size=4, **options)
    scorer.encoder.policy = GranularEncoding(scorer.predictor, calibration, Granularity.parse(asked), check)
    return scorer


def without_mark(score: Score) -> Score:
    return replace(score, model=without_setting(score.model), granularity=None)


def test_batches_are_larger_where_only_some_images_need_crops(model: Path, mixed: Calibration) -> None:
    sizes = []
    for asked in ("coarse", "auto"):
        scorer = scorer_with(model, mixed, asked)
        sizes.append(scorer.encoder.batch_size)
        scorer.encoder.chosen_batch_size = None
        sizes.append(scorer.encoder.batch_size)
    assert sizes == [4, BATCH_SIZE, 4, 2 * BATCH_SIZE]


# --- names ---


@pytest.mark.parametrize("text", ["coarse", "fine", "native:1", "native:4", "auto:0.06", "auto:0.125"])
def test_a_granularity_is_the_text_that_asks_for_it(text: str) -> None:
    asked = Granularity.parse(text)
    assert str(asked) == text
    assert without_setting(with_setting("mini", asked)) == "mini"
    assert (with_setting("mini", asked) == "mini") is (text == "fine")


def test_a_name_with_other_brackets_is_kept() -> None:
    assert without_setting("zero-shot:openai (uncalibrated)") == "zero-shot:openai (uncalibrated)"


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
    assert cheaper_than_fine(replace(NATIVE, crops=16)) == ["coarse", "native:1", "native:4", "native:9"]


@pytest.mark.parametrize("kept", [1, 4, 9])
def test_some_crops_lie_as_so_many_crops_would(kept: int) -> None:
    image = draw(0, 0.5, 100)
    crops = native_crops(image, NATIVE)
    want = native_crops(image, replace(NATIVE, crops=kept))
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


@pytest.fixture(scope="module")
def calibration(small_model: Path) -> Calibration:
    return fitted(Scorer.load(small_model))


@pytest.fixture(scope="module")
def tolerance(calibration: Calibration) -> float:
    """Return a tolerance that is too small for one in five images at coarse granularity."""
    return float(calibration.measured["coarse"][..., 1].amax(dim=1).quantile(0.8))


def deviations_of(calibration: Calibration, rows: Tensor | slice = slice(None)) -> dict[str, Tensor]:
    return {name: found[rows, :, 0] for name, found in calibration.measured.items()}


def test_the_bound_holds_on_other_images_and_spares_some(
    fine: Scorer, calibration: Calibration, tolerance: float
) -> None:
    features, records = synthetic(fine, 1200, seed=1)
    prompts, true = [record.prompt for record in records], features.f_f["fine"]
    inputs = {"coarse": features.f_c, "native:1": torch.cat([features.f_c, features.f_f["native:1"]], dim=1)}
    guesses = {name: one.fine(inputs[name]) for name, one in calibration.estimators.items()}
    spreads = {name: one.spread for name, one in calibration.estimators.items()}
    e = deviations(spreads, fine.predictor, features.f_c, guesses["coarse"], prompts)
    want = scaled_scores(fine.predictor, features.f_c, true, prompts)
    error = {
        name: (scaled_scores(fine.predictor, features.f_c, f, prompts) - want).abs() for name, f in guesses.items()
    }
    familiar = torch.ones(len(prompts), dtype=torch.bool)
    names = calibration.choose(e, familiar, tolerance, calibration.price(tolerance))
    within = [bool((error[name][i] <= tolerance).all()) for i, name in enumerate(names) if name != "fine"]
    assert len(within) > 600  # a bound that spared few would hold as well
    assert sum(within) / len(within) >= 0.94
    assert {"coarse", "native:1"} <= set(names)
    assert (error["coarse"] <= tolerance).all(dim=1).float().mean() < 0.85  # a bound that spared all would not hold


def test_a_promise_is_measured_on_each_part_at_the_price_that_the_others_set(
    calibration: Calibration, tolerance: float
) -> None:
    counts, good = {"coarse": 0, "native:1": 0, "fine": 0}, 0
    for i in range(PARTS):
        own = calibration.part == i
        others = replace(
            calibration,
            measured={name: rows[~own] for name, rows in calibration.measured.items()},
            is_familiar=calibration.is_familiar[~own],
            part=calibration.part[~own],
        )
        names = others.choose(
            deviations_of(calibration, own), calibration.is_familiar[own], tolerance, others.price(tolerance)
        )
        for name, row in zip(names, own.nonzero().squeeze(1).tolist(), strict=True):
            counts[name] += 1
            good += name != "fine" and bool((calibration.measured[name][row, :, 1] <= tolerance).all())
    found = calibration.promise(tolerance)
    assert found.images == 1200
    assert found.counts == counts
    assert found.within == pytest.approx(good / found.below)
    assert found.time == pytest.approx((0.3 * counts["coarse"] + 0.5 * counts["native:1"] + counts["fine"]) / 1200)


def test_no_image_is_measured_by_what_it_fitted(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the fine features of one part: the estimates of its own images stay what they were."""
    scorer = Scorer.load(small_model)
    features, records = synthetic(scorer, 240)
    on = CalibratedOn("", tuple(scorer.ranges), costs=features.costs)
    places = []

    def noted(spreads: Any, predictor: Any, f_c: Tensor, f_f: Tensor, prompts: Any) -> dict[str, Tensor]:
        places.append(f_f)
        return deviations(spreads, predictor, f_c, f_f, prompts)

    monkeypatch.setattr("mst_clipiqa.train.granularity.deviations", noted)
    before = fit_calibration(scorer.predictor, features, records, on)
    own = before.part == 0
    moved = features.f_f["fine"].clone()
    moved[own] = 7.0
    after = fit_calibration(scorer.predictor, replace(features, f_f=features.f_f | {"fine": moved}), records, on)
    prompts = [record.prompt for record in records]
    true, new = (scaled_scores(scorer.predictor, features.f_c, f, prompts) for f in (features.f_f["fine"], moved))
    assert torch.equal(places[0][own], places[1][own])  # where slopes are taken
    guess = [found.measured["coarse"][own, :, 1] for found in (before, after)]
    assert not torch.allclose(guess[0], guess[1])  # the truth is another
    for target in range(2):
        signs = [
            [t - e, t + e]
            for t, e in ((true[own, target], guess[0][:, target]), (new[own, target], guess[1][:, target]))
        ]
        same = torch.stack([(a - b).abs() for a in signs[0] for b in signs[1]]).amin(dim=0)
        assert same.max() < 0.002  # float16


def test_prompts_of_one_group_are_in_one_part(calibration: Calibration) -> None:
    assert (calibration.part.view(-1, 4) == calibration.part[::4].unsqueeze(1)).all()
    assert calibration.part.bincount().min() >= 1200 // PARTS - 4


@pytest.mark.parametrize("deviation", [(0.02, 0.01), (0.03, torch.nan), (0.0, 0.04)])
def test_a_risk_is_how_often_a_normal_change_is_too_large(deviation: tuple[float, float]) -> None:
    draws = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(deviation).nan_to_num(0)
    found = risks(torch.tensor([[deviation]]), 0.03)[0]
    assert found[0] == pytest.approx(float((draws.abs() > 0.03).any(dim=1).float().mean()), abs=0.003)
    assert found[1] == 0  # fine


def test_dearer_risk_buys_more_certain_granularities() -> None:
    costs, risk = torch.tensor([0.4, 0.6, 1.0]), torch.tensor([[0.5, 0.1, 0.0]])
    assert [int(cheapest(costs, risk, price)) for price in (0.0, 0.45, 0.55, 3.9, 4.1)] == [0, 0, 1, 1, 2]
    assert int(cheapest(costs, torch.zeros(1, 3), float("inf"))) == 2


def lowest(below: list[int], bad: list[int], seen: float = 0.0) -> float:
    return lowest_price(torch.tensor(below), torch.tensor(bad), seen)


def test_the_price_is_the_lowest_that_holds_with_confidence() -> None:
    # Clopper and Pearson: 38 of 1,000 may be 4.95 %, and 39 may be 5.06 %.
    assert lowest([1000] * 61, [50, 45, 39, 38, *[0] * 57]) == pytest.approx(10 ** (3 * 0.05))
    assert lowest([58] * 61, [0] * 61) == float("inf")  # 0.95^58 > 5 %
    assert lowest([59] * 61, [0] * 61) == 1.0  # a certain miss costs at least what fine costs
    assert lowest([0] * 61, [0] * 61) == lowest([9] * 61, [9] * 61) == float("inf")


def test_fewer_may_be_bad_where_the_model_was_trained_on_the_calibration_images() -> None:
    # Clopper and Pearson: 29 of 1,000 may be 3.95 %, and 30 may be 4.06 %.
    assert lowest([1000] * 61, [38, 30, 29, *[0] * 58], seen=1.0) == pytest.approx(10 ** (3 * 2 / 60))
    assert lowest([1000] * 61, [38, *[0] * 60]) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_the_price_keeps_its_promise_where_the_truth_is_known(seed: int) -> None:
    """Draw changes as normal as their deviations say, or with heavier tails: as many are within as was promised."""
    draws = np.random.default_rng(seed)
    heavy = seed % 2
    e = draws.exponential(0.03, (40_000, 1, 1)) * np.array([1.0, 0.6]).reshape(1, 2, 1)
    error = np.abs(draws.standard_t(3, e.shape) if heavy else draws.standard_normal(e.shape)) * e
    costs, risk = torch.tensor([0.4, 0.6, 1.0]), risks(torch.from_numpy(e).float(), 0.05)
    is_bad = torch.from_numpy(error > 0.05).squeeze(2)
    few, rest = slice(0, 2000), slice(2000, None)
    below, bad = outcomes(costs, risk[few], is_bad[few], torch.zeros(2000, dtype=torch.int64), 1)
    at = cheapest(costs, risk[rest], lowest_price(below[:, 0], bad[:, 0]))
    kept = at < 2
    missed = is_bad[rest].gather(1, at.clamp(max=1).unsqueeze(1)).squeeze(1)[kept].float().mean()
    assert 0.025 < missed <= 0.052
    assert kept.float().mean() > 0.7
    assert is_bad[:, 0].float().mean() > 0.06  # coarse for all would not hold


def test_no_granularity_is_chosen_that_calibration_found_wrong(calibration: Calibration, tolerance: float) -> None:
    """Coarse scores that are always off are never used, whatever their estimated risk."""
    rows = calibration.measured["coarse"].clone()
    rows[..., 1] = 1.0
    wrong = replace(calibration, measured=calibration.measured | {"coarse": rows})
    names = wrong.choose(deviations_of(wrong), wrong.is_familiar, tolerance, wrong.price(tolerance))
    assert names.count("coarse") <= 0.05 * (len(names) - names.count("fine")) + 1
    every = {
        name: torch.cat([found[..., :1], torch.ones_like(found[..., 1:])], dim=2)
        for name, found in wrong.measured.items()
    }
    hopeless = replace(wrong, measured=every)
    assert hopeless.price(tolerance) == float("inf")
    assert set(hopeless.choose(deviations_of(hopeless), hopeless.is_familiar, tolerance, float("inf"))) == {"fine"}


def test_every_target_adds_to_the_risk_and_unscored_ones_do_not_count(calibration: Calibration) -> None:
    e = torch.tensor([[0.02, 0.02], [0.02, 0.5], [0.5, 0.02], [0.02, torch.nan], [torch.nan, 0.5], [0.02, 0.02]])
    familiar = torch.tensor([True] * 5 + [False])
    names = calibration.choose({"coarse": e, "native:1": e / 5}, familiar, 0.06, 2.0)
    assert names == ["coarse", "fine", "fine", "coarse", "fine", "fine"]
    assert calibration.choose({"coarse": e, "native:1": e / 50}, familiar, 0.06, 2.0)[1] == "native:1"


def test_deviations_do_not_depend_on_the_number_of_cores(fine: Scorer, calibration: Calibration) -> None:
    features, records = synthetic(fine, 41)
    spreads = {name: one.spread for name, one in calibration.estimators.items()}
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        prompts = [record.prompt for record in records]
        found.append(deviations(spreads, fine.predictor, features.f_c, features.f_f["fine"], prompts)["coarse"])
    assert torch.equal(*found)
    assert found[0].isfinite().all()


def test_unfamiliar_images_do_not_raise_the_price(calibration: Calibration, tolerance: float) -> None:
    rows = {name: found.clone() for name, found in calibration.measured.items()}
    for found in rows.values():
        found[::5, :, 1] = 1.0
    strange = torch.arange(len(calibration.part)) % 5 != 0
    assert replace(calibration, measured=rows, is_familiar=strange).price(tolerance) < float("inf")
    assert replace(calibration, measured=rows).price(tolerance) == float("inf")


def test_a_calibration_that_does_not_hold_is_refused(calibration: Calibration, tolerance: float) -> None:
    asked = Granularity("auto", tolerance=tolerance)
    calibration.require(asked)
    with pytest.raises(
        UsageError, match="Expected a tolerance at which calibration kept at least 20 images below fine"
    ):
        calibration.require(Granularity("auto", tolerance=tolerance / 1000))
    one_part = calibration.part == 0  # others set a price that does not hold for it
    worse = {name: rows.clone() for name, rows in calibration.measured.items()}
    for rows in worse.values():
        rows[one_part, :, 1] = 1.0
    with pytest.raises(UsageError, match="Expected a tolerance that held for 95 % of images"):
        replace(calibration, measured=worse).require(asked)
    slow = replace(calibration.on, costs={"coarse": 0.99, "native:1": 1.2})
    exact = {name: rows * torch.tensor([1.0, 0.0]) for name, rows in calibration.measured.items()}
    with pytest.raises(UsageError, match="Expected a tolerance that saved 5 % of the encoders' time in calibration"):
        replace(calibration, on=slow, measured=exact).require(asked)
    with pytest.raises(UsageError, match=r"that was calibrated \(coarse, native:1, fine\), got native:4"):
        calibration.require(Granularity("native", 4))


def test_a_target_that_calibration_could_not_score_keeps_images_fine(fine: Scorer) -> None:
    features, records = synthetic(fine, 400)
    silent = [replace(record, prompt=None) for record in records]
    on = CalibratedOn("", tuple(fine.ranges), costs=features.costs)
    calibration = fit_calibration(fine.predictor, features, silent, on)
    e = torch.tensor([[0.001, torch.nan], [0.001, 0.001]])
    familiar = torch.ones(2, dtype=torch.bool)
    names = calibration.choose({"coarse": e, "native:1": e}, familiar, 0.5, calibration.price(0.5))
    assert names == ["coarse", "fine"]


def test_too_few_images_are_refused(fine: Scorer) -> None:
    with pytest.raises(DataError, match="Expected at least 192 images, of 6 prompts or more, got 20 of 5: give more"):
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
    mixed: Calibration,
) -> None:
    want = list(scorer_with(model, mixed).many(requests))
    with Cache(tmp_path) as cache:
        some = scorer_with(model, mixed, cache=cache)
        assert list(some.many(requests)) == want
        assert cache.info()[0].images == len(requests)
        monkeypatch.setattr(MiniPair, "encode_chunk", lambda *_: pytest.fail("encoded again"))
        assert list(scorer_with(model, mixed, cache=cache).many(requests)) == want
        assert some.encoder.policy.summary().count("of 24 images") == 1


def test_features_of_one_granularity_are_not_those_of_another(
    model: Path, requests: list[ScoreRequest[None]], tmp_path: Path, mixed: Calibration
) -> None:
    names = ("fine", "coarse", "native:1")
    want = {name: list(Scorer.load(model, granularity=name).many(requests)) for name in names}
    with Cache(tmp_path) as cache:
        for name in (*names, *names):
            assert list(Scorer.load(model, granularity=name, cache=cache).many(requests)) == want[name]
        assert cache.info()[0].images == 3 * len(requests)
        assert list(scorer_with(model, mixed, cache=cache).many(requests)) == list(
            scorer_with(model, mixed).many(requests)
        )


def test_an_unfamiliar_image_is_fine_with_auto_and_has_a_caution_otherwise(
    model: Path, requests: list[ScoreRequest[None]], made: Calibration
) -> None:
    calibration = at_price(made, 0.0)
    strange = replace(calibration.reference, held=np.full(201, -1.0))
    for reference, granularity in ((calibration.reference, "coarse"), (strange, "fine")):
        some = replace(calibration, reference=reference)
        scores = list(scorer_with(model, some).many(requests[:8]))
        assert [score.granularity for score in scores].count(granularity) >= 7  # one in twenty is unfamiliar
        assert not [score for score in scores if UNLIKE_CALIBRATION in score.reason]
    (score,) = scorer_with(model, replace(calibration, reference=strange), "coarse").many(requests[:1])
    assert UNLIKE_CALIBRATION in score.reason
    assert score.granularity == "coarse"


def test_bad_images_and_missing_prompts_keep_their_place(
    model: Path, requests: list[ScoreRequest[None]], tmp_path: Path, mixed: Calibration
) -> None:
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    asked = [ScoreRequest(bad), ScoreRequest(requests[0].image), *requests[1:3], ScoreRequest(requests[3].image, " ")]
    scores = list(scorer_with(model, mixed).many(asked))
    assert [score.error for score in scores] == ["image", None, None, None, "prompt"]
    assert scores[1].correspondence is None
    assert scores[1].quality is not None
    assert scores[4].reason == EMPTY_PROMPT
    assert scores[0].granularity is None
    with pytest.raises(PromptError, match="Expected words in the prompt"):
        Scorer.load(model, granularity="coarse")(requests[0].image, " ")


def test_a_target_that_is_not_scored_adds_no_risk(
    model: Path, requests: list[ScoreRequest[None]], mixed: Calibration
) -> None:
    estimators = {name: replace(one, spread=one.spread * 1e-6) for name, one in mixed.estimators.items()}
    (score,) = scorer_with(model, replace(mixed, estimators=estimators)).many([ScoreRequest[None](requests[0].image)])
    assert (score.granularity, score.correspondence) == ("coarse", None)


def test_one_image_with_several_prompts_is_fine_with_auto(
    model: Path, fine: Scorer, requests: list[ScoreRequest[None]], mixed: Calibration
) -> None:
    scores = scorer_with(model, mixed)(requests[0].image, ["a fox", "a photo"])
    assert [score.granularity for score in scores] == ["fine", "fine"]
    assert [without_mark(score) for score in scores] == fine(requests[0].image, ["a fox", "a photo"])


def test_all_prompts_of_an_image_decide(model: Path, requests: list[ScoreRequest[None]], mixed: Calibration) -> None:
    policy = scorer_with(model, mixed).encoder.policy
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
    model: Path, fine: Scorer, requests: list[ScoreRequest[None]], made: Calibration, mixed: Calibration
) -> None:
    some = scorer_with(model, made, "coarse", check=3)
    scores = list(some.many(requests))
    assert [score.granularity for score in scores].count("fine") == 3
    assert [without_mark(score).targets for score in scores[:3]] == [score.targets for score in fine.many(requests[:3])]
    text = some.encoder.policy.summary()
    assert text.startswith(
        "Granularity: coarse for 21, fine for 3 of 24 images. In calibration, 95 % of scores differed from those at"
    )
    estimated = list(Scorer.load(model, granularity="coarse").many(requests[:3]))
    most = max(
        abs(a.targets[t] - b.targets[t]) / 5  # type: ignore[operator]
        for a, b in zip(scores[:3], estimated, strict=True)
        for t in a.targets
    )
    assert (
        f"Checked 3 images, which got their fine scores: the largest difference was {percent(most, 1)} of the scale."
        in text
    )
    auto = scorer_with(model, mixed)
    list(auto.many(requests))
    twice = scorer_with(model, made, "coarse", check=1)
    viewed = twice.encoder.open(requests[0].image, (PROMPTS[0], PROMPTS[3]))
    twice.encoder.policy.encode([viewed])  # type: ignore[list-item]
    text = twice.encoder.policy.summary()
    assert "fine for 1 of 1 images." in text and "Checked 1 image, which got its fine scores: the" in text
    said = "In calibration, 100.0 % of 30 images below fine had no score that changed by more than 0.06 of its scale."
    assert said in auto.encoder.policy.summary()


# --- files ---


def test_calibrating_says_what_each_granularity_changes(calibrating: tuple[Path, Result], made: Calibration) -> None:
    folder, result = calibrating
    lines = [line.split("|")[1:-1] for line in result.output.splitlines() if line.startswith("|")]
    table = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    for name, cost in made.on.costs.items():
        assert table[name] == [
            percent(cost),
            *(percent(size, 1) for size in made.differences(name).values()),
        ]
    found = made.promise(0.06)
    assert table["0.06"][:3] == [percent(count / found.images) for count in found.counts.values()]
    assert f"Calibrated on 192 images of 48 prompts; saved {folder / CALIBRATION_FILE}." in result.output.replace(
        "\n", ""
    )
    errors = made.measured["coarse"][:, 1, 1]
    assert (errors <= made.differences("coarse")["correspondence"]).float().mean() == pytest.approx(0.95, abs=0.02)


def test_the_command_says_how_many_images_the_model_had_seen(
    made: Calibration, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(replace(made, on=replace(made.on, seen=0.8)), Path("granularity.safetensors"))
    assert capsys.readouterr().err == (
        "Note: the model or its encoders had seen 80 % of the images in training or validation; on others it may "
        "differ more.\n"
    )
    _say(replace(made, on=replace(made.on, seen=0.0)), Path("granularity.safetensors"))
    assert not capsys.readouterr().err


def test_a_calibration_is_read_as_it_was_written(small_model: Path, made: Calibration, tmp_path: Path) -> None:
    scorer = Scorer.load(small_model)
    save_calibration(made, tmp_path / CALIBRATION_FILE)
    read = load_calibration(tmp_path / CALIBRATION_FILE, scorer.model)
    assert read.on == made.on
    assert (read.on.data, read.on.images, read.on.prompts) == ("csv", 192, 48)
    for name, estimator in made.estimators.items():
        assert torch.equal(read.estimators[name].weight, estimator.weight)
        assert torch.equal(read.estimators[name].spread, estimator.spread)
        assert torch.equal(read.measured[name].nan_to_num(-1), made.measured[name].nan_to_num(-1))
    for tolerance in (0.002, 0.01):
        assert read.price(tolerance) == made.price(tolerance)
        assert str(read.promise(tolerance)) == str(made.promise(tolerance))  # NaN is not NaN
    assert torch.equal(read.is_familiar, made.is_familiar)
    assert torch.equal(read.part, made.part)
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
    other = replace(trained, parts={"quality": trained.parts["quality"]})
    assert weights_sha256(other) != weights_sha256(trained)
    with pytest.raises(ModelError, match="to belong to this model"):
        load_calibration(model / CALIBRATION_FILE, other)
    for raw in (
        b"garbage",
        b"",
        (model / CALIBRATION_FILE).read_bytes()[:-9],
        (model / "model.safetensors").read_bytes(),
    ):
        (tmp_path / "damaged").write_bytes(raw)
        with pytest.raises(ModelError, match="Expected a calibration in"):
            load_calibration(tmp_path / "damaged", trained)


def test_a_calibration_of_an_earlier_format_is_refused(small_model: Path, made: Calibration, tmp_path: Path) -> None:
    save_calibration(made, path := tmp_path / CALIBRATION_FILE)
    path.write_bytes(path.read_bytes().replace(b'"calibration_format":"3"', b'"calibration_formal":"2"'))
    with pytest.raises(
        ModelError, match=r"Expected a calibration of format 3 in .*, got '1': run mst-clipiqa calibrate"
    ):
        load_calibration(path, Scorer.load(small_model).model)


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
    for fine in ("fine", "native:4"):  # all four crops
        with pytest.raises(UsageError, match="--granularity-check needs a --granularity below fine"):
            Scorer.load(model, granularity=fine, granularity_check=3)
    with pytest.raises(UsageError, match="Expected granularity_check to be a whole number of at least 0, got -1"):
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
