"""What a card says of images without prompts, and of what is undefined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mst_clipiqa.cli.commands.train import _summary
from mst_clipiqa.data import RatedSet, make_split
from mst_clipiqa.data.record import ALONE
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.train.build import build
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.measure import TrainingResult
from mst_clipiqa.train.recipe import FAST
from tests.fakes import FakePair, rated_set

QUICK = replace(FAST, epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    return rated_set(tmp_path_factory.mktemp("rated"), prompts=10, each=3)


def trained(rated: RatedSet, out: Path) -> tuple[str, str]:
    """Return the card and the summary of a training for quality."""
    split = make_split(rated.records, seed=2, validation_share=0.25)
    job = TrainingJob(rated, split, "quality", "template", QUICK, out)
    result = build(job, ImageEncoder(FakePair()), no_bar)
    assert isinstance(result, TrainingResult)
    return (out / "README.md").read_text(), "\n".join(_summary(result, job))


def test_images_without_prompts_are_not_called_prompts(rated: RatedSet, tmp_path: Path) -> None:
    records = tuple(replace(r, prompt=None, group=f"toy/{ALONE}{r.name}") for r in rated.records)
    card, summary = trained(replace(rated, records=records), tmp_path / "m")
    assert "seed 2: 18 / 6 / 6 images of unknown prompts (train / validation / test)" in card
    assert "On the test part (6 images; random split by prompt" in card
    assert "; whether their prompts were seen in training is unknown. Intervals: 95 %, bootstrap over images." in card
    assert "better of two" not in card
    assert "\n\nIntervals over 6 images say little: test on 9 or more.\n" in card
    assert "undefined to undefined" not in card
    assert summary.startswith("quality on 6 test images: SRCC ")


def test_images_with_prompts_are_counted_by_prompt(rated: RatedSet, tmp_path: Path) -> None:
    card, summary = trained(rated, tmp_path / "m")
    assert "On the test part (6 images of 2 prompts; random split" in card
    assert "Intervals: 95 %, bootstrap over prompts." in card
    assert "| better of two images of one prompt | " in card
    assert "\n\nIntervals over 2 prompts say little: test on 9 or more.\n" in card
    assert summary.startswith("quality on 6 test images of 2 prompts: SRCC ")


def test_what_is_undefined_has_its_reason(rated: RatedSet, tmp_path: Path) -> None:
    test = make_split(rated.records, seed=2, validation_share=0.25).test
    of_test = {record.name for record in test}
    same = tuple(replace(r, targets={**r.targets, "quality": 3.0}) if r.name in of_test else r for r in rated.records)
    card, summary = trained(replace(rated, records=same), tmp_path / "m")
    assert "| srcc | undefined | all 6 ratings are the same |" in card
    assert "undefined to undefined" not in card
    assert "nan" not in summary
    assert (
        "quality on 6 test images of 2 prompts: SRCC and PLCC are undefined, as all 6 ratings are the same" in summary
    )


def test_equal_ratings_to_validate_on_are_no_correlation(rated: RatedSet, tmp_path: Path) -> None:
    validation = {record.name for record in make_split(rated.records, seed=2, validation_share=0.25).validation}
    same = [replace(r, targets={**r.targets, "quality": 3.0}) if r.name in validation else r for r in rated.records]
    card, summary = trained(replace(rated, records=tuple(same)), tmp_path / "m")
    assert summary.startswith(
        "SRCC and PLCC do not exist on the validation images that choose the epoch, as no two of their ratings of "
        "quality differ: the first one was kept. Rate more images, "
    )
    assert "selected on the validation part (the first one, as all images or pairs there are rated the same); " in card
    best = json.loads((tmp_path / "m" / "training.json").read_text())["quality"]["best"]
    assert (best["validation_srcc"], best["validation_plcc"]) == (None, None)
