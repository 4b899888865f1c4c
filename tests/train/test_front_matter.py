"""Model cards as the Hugging Face hub reads them, parsed by its own library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData

from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target
from mst_clipiqa.train.card import card
from mst_clipiqa.train.front_matter import MeasuredResult, front_matter

MINI = Path(__file__).parents[2] / "mst_clipiqa" / "weights" / "mini"
CONFIG = ModelConfig("mine: a 'test'", EncoderRef("openai", "f" * 64, 512), {"quality": Target("template", 0.0, 5.0)})


def metadata(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def training(srcc: float | None = 0.81234567) -> dict[str, object]:
    """Return what training.json says of a target, as far as the card shows it."""
    test = {
        "agreement": {"n": 40, "srcc": srcc, "plcc": 0.8},
        "groups": 8,
        "intervals": {},
        "baseline_srcc": 0.7,
        "pairs": None,
        "coverage": None,
        "contamination": {"label": ""},
    }
    return {
        "data": "AGIQA-3K",
        "licence": "",
        "protocol": "20 % of the prompts: a split",
        "leakage": 0.0,
        "recipe": {"name": "fast", "seed": 0},
        "threads": 2,
        "seconds": 3.0,
        "best": {"epoch": 4, "learning_rate": 1e-4, "validation_srcc": 0.8},
        "test": test,
    }


def test_a_trained_models_card_is_read_by_the_hub() -> None:
    text = card(CONFIG, "by prompt", {"quality": training()})
    data = metadata(text)
    assert (data.license, data.library_name, data.metrics) == ("unknown", "mst-clipiqa", ["srcc", "plcc"])
    assert data.base_model == ["openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16"]
    assert data.datasets == ["AGIQA-3K"]
    assert "image-quality-assessment" in (data.tags or [])
    assert data.model_name == "mine: a 'test'"
    assert data.eval_results is not None
    found = {(one.metric_type, one.metric_value, one.dataset_name, one.dataset_split) for one in data.eval_results}
    assert found == {("srcc", 0.8123, "AGIQA-3K", "test"), ("plcc", 0.8, "AGIQA-3K", "test")}
    assert data.eval_results[0].metric_name == "SRCC of quality"
    assert data.eval_results[0].dataset_args == {"protocol": "20 % of the prompts: a split"}
    assert ModelCard(text).text.lstrip().startswith("# mine: a 'test'")


def test_what_was_not_measured_is_not_claimed() -> None:
    data = metadata(card(CONFIG, "not known", {}))
    assert data.eval_results is None and data.datasets is None
    undefined = metadata(card(CONFIG, "by prompt", {"quality": training(None)}))
    assert undefined.eval_results is not None
    assert [one.metric_type for one in undefined.eval_results] == ["plcc"]


def test_a_figure_of_images_that_were_seen_is_no_result() -> None:
    seen = training()
    seen["test"] = seen["test"] | {"contamination": {"label": "contaminated: the model had seen 3 % of the prompts"}}  # type: ignore[operator]
    text = card(CONFIG, "by prompt", {"quality": seen, "correspondence": training()})
    data = metadata(text)
    assert data.eval_results is not None
    assert {one.metric_name for one in data.eval_results} == {"SRCC of correspondence", "PLCC of correspondence"}
    assert "**Contaminated: the model had seen 3 % of the prompts. These figures overstate the model, so" in text
    assert metadata(card(CONFIG, "by prompt", {"quality": seen})).eval_results is None


def test_a_model_trained_on_pairs_alone_names_accuracy_and_no_correlations() -> None:
    pairs = {"data": "pairs of p.csv", "train": 9}
    both = training() | {"preferences": pairs}
    assert metadata(card(CONFIG, "by prompt", {"quality": both})).metrics == ["srcc", "plcc", "accuracy"]
    right = {"pairs": 4, "accuracy": 1.0, "low": 0.4, "high": 1.0, "groups": 12}
    alone = both | {"data": pairs["data"], "threads": 1}
    alone["test"] = training()["test"] | {"agreement": None, "preferences": right, "baseline_srcc": None}  # type: ignore[operator]
    alone["best"] = {"epoch": 4, "learning_rate": 1e-4, "validation_srcc": None, "validation_pairs": 1.0}
    text = card(CONFIG, "by prompt", {"quality": alone})
    assert metadata(text).metrics == ["accuracy"]
    assert "on 1 thread. " in text


def test_a_card_says_how_to_score_with_the_model() -> None:
    assert "mst-clipiqa score images/ --model MODEL -o scores.csv\n" in card(CONFIG, "by prompt", {})
    reads = ModelConfig("m", CONFIG.encoders, {"correspondence": Target("prompt", 0.0, 5.0)})
    assert "--model MODEL --prompts prompts.csv -o" in card(reads, "by prompt", {})


@pytest.mark.parametrize(
    ("encoders", "expected"),
    [
        ("me/a,you/b", ["me/a", "you/b"]),
        ("mini", None),
        ("/home/me/a,/home/me/b", None),
    ],
)
def test_only_hub_ids_are_base_models(encoders: str, expected: list[str] | None) -> None:
    assert metadata(front_matter("x", encoders, [])).base_model == expected


@pytest.mark.parametrize("own", ["csv", "imagefolder", "pyiqa", "parquet", "webdataset"])
def test_a_set_of_your_own_is_no_data_set_of_the_hub(own: str) -> None:
    data = metadata(card(CONFIG, "by prompt", {"quality": training() | {"data": own}}))
    assert (data.datasets, data.metrics) == (None, ["srcc", "plcc"])
    assert [one.dataset_name for one in data.eval_results or []] == [own, own]


def test_a_card_names_the_precision_without_its_digest() -> None:
    text = card(CONFIG, "by prompt", {"quality": training() | {"precision": "int8-d089f389-pairs"}})
    assert " Features were computed in int8." in text
    assert "d089f389" not in text
    text = card(CONFIG, "by prompt", {"quality": training() | {"precision": "bf16-merge8"}})
    assert " Features were computed in bf16 with merged tokens: score with `--merge 8` too." in text


def test_figures_of_two_sets_stay_apart() -> None:
    two = [MeasuredResult("quality", name, "test", "by prompt", 0.5, 0.6) for name in ("One", "Two")]
    data = metadata(front_matter("x", "openai", ["One", "Two", "One"], two))
    assert data.datasets == ["One", "Two"]
    assert data.eval_results is not None
    assert [one.dataset_type for one in data.eval_results] == ["one", "one", "two", "two"]


def test_the_card_of_mini_begins_with_its_figures() -> None:
    figures = json.loads((MINI / "figures.json").read_text(encoding="utf-8"))
    data = metadata((MINI / "README.md").read_text(encoding="utf-8"))
    assert (data.license, data.library_name) == ("apache-2.0", "mst-clipiqa")
    assert data.eval_results is not None
    values = {one.metric_name: one.metric_value for one in data.eval_results}
    for target in ("quality", "correspondence"):
        measured = figures["development"][target]
        assert values[f"SRCC of {target}"] == round(measured["srcc"]["value"], 4)
        assert values[f"PLCC of {target}"] == round(measured["plcc"], 4)


def test_a_folder_that_reads_like_a_hub_id_is_no_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoders" / "coarse").mkdir(parents=True)
    text = front_matter("mine", "encoders/coarse,openai/clip-vit-base-patch16", [])
    assert "encoders/coarse" not in text
    assert "- openai/clip-vit-base-patch16" in text or "base_model: openai/clip-vit-base-patch16" in text
