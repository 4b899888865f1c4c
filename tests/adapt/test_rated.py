"""Adaptation with ratings: what trains with them, what decides, what cannot be measured, and what is written of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mst_clipiqa.adapt.build import Adapted, adapt_model, build_adapted
from mst_clipiqa.adapt.fit import AdaptRecipe
from mst_clipiqa.adapt.gate import FEWEST_SCORED, NotBetter, RatingGain, Verdict, rating_gain
from mst_clipiqa.adapt.job import AdaptJob, moving_of, prepare_data, split
from mst_clipiqa.adapt.ladders import LadderPlan
from mst_clipiqa.cli import group
from mst_clipiqa.data import RatedSet
from mst_clipiqa.errors import UsageError
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.model_folder import image_hash
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import contamination, seen_by, trained_on
from tests.fakes import rated_set
from tests.small_models import save_small_encoders, save_small_model

PLAN = LadderPlan(each=1, kinds=("noise",), strengths=(0.3, 1.0))
READ, UNREAD = "a photo with a red fox", "кошка сидит на столе"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with quality, and correspondence of prompts of a few words that it knows."""
    out = tmp_path_factory.mktemp("model")
    return save_small_model(out / "model", save_small_encoders(out / "encoders"))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer.load(folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    return rated_set(tmp_path_factory.mktemp("rated"), prompts=20, each=2)


@pytest.fixture
def any_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verdict, "refusal", lambda _: "")


def job(scorer: Scorer, rated: RatedSet, out: Path, **changes: Any) -> AdaptJob:
    files = [record.file for record in rated.records if isinstance(record.file, Path)]
    quick = AdaptRecipe(steps=2, batch_size=4)
    return dataclasses.replace(AdaptJob(scorer, files, out, check=rated, recipe=quick, plan=PLAN), **changes)


def with_prompts(rated: RatedSet, prompts: Sequence[str | None]) -> RatedSet:
    pairs = zip(rated.records, prompts, strict=True)
    return dataclasses.replace(rated, records=tuple(dataclasses.replace(one, prompt=prompt) for one, prompt in pairs))


def hashes(files: Sequence[Path]) -> set[str]:
    return {image_hash(path.read_bytes()) for path in files}


@pytest.mark.parametrize("labels", [0.1, 0.4])
def test_labelled_images_are_not_held_out_even_under_other_names(
    scorer: Scorer, rated: RatedSet, tmp_path: Path, labels: float
) -> None:
    copies = [tmp_path / f"copy of {record.name}" for record in rated.records]
    for copy, record in zip(copies, rated.records, strict=True):
        shutil.copy(str(record.file), copy)
    for files in ([Path(str(record.file)) for record in rated.records], copies):
        one = job(scorer, rated, tmp_path / "out", labels=labels, files=files)
        data = prepare_data(one, moving_of(one))
        labelled = {record.sha256[:16] for record in data.records}
        assert len(labelled) == labels * len(files)
        assert not hashes(data.held.files) & labelled
        assert labelled <= hashes(data.training.files)
        assert len(data.held) == -(-(len(files) - len(labelled)) // 3)
        assert len(data.held) + len(data.training) == len(files)


def test_without_labels_the_same_third_is_held_out(rated: RatedSet) -> None:
    files = [Path(str(record.file)) for record in rated.records]
    one = frozenset({image_hash(split(files)[1][0].read_bytes())})
    assert split(files, frozenset({"0" * 16})) == split(files)
    assert split(files)[1][0] not in split(files, one)[1]
    assert split([*files, files[0].with_name("missing.png")], one)[1]


def test_a_copy_of_a_labelled_image_does_not_decide(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    one = job(scorer, rated, tmp_path / "out", labels=0.1)
    labelled = prepare_data(one, moving_of(one)).records
    copy = tmp_path / "copy.png"
    shutil.copy(str(labelled[0].file), copy)
    twin = dataclasses.replace(labelled[0], name=copy.name, file=copy, group="toy/of its own")
    more = dataclasses.replace(rated, records=(*rated.records, twin))
    data = prepare_data(dataclasses.replace(one, check=more), moving_of(one))
    assert data.records == labelled
    assert len(data.rated.ratings["quality"]) == len(rated) - len(labelled)


def test_too_many_labels_leave_too_few_images_to_hold_out(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"got 40 that can be read, of which 36 train with their ratings: lower --lab"):
        adapt_model(job(scorer, rated, tmp_path / "out", labels=0.9))


@pytest.mark.usefixtures("any_is_kept")
def test_a_model_says_which_labels_it_was_trained_on(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    others = rated_set(tmp_path / "others", prompts=15, each=2)
    files = [Path(str(record.file)) for record in others.records][4:]  # none of the rated images is among them
    elsewhere = rated_set(tmp_path / "elsewhere", prompts=24, each=2)
    check = dataclasses.replace(elsewhere, records=elsewhere.records[32:])
    found = build_adapted(job(scorer, check, tmp_path / "out", files=files, labels=0.25))
    names = {record.name for record in found.labelled}
    assert len(names) == 4
    model = Scorer.load(tmp_path / "out", device="cpu", precision="fp32").model
    seen = seen_by(model)
    label = contamination(found.labelled, seen).label
    assert label == "contaminated: the model had seen 100 % of the images and 100 % of the prompts"
    assert contamination([record for record in check.records if record.name not in names], seen).label == ""
    report = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert set(report["labelled"]) == names
    card = (tmp_path / "out" / "README.md").read_text()
    assert "4 rated images of `toy` trained with their ratings" in card and "--labels 0.25" in card
    assert "without their ratings" not in card
    build_adapted(job(scorer, check, tmp_path / "none", files=files))
    card = (tmp_path / "none" / "README.md").read_text()
    assert "without their ratings" in card and "Labelled" not in card


@pytest.mark.usefixtures("any_is_kept")
def test_ratings_that_the_model_had_seen_are_called_so(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    seen = dataclasses.replace(scorer.model, trained_on=trained_on(rated.records[:20]))
    taught = Scorer(seen, scorer.encoder)
    found = build_adapted(job(taught, rated, tmp_path / "seen"))
    assert found.contaminated == "contaminated: the model had seen 50 % of the images and 50 % of the prompts"
    assert json.loads((tmp_path / "seen" / "adapt.json").read_text())["contaminated"] == found.contaminated
    card = (tmp_path / "seen" / "README.md").read_text()
    assert f"**{found.contaminated.capitalize()}. These figures overstate both models.**" in card
    assert build_adapted(job(scorer, rated, tmp_path / "new")).contaminated == ""
    assert "overstate" not in (tmp_path / "new" / "README.md").read_text()


def test_a_refusal_says_that_the_model_had_seen_the_ratings(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    seen = dataclasses.replace(scorer.model, trained_on=trained_on(rated.records[:20]))
    still = job(Scorer(seen, scorer.encoder), rated, tmp_path / "out", recipe=AdaptRecipe(steps=0))
    with pytest.raises(NotBetter, match=r"had seen 50 % of .* prompts, so these ratings overstate both models\."):
        build_adapted(still)


def prompts_read(rated: RatedSet, count: int) -> RatedSet:
    return with_prompts(rated, [READ] * count + [UNREAD] * (len(rated) - count - 2) + [None, " "])


def correspondence(scorer: Scorer, rated: RatedSet) -> float:
    scores = [scorer(record.file, record.prompt).correspondence for record in rated.records]
    return srcc(np.array(scores, float), [record.targets["correspondence"] for record in rated.records])


@pytest.mark.usefixtures("any_is_kept")
def test_images_without_a_score_are_left_out_on_both_sides(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    check = prompts_read(rated, 12)
    found = build_adapted(job(scorer, check, tmp_path / "out", check=check, train="norm"))
    one = found.verdict.ratings["correspondence"]
    assert (one.images, one.unscored) == (12, 28)
    first = dataclasses.replace(check, records=check.records[:12])
    assert one.before == pytest.approx(correspondence(scorer, first), abs=1e-9)
    adapted = Scorer.load(tmp_path / "out", device="cpu", precision="fp32")
    assert one.after == pytest.approx(correspondence(adapted, first), abs=0.02)
    quality = found.verdict.ratings["quality"]
    assert (quality.images, quality.unscored) == (40, 0)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| correspondence | 12 | 28 |" in card
    gate = json.loads((tmp_path / "out" / "adapt.json").read_text())["gate"]
    assert gate["ratings"]["correspondence"]["unscored"] == 28


@pytest.mark.usefixtures("any_is_kept")
@pytest.mark.parametrize("count", [0, FEWEST_SCORED - 1])
def test_a_score_with_too_few_ratings_is_not_measured(
    scorer: Scorer, rated: RatedSet, tmp_path: Path, count: int
) -> None:
    check = prompts_read(rated, count)
    found = build_adapted(job(scorer, check, tmp_path / "out", check=check, train="norm"))
    assert set(found.verdict.ratings) == {"quality"}
    why = f"it needs 5 rated images with a score, got {count} of 40"
    assert found.verdict.unmeasured == {"correspondence": why}
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"Agreement with the ratings of correspondence was not measured: {why}." in card
    assert "No ratings were given" not in card
    assert json.loads((tmp_path / "out" / "adapt.json").read_text())["gate"]["unmeasured"] == found.verdict.unmeasured


def test_what_is_not_measured_decides_nothing(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    found: Adapted = adapt_model(job(scorer, rated, tmp_path / "out"))[0]
    with_reason = dataclasses.replace(found.verdict, unmeasured={"correspondence": "all 9 ratings are the same"})
    assert with_reason.refusal() == found.verdict.refusal()
    assert with_reason.not_measured() == ["SRCC of correspondence was not measured: all 9 ratings are the same."]
    check = prompts_read(rated, 0)
    still = job(scorer, check, tmp_path / "out", check=check, train="norm", recipe=AdaptRecipe(steps=0))
    with pytest.raises(NotBetter, match=r"Nothing was written\. SRCC of correspondence was not measured: it needs 5"):
        build_adapted(still)


@pytest.mark.usefixtures("any_is_kept")
def test_rated_images_that_cannot_be_read_measure_nothing(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    check = dataclasses.replace(rated, records=(dataclasses.replace(rated.records[0], file=broken),))
    found = build_adapted(job(scorer, rated, tmp_path / "out", check=check, labels=0.5))
    assert found.verdict.unmeasured == {"quality": "it needs 5 rated images with a score, got 0 of 0"}


def test_scores_and_ratings_are_compared_where_there_is_a_score() -> None:
    rng = np.random.default_rng(0)
    y, before, after = rng.uniform(size=(3, 12))
    before[[2, 5]] = np.nan
    prompts = [f"prompt {i // 2}" for i in range(12)]
    rows = np.isfinite(before)
    found = rating_gain(before, after, y, prompts)
    assert isinstance(found, RatingGain)
    assert (found.images, found.unscored) == (10, 2)
    assert (found.before, found.after) == (srcc(before[rows], y[rows]), srcc(after[rows], y[rows]))
    assert found.low < found.after - found.before < found.high
    assert rating_gain(before, after, np.ones(12), prompts) == "all 10 ratings are the same"
    assert rating_gain(np.zeros(0), np.zeros(0), np.zeros(0), []) == "it needs 5 rated images with a score, got 0 of 0"


@pytest.mark.usefixtures("any_is_kept")
def test_the_command_says_what_was_labelled_and_left_out(folder: Path, rated: RatedSet, tmp_path: Path) -> None:
    rows = [
        f"{r.file},{r.targets['quality']},{r.targets['correspondence']},{READ if i < 20 else UNREAD} {i}"
        for i, r in enumerate(rated.records)
    ]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    labels = tmp_path / "rated.csv"
    rows.append(f"{broken},1,1,{READ}")
    labels.write_text("\n".join(["file,mos_quality,mos_align,prompt", *rows]) + "\n", encoding="utf-8")
    images = tmp_path / "images.csv"
    images.write_text("\n".join(["file", *(str(r.file) for r in rated.records), '""']) + "\n", encoding="utf-8")
    asked = ["adapt", str(folder), "--images", str(images), "-o", str(tmp_path / "out"), "--train", "norm"]
    asked += ["--check", str(labels), "--range", "0", "5", "--labels", "0.1", "--steps", "2"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 1, result.output  # an image was left out
    assert "Labelled: 4 rated images trained with their ratings." in result.stdout
    assert "2 images are left out:\n" in result.stderr and "  1 x expected an image (" in result.stderr
    assert f"{broken.name}')\n" in result.stderr
    assert "1 x expected a file in each row, but line 42 of " in result.stderr
    assert list(json.loads((tmp_path / "out" / "adapt.json").read_text())["skipped"]) == [str(broken)]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: mst-clipiqa" in card  # as the hub reads it
    assert "- Left out: 1 image that cannot be read" in card
    assert "images got no score and were left out)" in result.stdout
    assert (
        "There are no intervals for quality and correspondence: those of the original model no longer" in result.stdout
    )


def test_an_image_counts_for_the_ratings_that_it_has(scorer: Scorer, rated: RatedSet, tmp_path: Path) -> None:
    def some(number: int, targets: dict[str, float]) -> dict[str, float]:
        gone = "quality" if number % 4 == 0 else "correspondence" if number % 4 == 1 else ""
        return {name: value for name, value in targets.items() if name != gone}

    records = tuple(dataclasses.replace(r, targets=some(i, r.targets)) for i, r in enumerate(rated.records))
    partial = dataclasses.replace(rated, records=records)
    what = job(scorer, partial, tmp_path / "m", train="norm", labels=0.4)
    data = prepare_data(what, moving_of(what))
    with_quality = [r for r in records if "quality" in r.targets]
    assert 0 < len(data.records) <= 0.4 * len(with_quality)
    assert all("quality" in record.targets for record in data.records)
    trained = {record.group for record in data.records}
    rest = [record for record in records if record.group not in trained]
    for name, ratings in data.rated.ratings.items():
        assert [float(value) for value in ratings[np.isfinite(ratings)]] == [
            r.targets[name] for r in rest if name in r.targets
        ]
    found = rating_gain(np.arange(8.0), np.arange(8.0), np.array([1, np.nan, 2, 3, np.nan, 4, 5, 6]), [None] * 8)
    assert isinstance(found, RatingGain) and (found.images, found.unscored) == (6, 0)
