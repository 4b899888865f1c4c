"""Model folders: a round trip to the bit, and a sentence for everything that is wrong with one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from mst_clipiqa.errors import ModelError
from mst_clipiqa.evaluate import make_reference
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
from mst_clipiqa.model_folder import (
    EncoderRef,
    ModelConfig,
    Target,
    TrainedModel,
    TrainedOn,
    load_model,
    prompt_hash,
    save_model,
)
from tests.closed_form import fill


def model() -> TrainedModel:
    parts = {"quality": MSTCLIPIQA(64, "template"), "correspondence": MSTCLIPIQA(64, "prompt")}
    for name, part in parts.items():
        fill(part, f"{name}.")
    targets = {"quality": Target("template", 0.0, 5.0, 0.7), "correspondence": Target("prompt", 26.6, 72.1)}
    config = ModelConfig("toy", EncoderRef("mini", "a" * 64, 64), targets)
    return TrainedModel(config, parts, TrainedOn(frozenset({"00ff"}), frozenset({prompt_hash("A  Fox")})))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(model(), tmp_path / "toy", "# toy\n")
    return tmp_path / "toy"


def test_round_trip_to_the_bit(folder: Path) -> None:
    before, after = model(), load_model(folder)
    weights, seen = (
        hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in ("model.safetensors", "trained_on.json")
    )
    assert after.config == dataclasses.replace(before.config, weights=weights, trained_on=seen)
    assert after.trained_on == before.trained_on
    for name, part in before.parts.items():
        state = after.parts[name].state_dict()
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(state[k], v) for k, v in part.state_dict().items())
    save_model(after, folder.parent / "again", "# toy\n")
    for file in ("config.json", "model.safetensors", "trained_on.json", "README.md"):
        assert (folder.parent / "again" / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "trained_on.json"])
def test_a_file_of_another_model_is_refused(folder: Path, tmp_path: Path, file: str) -> None:
    other = dataclasses.replace(model(), trained_on=TrainedOn(frozenset({"11ff"})))
    fill(other.parts["quality"], "other.")
    save_model(other, tmp_path / "other", "# other\n")
    (folder / file).write_bytes((tmp_path / "other" / file).read_bytes())
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value) == (
        f"Expected the {file} that config.json names in {folder}, got another: copy the whole folder, or save the "
        "model again in a new one."
    )


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_a_save_that_is_killed_between_two_names_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    done: list[Path] = []
    real = Path.replace

    def killed(path: Path, to: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(to)
        real(path, to)

    other = model()
    fill(other.parts["quality"], "other.")
    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(other, folder, "# other\n")
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"Expected the model\.safetensors that config\.json names"):
        load_model(folder)


def test_an_older_folder_names_no_files_and_one_without_a_record_of_training_loads(folder: Path) -> None:
    (folder / "trained_on.json").unlink()
    assert load_model(folder).trained_on == TrainedOn()
    fill(other := MSTCLIPIQA(64, "template"), "other.")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights |= {f"quality.{name}": tensor for name, tensor in other.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    edit_config(folder, lambda config: [config.pop(name) for name in ("weights", "trained_on")])
    assert load_model(folder).config.weights == ""


def test_only_what_was_trained_is_saved(folder: Path) -> None:
    numbers = sum(t.numel() for t in safetensors.torch.load_file(folder / "model.safetensors").values())
    assert numbers == sum(p.numel() for part in model().parts.values() for p in part.parameters())
    assert not list(folder.glob("*.part"))


def test_prompts_are_compared_without_case_and_spacing() -> None:
    assert prompt_hash("A  red\nFox ") == prompt_hash("a red fox")
    assert prompt_hash("a red fox") != prompt_hash("a red box")


def edit_config(folder: Path, change: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(tragets={}), r"got 'tragets' \(did you mean 'targets'\?\)"),
        (lambda c: c["targets"]["quality"].update(hed=1), r"got 'hed' \(did you mean 'head'\?\)"),
        (lambda c: c["view"].update(sizes=1), r"got 'sizes' \(did you mean 'size'\?\)"),
        (lambda c: c.pop("encoders"), "Expected the key 'encoders'"),
        (lambda c: c.update(format=2), "Expected format 1 in .*, got 2: use the version that wrote it"),
        (lambda c: c.update(preprocessing="0"), "Expected preprocessing 1 in .*, got 0"),
        (lambda c: c["targets"]["quality"].update(low=5.0), "Expected a scale low < high for quality in .*low 5 and"),
        (lambda c: c["targets"]["quality"].update(low="0"), "Expected low to be float, got '0', in targets.quality of"),
        (lambda c: c["targets"]["quality"].pop("head"), "Expected the key 'head' in targets.quality of .*config.json"),
        (lambda c: c["targets"].update(quality=7), "Expected an object for targets.quality in .*config.json, got '7'"),
        (lambda c: c["targets"]["quality"].update(interval=float("nan")), "Expected interval to be .*, got nan"),
        (lambda c: c["targets"]["quality"].update(interval=-0.5), "Expected interval of at least 0 for quality in"),
        (lambda c: c["targets"]["quality"].update(growth=-1), "Expected growth of at least 0 for quality in .*got -1"),
        (lambda c: c["view"].update(mean=[0.5, 0.5]), r"Expected mean to be tuple\[float, float, float\], got \[0.5"),
        (lambda c: c["view"].update(crops=10**9), "Expected crops to be int, got 1000000000"),
        (lambda c: c["encoders"].update(dim=10**30), "Expected dim to be int, got 1000"),
        (lambda c: c["encoders"].update(dim=2**16), r"of shape \(16384, 131072\)"),
        (lambda c: c.update(name="\x1b[31mred"), r"Expected printable names in .*, got '\\x1b"),
        (
            lambda c: c["targets"].update({"a.b": c["targets"]["quality"]}),
            "Expected the name of a target to be an identifier",
        ),
        (lambda c: c["targets"]["quality"].update(head="linear"), "got 'linear'"),
        (lambda c: c.update(targets={}), "Expected at least one target"),
        (lambda c: c["encoders"].update(dim=32), r"Expected quality\.gff\.W_h\.weight of shape \(8, 64\)"),
        (lambda c: c["targets"].pop("quality"), r"got .quality\."),
        (lambda c: c["targets"]["quality"].update(head="prompt"), r"Expected the weight quality\.head\.alpha"),
        (lambda c: c["view"].update(fine="nativ"), "Expected fine to be 'same', 'native' or 'own', got 'nativ'"),
        (lambda c: c["view"].update(fine="own"), "Expected one view of the fine stream's own beside fine 'own'"),
        (lambda c: c["view"].update(fine="own", own=7), "Expected one view of the fine stream's own in"),
        (
            lambda c: c["view"].update(fine="own", own={"own": {}}),
            "Expected one view of the fine stream's own in",
        ),
        (lambda c: c["encoders"].update(dim_fine=-1), "Expected fine features of size 1 or more"),
        (lambda c: c["encoders"].update(dim_fine=32), r"Expected quality\.gff\.W_h\.weight of shape \(16, 96\)"),
    ],
)
def test_wrong_configs_are_named(folder: Path, change: Any, message: str) -> None:
    edit_config(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"config"', "\x00\xff"])
def test_configs_that_are_no_config_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="Expected"):
        load_model(folder)


@pytest.mark.parametrize("key", ["low", "name"])
def test_a_key_that_is_there_twice_is_named(folder: Path, key: str) -> None:
    path = folder / "config.json"
    path.write_text(re.sub(rf'("{key}": [^,]+,)', r"\1 \1", path.read_text(), count=1))
    with pytest.raises(ModelError, match=rf"Expected each key once in .*config\.json, got '{key}' twice: remove one\."):
        load_model(folder)


def test_weights_that_are_no_weights_are_refused(folder: Path) -> None:
    import pickle

    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[:-8], b"\xff" * 64, pickle.dumps({"a": 1}), (2**60).to_bytes(8, "little")):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"Expected safetensors in .*fetch it again"):
            load_model(folder)


def test_missing_left_over_and_infinite_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file({k: v for k, v in state.items() if k != "quality.gff.W_g.bias"}, path)
    with pytest.raises(ModelError, match=r"Expected the weight quality\.gff\.W_g\.bias"):
        load_model(folder)
    safetensors.torch.save_file({**state, "quality.head.extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"Expected no weight quality\.head\.extra"):
        load_model(folder)
    state["quality.gff.W_g.bias"][0] = float("inf")
    safetensors.torch.save_file(state, path)
    with pytest.raises(ModelError, match=r"NaN or infinity in quality\.gff\.W_g\.bias"):
        load_model(folder)


@pytest.mark.parametrize("text", ['{"images": 5}', '{"prompts": [1]}', "[]", "7"])
def test_what_a_model_was_trained_on_is_lists_of_hashes(folder: Path, text: str) -> None:
    (folder / "trained_on.json").write_text(text)
    with pytest.raises(ModelError, match="Expected two lists of hashes, images and prompts, in"):
        load_model(folder)


def test_no_folder_and_an_empty_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Expected a model folder with config\.json at .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"Expected a model folder with config\.json"):
        load_model(tmp_path)


def with_reference(folder: Path, dim: int = 64) -> Path:
    """Write the model again with a reference of random features."""
    rng = np.random.default_rng(0)
    f_c, f_f = rng.normal(size=(2, 200, dim))
    made = make_reference(f_c, f_f, ["a", "b"] * 100)
    save_model(dataclasses.replace(model(), reference=made.calibrated(made.distance(f_f, f_c))), folder, "# toy\n")
    return folder


def test_the_reference_travels_with_the_folder(folder: Path) -> None:
    found = load_model(with_reference(folder)).reference
    assert found is not None
    f_c, f_f = np.random.default_rng(1).normal(size=(2, 50, 64))
    assert 0.2 < found.familiarity(found.distance(f_c, f_f)).mean() < 0.8
    assert (folder / "reference.safetensors").stat().st_size < 1_000_000


def test_an_older_folder_has_no_reference_and_equally_wide_intervals(folder: Path) -> None:
    def older(config: Any) -> None:
        del config["reference"]
        for target in config["targets"].values():
            del target["growth"]

    edit_config(folder, older)
    found = load_model(folder)
    assert found.reference is None
    quality = found.config.targets["quality"]
    assert (quality.halfwidth(0.0), quality.halfwidth(3.0)) == (0.7, 0.7)
    assert found.config.targets["correspondence"].halfwidth(0.0) is None


def test_a_reference_that_is_missing_changed_or_of_other_features_is_refused(folder: Path) -> None:
    path = with_reference(folder) / "reference.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0" + b"\0")
    with pytest.raises(ModelError, match=r"Expected the reference.safetensors that config.json names"):
        load_model(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"Expected reference.safetensors beside config.json"):
        load_model(folder)
    with pytest.raises(ModelError, match=r"Expected a reference of 128 features in .* got 64"):
        load_model(with_reference(folder, 32))
