"""How often ``compare`` and ``drift`` are right: figures of the page, and what they are measured on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mini_training import reliability
from mini_training.familiarity import known_errors
from mini_training.reliability import HeldOutScores, TwoTables
from mini_training.reliability_page import PAGE, RESULTS, written
from mst_clipiqa.analysis.compare import SURE
from mst_clipiqa.scoring.folders import MINI_MODEL
from tests.test_mini_protocol import rated


def arrays(out: str, seed: int = 1) -> dict[str, Any]:
    """Return what a model that left out a generator, and all development prompts, makes of ``rated()``."""
    found, rng = rated(), np.random.default_rng(seed)
    n = len(found.names)
    trained = np.append((found.part != "development") & (found.generators != out), np.zeros(10, bool))
    features = {name: rng.standard_normal((n + 10, 4)).astype(np.float32) for name in ("f_c", "f_f")}
    scores = np.clip(found.ratings + rng.normal(0, 0.5, found.ratings.shape), 0, 5).T
    return {**features, "q": np.append(scores[0], np.zeros(10)), "c": scores[1], "trained": trained}


@pytest.fixture(scope="module")
def models() -> list[dict[str, Any]]:
    return [arrays(""), *(arrays(out, seed) for seed, out in enumerate("abc", 2))]


def test_the_page_shows_what_was_measured() -> None:
    found, text = json.loads(RESULTS.read_text(encoding="utf-8")), PAGE.read_text(encoding="utf-8")
    assert written(text, found) == text
    assert f"the {max(line['prompts'] for line in found['drift']['quality'])} prompts used here" in text
    known = json.loads((MINI_MODEL / "familiarity.json").read_text(encoding="utf-8"))
    assert len(known["unfamiliar_share"]) == 1 + 6 and "and six that had never seen one of the generators" in text
    assert found["images"] == known["intervals"]["quality"]["new prompts"]["images"]
    lines = [line for kinds in found["compare"].values() for rows in kinds.values() for line in rows]
    assert all(line["from"] <= line["stated"] <= line["to"] for line in lines)
    found["compare"]["quality"]["any two images, new prompts"][0]["right"] = 0.123
    assert written(text, found) != text


def test_what_the_pages_conclude_from_the_tables_is_so() -> None:
    found, text = json.loads(RESULTS.read_text(encoding="utf-8")), PAGE.read_text(encoding="utf-8")
    assert SURE in reliability.EDGES and f"From {100 * SURE:.0f} % on it names a winner" in text

    def mean(lines: list[dict[str, Any]], value: str) -> float:
        return float(np.average([line[value] for line in lines], weights=[line.get("pairs", 1) for line in lines]))

    for kinds in found["compare"].values():
        surer = {kind: mean(lines, "stated") - mean(lines, "right") for kind, lines in kinds.items()}
        assert surer["two images of one new prompt"] < 0  # as the docstring of compare_scores says
        assert surer["two images by a generator left out"] > surer["any two images, new prompts"]
        right = {kind: mean(lines, "right") for kind, lines in kinds.items()}
        assert right["two images by a generator left out"] < right["any two images, new prompts"]
    for lines in found["drift"].values():
        known, new = (
            [line for line in lines if line["tables"] == kind] for kind in ("known generators", "a generator left out")
        )
        assert mean(new, "right") < mean(known, "right")
        assert mean(new, "covers_ratings") < mean(known, "covers_ratings")  # it errs more on a generator not seen
        for line in (*known, *new):
            assert line["covers_ratings"] < line["covers_scores"]  # it knows about prompts only: take the direction,
            assert line["right"] > 0.8  # not the size


def test_every_image_has_an_interval_that_other_prompts_calibrated(models: list[dict[str, Any]]) -> None:
    found = rated()
    base, *outs = (known_errors(found, one) for one in models)
    before = reliability._crossed(found, base, outs, "quality")
    part = base.new["quality"]
    odd = np.unique(np.asarray(part.groups), return_inverse=True)[1] % 2 == 1
    worse = replace(base, new={"quality": replace(part, residuals=np.where(odd, 5.0, part.residuals))})
    after = reliability._crossed(found, worse, outs, "quality")
    (narrow, same), (wide, still) = (
        np.split(one.half, [(~odd).sum()]) for one in (before, after)
    )  # even prompts first
    assert wide.mean() > narrow.mean() + 1
    np.testing.assert_array_equal(same, still)
    np.testing.assert_allclose(np.sort(before.ratings), np.sort(found.ratings[base.rows[0], 0]))


def test_a_certainty_that_is_true_is_found_to_be_so() -> None:
    rng, n = np.random.default_rng(0), 3000
    scores = rng.uniform(0, 5, n)
    deviation = rng.uniform(0.3, 1.2, n)
    true = HeldOutScores(scores, scores + deviation * rng.standard_normal(n), 1.645 * deviation, np.arange(n))
    pairs = rng.integers(0, n, (2, 20_000))
    for half, sure in ((true.half, 0.0), (true.half / 2, 0.15)):
        lines = reliability._bins(*reliability._certainties(replace(true, half=half), pairs))
        assert [line["from"] for line in lines] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
        assert sum(line["pairs"] for line in lines) == np.count_nonzero(pairs[0] != pairs[1])
        middle = [line["stated"] - line["right"] for line in lines if 0.6 <= line["from"] < 0.9]
        assert max(middle) == pytest.approx(sure, abs=0.05)


def test_drift_is_checked_against_all_prompts_that_a_draw_came_from() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal([3, 4], 1, (200, 2))
    people = np.stack([scores[:, 0], scores[:, 0] - 1], axis=1)  # raters think the opposite
    for line in reliability._drifted("any", [TwoTables(scores, people)], 25):
        assert line["covers_scores"] > 0.8
        assert (line["covers_ratings"], line["right"]) == (0, 0)
    (_, _, many) = reliability._drifted("any", [TwoTables(scores, scores)], 25)
    assert (many["right"], many["verdicts"] > 0.95) == (1, True)
    same = reliability._dealt(TwoTables(scores, people))
    (_, _, none) = reliability._drifted("none", [same], 60)
    assert (none["verdicts"] < 0.2, none["right"]) == (True, None)
    (_, _, unpaired) = reliability._drifted("none", [TwoTables(scores[:, [0, 0]], people[:, [0, 0]])], 25, "none")
    assert 0 < unpaired["verdicts"] < 0.2  # other prompts of one generator; the same prompts would differ by nothing


def test_new_prompts_only_and_a_new_generator_against_known_ones(models: list[dict[str, Any]]) -> None:
    found = rated()
    prompts = len(np.unique(found.prompt_ids[found.part == "development"]))
    known, new = (kind(found, models, "quality") for kind in (reliability._known_pairs, reliability._new_pairs))
    assert (len(known), len(new)) == (3, 6)
    assert {len(pair.scores) for pair in (*known, *new)} == {prompts}
    row = np.flatnonzero((found.part == "development") & (found.generators == "b"))
    order = np.argsort(found.prompt_ids[row])
    for pair in new[2:4]:  # "b" is new, by the model that left it out
        np.testing.assert_allclose(pair.scores[:, 1], models[2]["q"][row][order])
        np.testing.assert_allclose(pair.ratings[:, 1], found.ratings[row, 0][order])


def test_all_of_it_is_measured(models: list[dict[str, Any]]) -> None:
    found = reliability.measured(rated(), models, 2)
    assert json.loads(json.dumps(found)) == found
    assert written(PAGE.read_text(encoding="utf-8"), found).count("| a generator left out |") == 6
