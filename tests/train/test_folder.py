"""The folder of a model: one split for all targets, nobody else's files replaced, and damaged files named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mst_clipiqa.adapt.build import build_adapted, check_new
from mst_clipiqa.benchmark.assess import AssessedPart, assess, choose
from mst_clipiqa.benchmark.assess_pairs import assess_pairs
from mst_clipiqa.data import RatedSet
from mst_clipiqa.data.preferences import Preference, PreferenceSet
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model_folder import load_model
from mst_clipiqa.scoring.saving import check_model_output, save_pretrained
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.build import build
from mst_clipiqa.train.contamination import seen_by, trained_on
from mst_clipiqa.train.granularity import calibrate_granularity
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.training_file import read_training, write_training
from tests.fakes import FakePair
from tests.train.test_train import job


def train(what: TrainingJob) -> None:
    build(what, ImageEncoder(FakePair()), no_bar)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def swapped(what: TrainingJob) -> TrainingJob:
    """Return the same training on the test part."""
    return replace(what, split=replace(what.split, train=what.split.test, test=what.split.train, protocol="another"))


def test_a_second_target_needs_the_split_of_the_first(rated: RatedSet, copy: Path) -> None:
    before = contents(copy)
    message = r"^Expected the split of quality in .*copy \(random split by prompt.*\), got another \(another\): give"
    with pytest.raises(UsageError, match=message):
        train(swapped(job(rated, copy, "prompt", "correspondence")))
    assert contents(copy) == before
    other = swapped(job(rated, copy, "prompt", "correspondence"))
    other = replace(other, split=replace(other.split, protocol=job(rated, copy).split.protocol))  # the same words
    with pytest.raises(UsageError, match=r"\)\), where 'gen0_000_0\.png' is in test and was in train: give the same"):
        train(other)
    (copy / "split.json").unlink()  # whether it was the same cannot be known
    with pytest.raises(UsageError, match=r"^Expected the split of quality in .*copy \(unknown\), got another"):
        train(job(rated, copy, "prompt", "correspondence"))


@pytest.mark.parametrize("part", [None, 5, [["a"]], [1]])
def test_a_damaged_split_of_the_first_target_is_another(rated: RatedSet, copy: Path, part: object) -> None:
    again = job(rated, copy, "prompt", "correspondence")
    again.split.save(copy / "split.json")
    saved = json.loads((copy / "split.json").read_text())
    (copy / "split.json").write_text(json.dumps(saved | {"train": part}))
    with pytest.raises(UsageError, match=r"^Expected the split of quality in .*copy \(unknown\), got another"):
        train(again)


def test_the_only_target_may_be_trained_again_on_another_split(rated: RatedSet, copy: Path) -> None:
    again = swapped(job(rated, copy))
    train(again)
    learnt = [*again.split.train, *again.split.validation]
    assert load_model(copy).trained_on == trained_on(learnt)  # and not what the weights that are gone had seen
    assert read_training(copy)["quality"]["test"]["contamination"]["label"] == ""
    names = {record.name for record in choose(rated, "test", copy).records}
    assert names == {record.name for record in again.split.test}


# files of somebody else -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "config.json", "training.json", "split.json", "quality.png"])
def test_training_replaces_no_file_of_something_else(rated: RatedSet, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises((UsageError, ModelError), match=r"^Expected (a new folder or that of a model|a model folder)"):
        train(job(rated, tmp_path))
    assert contents(tmp_path) == {name: b"{}"}


def test_an_interrupted_training_may_have_left_files(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path)

    def stop(_: object) -> None:
        (tmp_path / "README.md").write_text("a card")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(what, ImageEncoder(FakePair()), no_bar, stop)
    assert contents(tmp_path).keys() == {"checkpoint.pt", "README.md"}
    train(what)
    assert load_model(tmp_path).config.targets.keys() == {"quality"}


def test_nor_does_what_else_writes_a_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    message = r"^Expected a new folder or that of a model, got .*, which holds README\.md of something else: choose"
    with pytest.raises(UsageError, match=message):
        save_pretrained(load_model(model), "fake", tmp_path)
    with pytest.raises(UsageError, match=message):
        check_new(tmp_path)
    assert contents(tmp_path) == {"README.md": b"mine"}
    (tmp_path / "README.md").rename(tmp_path / "reference.safetensors")
    with pytest.raises(UsageError, match=r"which holds reference\.safetensors of something else"):
        save_pretrained(load_model(model), "fake", tmp_path)
    assert contents(tmp_path) == {"reference.safetensors": b"mine"}
    (tmp_path / "config.json").write_text('{"name": "a web page"}')
    with pytest.raises(UsageError, match=r"which holds config\.json of something else"):
        check_model_output(tmp_path)
    check_model_output(model)
    check_model_output(tmp_path / "missing")


# damaged files ----------------------------------------------------------------------------------------------

DAMAGES = [b"", b'{"quality": {"data": "to', b"[]", b"\0" * 64, b'{"quality": 3}', b'{"quality": {}}', b"[" * 200_000]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_training_file_is_one_sentence(rated: RatedSet, copy: Path, damage: bytes) -> None:
    (copy / "training.json").write_bytes(damage)
    message = r"^Expected .* in .*training\.json, got .*: restore it, or start a new folder\.$"
    with pytest.raises(ModelError, match=message):
        choose(rated, "test", copy)
    with pytest.raises(ModelError, match=message):
        train(job(rated, copy))
    assert (copy / "training.json").read_bytes() == damage


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("best", None, "Expected an object for best of 'quality' in .*, got no such key: restore it"),
        ("seconds", "12", "Expected a number for seconds of 'quality' in .*, got '12': restore it"),
        ("seconds", float("nan"), "Expected a number for seconds of 'quality' in .*, got 'nan': restore it"),
        ("test", [1], r"Expected an object or null for test of 'quality' in .*, got '\[1\]': restore it"),
        ("threads", True, "Expected a number for threads of 'quality' in .*, got 'True': restore it"),
        ("data", 3, "Expected text for data of 'quality' in .*, got '3': restore it"),
    ],
)
def test_a_wrong_value_in_the_training_file_is_named(copy: Path, key: str, value: Any, message: str) -> None:
    file = copy / "training.json"
    content = json.loads(file.read_text())
    content["quality"].pop(key)
    content["quality"] |= {} if value is None else {key: value}
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        read_training(copy)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", None])
def test_a_damaged_checkpoint_is_one_sentence(rated: RatedSet, tmp_path: Path, damage: bytes | None) -> None:
    out = tmp_path / "m"
    out.mkdir()
    torch.save({"identity": 1}, out / "checkpoint.pt")
    if damage is not None:
        (out / "checkpoint.pt").write_bytes(damage)
    message = r"^Expected a checkpoint of a training in .*\.pt, got a damaged file \(\w+\): delete it to start over\.$"
    with pytest.raises(UsageError, match=message):
        train(job(rated, out))


def test_a_damaged_record_of_what_was_seen_is_not_taken_for_nothing(copy: Path) -> None:
    (copy / "trained_on.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^Expected two lists of hashes, images and prompts, in .*trained_on\.json"):
        load_model(copy)


def test_a_missing_record_of_what_was_seen_is_not_taken_for_nothing(rated: RatedSet, copy: Path) -> None:
    (copy / "trained_on.json").unlink()
    model = load_model(copy)  # scoring does without
    asked: Any = SimpleNamespace(out=copy.with_name("adapted"), scorer=SimpleNamespace(model=model))
    for what in (
        lambda: seen_by(model, FakePair()),
        lambda: save_pretrained(model, "mini", copy.with_name("saved")),
        lambda: build_adapted(asked),
        lambda: train(job(rated, copy, "prompt", "correspondence")),
    ):
        with pytest.raises(ModelError, match=r"^Expected trained_on\.json, .* in .*copy, got none: copy the whole"):
            what()
    encoder = ImageEncoder(pair := FakePair())
    scorer = Scorer(model, encoder)
    part = AssessedPart(rated.records, "all images", None)
    pairs = PreferenceSet(rated, (Preference(rated.records[0], rated.records[1], 1.0),))
    for look in (
        lambda: assess(scorer, rated, part, print),
        lambda: assess_pairs(scorer, pairs, part, print),
        lambda: calibrate_granularity(scorer, rated.records, "toy", print),
    ):
        with pytest.raises(ModelError, match=r"^Expected trained_on\.json"):
            look()
    assert pair.images == 0  # before anything is encoded
    train(job(rated, copy))  # in the place of the model, whatever that has seen
    assert seen_by(load_model(copy), FakePair())["the model"].images


def test_a_full_disk_leaves_the_files_as_they_were(
    rated: RatedSet, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_training(copy, "quality", {})
    with pytest.raises(OSError, match="No space left"):
        job(rated, copy).split.save(copy / "split.json")
    assert contents(copy) == before
