"""The benchmark of granularities at a size that proves nothing else: what it counts, and which prompts it tests."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from mst_clipiqa.data import RatedSet  # noqa: E402
from mst_clipiqa.model_folder import TrainedOn, prompt_hash  # noqa: E402
from mst_clipiqa.scoring.scorer import Scorer  # noqa: E402
from mst_clipiqa.train.granularity import GranularFeatures, encode_every_granularity  # noqa: E402
from speed import granularity, granularity_agreement, report  # noqa: E402
from tests.fakes import rated_set  # noqa: E402
from tests.scoring.test_granularity import fitted, synthetic  # noqa: E402

MACHINE = dict.fromkeys(("cpu", "capability", "torch", "python", "date"), "") | {"cores": 2}


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> RatedSet:
    found = rated_set(tmp_path_factory.mktemp("rated"), prompts=6, each=2)
    words = [
        f"a {name} red fox" if i % 2 else f"{name} photo"
        for i, name in enumerate(("bad", "poor", "fair", "good", "perfect", "a"))
    ]
    records = (dataclasses.replace(record, prompt=words[i // 2]) for i, record in enumerate(found.records))
    return dataclasses.replace(found, records=tuple(records))


def having_seen(scorer: Scorer, prompts: list[str | None]) -> Scorer:
    seen = TrainedOn(prompts=frozenset(prompt_hash(prompt) for prompt in prompts if prompt))
    scorer.model = dataclasses.replace(scorer.model, trained_on=seen)
    return scorer


def test_the_test_part_has_the_prompts_that_the_model_has_not_seen(small_model: Path, rated: RatedSet) -> None:
    prompts = [record.prompt for record in rated.records]
    some = granularity_agreement.parts_of(having_seen(Scorer.load(small_model), prompts[4:]), rated)
    assert {record.prompt for record in some.test} == set(prompts[:4])
    assert {record.prompt for record in some.fit} == set(prompts[4:])
    assert not some.seen
    every = granularity_agreement.parts_of(having_seen(Scorer.load(small_model), prompts), rated)
    assert every.seen
    assert not {r.prompt for r in every.test} & {r.prompt for r in every.fit}
    assert not granularity_agreement.parts_of(having_seen(Scorer.load(small_model), []), rated).seen


def test_agreement_becomes_a_section_with_its_bars(
    small_model: Path, rated: RatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.load(small_model)
    features = encode_every_granularity(scorer, rated.records)
    assert set(features.f_f) == {"native:1", "fine"}
    rows = torch.arange(1200) % len(rated.records)  # enough of them to calibrate
    more = GranularFeatures(features.f_c[rows], {n: f[rows] for n, f in features.f_f.items()}, features.costs)

    def parts(*_: object) -> granularity_agreement.Parts:
        records = [dataclasses.replace(rated.records[int(i)], group=str(i)) for i in rows]
        return granularity_agreement.Parts(records, rated.records, False)

    def encoded(*_: object) -> GranularFeatures:
        both = {name: torch.cat([more.f_f[name], f]) for name, f in features.f_f.items()}
        return GranularFeatures(torch.cat([more.f_c, features.f_c]), both, {"coarse": 0.3, "native:1": 0.5})

    monkeypatch.setattr(granularity_agreement, "parts_of", parts)
    monkeypatch.setattr(granularity_agreement, "encode_every_granularity", encoded)
    monkeypatch.setattr(granularity_agreement, "TOLERANCES", (1e-6, 0.06))
    found: dict[str, Any] = granularity_agreement.measure(scorer, rated)
    assert found["test_images"] == 12
    fine, coarse, *_ = found["rows"]
    assert (fine["granularity"], fine["share_fine"]) == ("fine", 1.0)
    assert (coarse["granularity"], coarse["share_coarse"]) == ("coarse", 1.0)
    assert fine["targets"]["quality"]["difference_95"] == fine["targets"]["quality"]["srcc_loss"] == 0
    assert found["auto_srcc_loss"] == max(t["srcc_loss"] for t in found["rows"][4]["targets"].values())
    page = report.page({"granularity_agreement": found | {"machine": MACHINE}})
    assert "| auto within |" in page
    assert "| auto:0.06 |" in page


def test_rates_become_a_section_with_their_bars(
    small_model: Path, rated: RatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer.load(small_model)
    monkeypatch.setattr(granularity, "TURNS", 1)
    monkeypatch.setattr(granularity, "TOLERANCES", (1e-6, 0.06))
    requests = granularity.as_jpegs(rated.records[:4], tmp_path)
    found: dict[str, Any] = granularity.measure(granularity.Timed(scorer, fitted(scorer)), requests)
    fine, coarse, *_ = found["rows"]
    assert (fine["granularity"], fine["times_fine"], fine["timed_below_fine"]) == ("fine", 1.0, 0.0)
    assert (coarse["granularity"], coarse["timed_below_fine"]) == ("coarse", 1.0)
    page = report.page({"granularity": found | {"machine": MACHINE}})
    assert "| auto times fine |" in page
    refused, default = found["rows"][3:]
    assert (refused["images_per_second"], refused["times_fine"]) == (None, None)
    assert default["images_per_second"] == found["auto_images_per_second"] > 0


def test_shares_and_differences_are_of_images_below_fine(small_model: Path) -> None:
    found = torch.tensor([[0.1, 0.5], [0.2, 0.5], [0.3, torch.nan], [0.9, 0.9]])
    fine = torch.tensor([[0.1, 0.5], [0.2, 0.6], [0.32, torch.nan], [0.0, 0.0]])
    names = ["coarse", "native:1", "coarse", "fine"]
    assert granularity_agreement.within(found, fine, names, 0.05) == pytest.approx(2 / 3)
    assert granularity_agreement.within(found, fine, names, 0.0) is None
    assert granularity_agreement.within(found, fine, ["fine"] * 4, 0.05) is None
    scorer = Scorer.load(small_model)
    calibration = fitted(scorer, 240)
    features, records = synthetic(scorer, 40, seed=2)
    rated = [
        dataclasses.replace(r, targets={"quality": float(i), "correspondence": float(-i)})
        for i, r in enumerate(records)
    ]
    row = granularity_agreement.agreement(scorer, calibration, features, rated)[-1]
    assert sum(value for name, value in row.items() if name.startswith("share_")) == pytest.approx(1)
