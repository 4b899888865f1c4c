"""Scores from tables meet the ratings of the same images, and no others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mst_clipiqa.benchmark.assess import assess, assess_table, choose
from mst_clipiqa.cli.commands.evaluate import _notes
from mst_clipiqa.data import RatedSet, Record
from mst_clipiqa.errors import DataError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mst_clipiqa import zero_shot
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, TrainedOn, load_model, save_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import Contamination, contamination, trained_on, union
from tests.commands import run
from tests.fakes import DIM, FakePair, rated_set

GENERATORS = ("dalle", "glide", "lafite")


@pytest.fixture
def rated() -> RatedSet:
    """Return a set whose base names repeat across generators, as those of AIGCIQA2023 do."""
    names = [(f"{generator}/{prompt:03d}-{k}.png", generator) for generator in GENERATORS for prompt in range(4)
             for k in range(2)]  # fmt: skip
    records = [
        Record(name, Path(name), f"prompt {i % 4}", f"toy/{i % 4}", generator, {"quality": 1.0 + i / 10})
        for i, (name, generator) in enumerate(names)
    ]
    return RatedSet("toy", Path(), tuple(records), {"quality": (0.0, 5.0)})


def perfect(rated: RatedSet, before: str = "", last: bool = False) -> list[dict[str, Any]]:
    """Return the table of a perfect predictor, with a folder before each name, or the base names alone."""
    return [
        {"file": before + (Path(r.name).name if last else r.name), "quality": r.targets["quality"]}
        for r in rated.records
    ]


def srcc(rows: Sequence[dict[str, Any]], rated: RatedSet) -> float:
    (found,) = assess_table(rows, rated)
    assert found.evaluation is not None
    assert found.unscored == 0
    return found.evaluation.agreement.srcc


@pytest.mark.parametrize("before", ["AIGCIQA2023/Image/", "./", "C:\\sets\\"])
def test_a_folder_before_the_names_changes_nothing(rated: RatedSet, before: str) -> None:
    assert srcc(perfect(rated, before), rated) == pytest.approx(1.0)
    assert srcc(perfect(rated, before)[::-1], rated) == pytest.approx(1.0)


def test_names_that_fit_several_rows_are_refused_with_their_number(rated: RatedSet) -> None:
    with pytest.raises(DataError, match=r"24 .*several"):
        assess_table(perfect(rated, last=True), rated)
    twice = [*perfect(rated, "a/"), {"file": "b/dalle/000-0.png", "quality": 4.0}]
    with pytest.raises(DataError, match=r"1 .*several"):
        assess_table(twice, rated)


def test_unique_base_names_are_enough(rated: RatedSet) -> None:
    few = RatedSet("toy", Path(), rated.records[:8], rated.ranges)
    assert srcc(perfect(few, last=True), few) == pytest.approx(1.0)
    assert srcc(perfect(few, "elsewhere/", last=True), few) == pytest.approx(1.0)


# what was seen before ---------------------------------------------------------------------------------------


@pytest.fixture
def mini(rated: RatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
    """Put a small model in the place of mini, which has seen the prompts of the rated set."""
    prompts = trained_on([dataclasses.replace(r, file=Path(__file__)) for r in rated.records]).prompts
    config = ModelConfig("mini", EncoderRef("mini", "f" * 64, DIM), {"quality": Target("template", 0.0, 5.0)})
    model = TrainedModel(config, {"quality": zero_shot(DIM)}, TrainedOn(frozenset(), prompts))
    save_model(model, tmp_path / "mini", "card")
    for module in ("benchmark.assess", "train.contamination"):
        monkeypatch.setattr(f"mst_clipiqa.{module}.MINI_MODEL", tmp_path / "mini")
    return model


def test_encoders_in_a_folder_are_known_by_their_hash(mini: TrainedModel, tmp_path: Path) -> None:
    pair = FakePair(source=str(tmp_path / "copy"), sha256="f" * 64)
    plain = dataclasses.replace(mini, trained_on=TrainedOn())
    images = rated_set(tmp_path / "images", prompts=4)
    seen = [dataclasses.replace(r, prompt=f"prompt {i % 4}") for i, r in enumerate(images.records)]
    rated = dataclasses.replace(images, records=tuple(seen))
    found = assess(Scorer(plain, ImageEncoder(pair)), rated, choose(rated, "all", None), lambda _: None)
    assert found[0].contamination.by == ("its encoders",)
    assert "100 % of the prompts" in found[0].contamination.label


@pytest.mark.parametrize(
    ("shares", "want"),
    [
        ((0.0, 1.0), "0 % of the images and 100 % of the prompts"),
        ((0.002, 0.998), "under 1 % of the images and over 99 % of the prompts"),
        ((0.26, None), "26 % of the images"),
    ],
)
def test_a_few_images_seen_are_not_said_to_be_none(shares: tuple[float, float | None], want: str) -> None:
    assert Contamination(*shares, ("the model",)).label == f"contaminated: the model had seen {want}"


def test_prompts_alone_contaminate(rated: RatedSet) -> None:
    records = [dataclasses.replace(r, file=Path(__file__)) for r in rated.records]
    seen = TrainedOn(frozenset(["0" * 16]), trained_on(records[:1]).prompts)
    assert contamination(records, {"the model": seen}).label == (
        "contaminated: the model had seen 0 % of the images and 25 % of the prompts"
    )


def test_a_model_whose_training_data_is_unknown_is_not_called_clean(rated: RatedSet) -> None:
    records = [dataclasses.replace(r, file=Path(__file__)) for r in rated.records]
    unknown, none = TrainedOn(is_complete=False), TrainedOn()
    found = contamination(records, {"the model": unknown, "its encoders": none})
    assert not found.checked
    assert found.label == "not checked for contamination: nothing says what the model saw in training"
    assert contamination(records, {"the model": none}) == Contamination(0.0, 0.0, ())
    assert not union([none, unknown]).is_complete
    some = TrainedOn(prompts=trained_on(records[:1]).prompts, is_complete=False)
    assert contamination(records, {"the model": some}).label.startswith("contaminated: the model had seen")


def test_the_command_says_that_a_converted_model_is_not_checked(
    rated: RatedSet, mini: TrainedModel, tmp_path: Path
) -> None:
    unknown = dataclasses.replace(mini, trained_on=TrainedOn(is_complete=False))
    save_model(unknown, tmp_path / "unknown", "# unknown\n")
    assert load_model(tmp_path / "unknown").trained_on == unknown.trained_on
    labels, scores = tmp_path / "labels.csv", tmp_path / "scores.csv"
    lines = [f"{r.name},something new {i},{r.targets['quality']}" for i, r in enumerate(rated.records)]
    labels.write_text("\n".join(["image_name,prompt,mos_quality", *lines]))
    scores.write_text("\n".join(["file,quality", *(f"{r.name},{r.targets['quality']}" for r in rated.records)]))
    base = ["evaluate", scores, labels, "--range", 0, 5, "--model", tmp_path / "unknown"]
    assert "nothing says what the model saw in training" in " ".join(run(*base).stdout.split())
    refused = run(*base, "--fail-on-contamination", code=2).stderr
    assert "a model whose training data is known: choose another, or drop the flag." in " ".join(refused.split())


def test_without_prompts_nothing_is_said_of_them(rated: RatedSet) -> None:
    records = [dataclasses.replace(r, file=Path(__file__), prompt=None) for r in rated.records]
    label = contamination(records, {"the model": trained_on(records)}).label
    assert label == "contaminated: the model had seen 100 % of the images"


def test_a_table_names_the_model_whose_training_data_is_checked(rated: RatedSet, mini: TrainedModel) -> None:
    rows = [row | {"model": "mini"} for row in perfect(rated)]
    (found,) = assess_table(rows, rated)
    assert found.contamination.by == ("the model", "its encoders")
    assert "100 % of the prompts" in found.contamination.label


def test_rated_images_that_the_table_does_not_score_are_not_counted_as_seen(
    rated: RatedSet, mini: TrainedModel, tmp_path: Path
) -> None:
    made = rated_set(tmp_path, prompts=4)
    first = {record.group for record in made.records[:8]}
    taught = [record for record in made.records if record.group in first]
    seen = dataclasses.replace(mini, trained_on=trained_on(taught))
    new = [{"file": str(r.file), "quality": r.targets["quality"]} for r in made.records if r.group not in first]
    (found,) = assess_table(new, made, seen)
    assert found.contamination.label == ""
    assert found.unscored == len(taught)
    both = [*new, {"file": str(taught[0].file), "quality": 3.0}]
    (found,) = assess_table(both, made, seen)
    assert found.contamination.label == "contaminated: the model had seen 11 % of the images and 11 % of the prompts"


def test_images_are_looked_for_where_the_table_has_them(rated: RatedSet, mini: TrainedModel, tmp_path: Path) -> None:
    made = rated_set(tmp_path, prompts=3)
    seen = dataclasses.replace(mini, trained_on=TrainedOn(trained_on(made.records).images, frozenset()))
    labels = dataclasses.replace(
        made, records=tuple(dataclasses.replace(r, file=Path("elsewhere") / r.name, prompt=None) for r in made.records)
    )
    rows: list[dict[str, Any]] = [{"file": str(r.file), "quality": r.targets["quality"]} for r in made.records]
    (found,) = assess_table(rows, labels, seen)
    assert found.contamination.images == 1.0
    here = dataclasses.replace(labels, records=made.records)
    gone = [row | {"file": f"gone/{Path(row['file']).name}"} for row in rows]
    assert assess_table(gone, here, seen)[0].contamination.images == 1.0  # the labels know it, the table does not


def test_the_command_tells_clean_from_not_checked(rated: RatedSet, mini: TrainedModel, tmp_path: Path) -> None:
    labels, scores, unknown = (tmp_path / name for name in ("labels.csv", "scores.csv", "unknown.csv"))
    lines = [f"{r.name},{r.prompt},{r.targets['quality']}" for r in rated.records]
    labels.write_text("\n".join(["image_name,prompt,mos_quality", *lines]))
    for path, model in ((scores, "mini"), (unknown, "mine")):
        rows = [f"{r.name},{r.targets['quality']},{model}" for r in rated.records]
        path.write_text("\n".join(["file,quality,model", *rows]))
    base = [labels, "--range", 0, 5]
    text = " ".join(run("evaluate", scores, *base).stdout.split())  # lines break where the terminal ends
    assert "Contaminated: the model and its encoders had seen" in text
    assert "100 % of the prompts" in text
    run("evaluate", scores, *base, "--fail-on-contamination", code=1)
    assert "Not checked for contamination" in run("evaluate", unknown, *base).stdout
    assert '"not checked"' in run("evaluate", unknown, *base, "--json").stdout
    refused = run("evaluate", unknown, *base, "--fail-on-contamination", code=2)
    assert "--fail-on-contamination needs" in refused.stderr


# units ------------------------------------------------------------------------------------------------------


def test_a_model_of_any_scale_is_measured_in_the_units_of_the_set(tmp_path: Path) -> None:
    images, pair = rated_set(tmp_path, prompts=4), FakePair()
    part = zero_shot(DIM)

    def measured(own: tuple[float, float], theirs: tuple[float, float]) -> list[float]:
        """Return SRCC, PLCC, coverage, and RMSE as a share of the scale of the set."""
        (low, high), size = theirs, theirs[1] - theirs[0]
        records = [
            dataclasses.replace(r, targets={"quality": low + r.targets["quality"] / 5 * size}) for r in images.records
        ]
        rated = dataclasses.replace(images, records=tuple(records), ranges={"quality": (low, high)})
        target = Target("template", *own, interval=0.2 * (own[1] - own[0]))
        config = ModelConfig("toy", EncoderRef("fake", pair.sha256, DIM), {"quality": target})
        scorer, steps = Scorer(TrainedModel(config, {"quality": part}), ImageEncoder(pair)), list[int]()
        (found,) = assess(scorer, rated, choose(rated, "all", None), steps.append)
        assert sum(steps) == len(records)
        assert found.evaluation is not None and found.evaluation.coverage is not None
        agreement = found.evaluation.agreement
        return [agreement.srcc, agreement.plcc, agreement.rmse / size, found.evaluation.coverage]

    plain = measured((0.0, 5.0), (0.0, 5.0))
    assert 0 < plain[3] < 1
    for own, theirs in (((20.0, 95.0), (0.0, 5.0)), ((1.0, 5.0), (-1.0, 1.0)), ((-3.0, -1.0), (20.0, 90.0))):
        assert measured(own, theirs) == pytest.approx(plain, abs=1e-5)


def test_a_table_of_a_known_model_is_measured_in_the_units_of_the_set(rated: RatedSet, mini: TrainedModel) -> None:
    wide = dataclasses.replace(
        rated,
        records=tuple(
            dataclasses.replace(r, targets={"quality": 10 + 20 * r.targets["quality"]}) for r in rated.records
        ),
        ranges={"quality": (10.0, 110.0)},
    )
    rows = [{"file": r.name, "quality": r.targets["quality"] + 0.5, "model": "mini (auto:0.06)"} for r in rated.records]
    (found,) = assess_table(rows, wide)
    assert found.evaluation is not None
    assert found.scaled
    assert found.evaluation.agreement.rmse == pytest.approx(10)
    assert found.evaluation.intervals["rmse"].value == pytest.approx(10)
    (line, *_) = found.evaluation.tables["generator"]
    assert line.mean_prediction == pytest.approx(line.mean_mos + 10)
    unnamed = [{k: v for k, v in row.items() if k != "model"} for row in rows]
    (named,) = assess_table(unnamed, wide, mini)
    assert named.evaluation is not None
    assert named.evaluation.to_json() == found.evaluation.to_json()  # there no nan differs from itself


def test_scores_of_an_unknown_scale_have_no_rmse_and_no_mean(rated: RatedSet, mini: TrainedModel) -> None:
    rows = perfect(rated)
    (plain,), (found,) = assess_table(rows, rated, mini), assess_table(rows, rated)
    assert plain.evaluation is not None and found.evaluation is not None
    assert (plain.scaled, found.scaled) == (True, False)
    text = found.evaluation.to_json()
    assert text["agreement"]["rmse"] is None  # type: ignore[index]
    assert text["intervals"]["rmse"]["undefined"] == "the scale of the scores is unknown"  # type: ignore[index]
    for line in found.evaluation.tables["generator"]:
        assert math.isnan(line.mean_prediction)
        assert math.isnan(line.agreement.rmse)
        assert line.agreement.srcc == pytest.approx(1)
    assert text["intervals"]["srcc"] == plain.evaluation.to_json()["intervals"]["srcc"]  # type: ignore[index]
    other = [row | {"correspondence": 3.0 + i / 10} for i, row in enumerate(rows)]
    both = dataclasses.replace(
        rated,
        records=tuple(dataclasses.replace(r, targets={**r.targets, "correspondence": 1.0}) for r in rated.records),
        ranges={"quality": (0.0, 5.0), "correspondence": (0.0, 5.0)},
    )
    assert [one.scaled for one in assess_table(other, both, mini)] == [True, False]  # not a target of this model


def test_scores_of_an_uncalibrated_model_have_no_rmse_and_no_mean(tmp_path: Path) -> None:
    rated = rated_set(tmp_path / "images", prompts=4)
    config = ModelConfig("m", EncoderRef("m", "f" * 64, DIM), {"quality": Target("template", 1, 5, calibrated=False)})
    model = TrainedModel(config, {"quality": zero_shot(DIM)})
    scorer = Scorer(model, ImageEncoder(FakePair(source="m", sha256="f" * 64)))
    (scored,) = assess(scorer, rated, choose(rated, "all", None), lambda _: None)
    (table,) = assess_table([row | {"model": "m"} for row in perfect(rated)], rated, model)
    why = "the model is uncalibrated, so its scores only order images"
    for one in (scored, table):
        assert one.evaluation is not None and not one.scaled
        assert math.isnan(one.evaluation.agreement.rmse)
        assert one.evaluation.intervals["rmse"].undefined == why
        assert f"No RMSE and no mean score: {why}." in [*_notes(one)]


# what is printed --------------------------------------------------------------------------------------------


def test_what_is_undefined_is_not_printed_as_nan(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_name,mos_quality\n" + "".join(f"{i}.png,{i}\n" for i in range(6)))
    (tmp_path / "scores.csv").write_text("file,quality\n" + "".join(f"{i}.png,2.5\n" for i in range(6)))
    text = run("evaluate", tmp_path / "scores.csv", tmp_path / "labels.csv", "--range", 0, 5).stdout
    assert "nan" not in text
    assert "(none)" not in text
    assert "undefined" in text
    assert "95 % interval over images" in text
    assert "rmse" not in text
    assert "No RMSE and no mean score: the scale of the scores is unknown" in " ".join(text.split())


def test_what_the_intervals_are_over_is_printed(rated: RatedSet, mini: TrainedModel, tmp_path: Path) -> None:
    labels, scores = tmp_path / "labels.csv", tmp_path / "scores.csv"
    lines = "".join(f"{i}.png,p{i // 2},g{i % 2},{i}\n" for i in range(6))
    labels.write_text("image_name,prompt,generator,mos_quality\n" + lines)
    scores.write_text("file,quality,model\n" + "".join(f"{i}.png,{i / 2},mini\n" for i in range(6)))
    base = ["evaluate", scores, labels, "--range", 0, 10]
    text = " ".join(run(*base).stdout.split())
    assert "95 % interval over prompts" in text
    assert "rmse │ 0.0000" in text
    assert "No RMSE" not in text
    assert "mean rating ┃ mean score ┃ srcc" in text
    assert '"interval_over": "prompts"' in run(*base, "--json").stdout
    scores.write_text(scores.read_text().replace("mini", "another"))
    assert "mean rating ┃ srcc" in " ".join(run(*base).stdout.split())


def test_a_score_that_is_not_a_number_is_named_and_an_empty_one_left_out(rated: RatedSet) -> None:
    rows: list[dict[str, Any]] = [{"file": record.name, "quality": 3.0 + i} for i, record in enumerate(rated.records)]
    rows[1]["quality"] = ""
    (found,) = assess_table(rows, rated)
    assert found.unscored == 1
    rows[0]["quality"] = "n/a"
    with pytest.raises(DataError, match="Expected a number in column 'quality', got 'n/a'"):
        assess_table(rows, rated)
