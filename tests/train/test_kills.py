"""What a kill leaves of a model folder, and what may be left of an older model: nothing that does not fit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mst_clipiqa.data import RatedSet
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model_folder import load_model, save_model
from mst_clipiqa.scoring.saving import save_pretrained
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.atomic import remove_leftovers, write_together
from mst_clipiqa.train.build import build
from mst_clipiqa.train.measure import measure
from tests.fakes import FakePair
from tests.train.test_folder import contents, train
from tests.train.test_train import job

SAVED = ("model.safetensors", "trained_on.json", "README.md", "config.json")


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def part(number: int | str, name: str = "model.safetensors") -> str:
    return f".{name}.{platform.node()}.{number}.part"


def test_all_files_of_a_model_are_written_before_the_first_appears(
    rated: RatedSet, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)

    def killed(path: Path, to: Path) -> Any:
        if to.name == "checkpoint.pt":
            return os.replace(path, to)  # noqa: PTH105 - the method is replaced
        ready = {name for name in contents(copy) if name.endswith(".part")}
        assert ready == {part(os.getpid(), name) for name in SAVED}
        raise Killed

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(Killed):
        train(job(rated, copy, "prompt", "correspondence"))
    left = contents(copy)
    assert left.pop("checkpoint.pt")
    assert left == before
    monkeypatch.undo()
    train(job(rated, copy, "prompt", "correspondence"))
    assert set(load_model(copy).config.targets) == {"quality", "correspondence"}


@pytest.mark.skipif(os.name != "posix", reason="the limit is POSIX's")
def test_a_checkpoint_on_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from mst_clipiqa.train.checkpoint import TrainingState, save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_checkpoint(Path(sys.argv[1]), TrainingState(model={'w': torch.zeros(10_000)}), {})\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "checkpoint.pt"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    assert not list(tmp_path.iterdir())


def test_each_edited_card_is_kept_byte_for_byte(rated: RatedSet, copy: Path) -> None:
    for content in (b"First words, caf\xe9.", b"Second words.\r\n"):
        (copy / "README.md").write_bytes(content)
        train(job(rated, copy))
    (copy / "README.md").write_bytes(b"Second words.\r\n")  # as after a kill
    train(job(rated, copy))
    kept = {path.name: path.read_bytes() for path in copy.glob("README.old*")}
    assert kept == {"README.old.md": b"First words, caf\xe9.", "README.old2.md": b"Second words.\r\n"}


def test_a_folder_in_the_way_is_noticed_before_any_file_appears(copy: Path, tmp_path: Path) -> None:
    before = (copy / "model.safetensors").read_bytes()
    (copy / "README.md").unlink()
    (copy / "README.md").mkdir()
    with pytest.raises(IsADirectoryError):
        write_together({copy / "model.safetensors": b"new", copy / "README.md": b"new"})
    assert (copy / "model.safetensors").read_bytes() == before
    assert not list(copy.glob(".*.part"))


def test_a_model_is_saved_onto_a_folder_whose_targets_are_damaged(copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"format": 1, "encoders": {}, "targets": 5}')
    save_pretrained(load_model(copy), "toy", broken)
    assert set(load_model(broken).config.targets) == {"quality"}


def test_files_that_are_written_together_appear_in_order_and_whole(tmp_path: Path) -> None:
    files = {tmp_path / "b": b"1", tmp_path / "new" / "a": b"2", tmp_path / "c": b"3"}
    seen: list[Path] = []
    real = Path.replace

    def noted(path: Path, to: Path) -> None:
        seen.append(to)
        real(path, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.replace", noted)
        write_together(files)
    assert seen == list(files)
    assert {path: path.read_bytes() for path in files} == files


def test_leftovers_of_dead_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, other = part(os.getpid()), ".model.safetensors.another-machine.1.part"
    mine = "..part", ".notes.part", part("x"), f"model.{platform.node()}.{dead.pid}.part"
    for name in (part(dead.pid), part(10**30), ours, other, *mine):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert contents(tmp_path).keys() == {ours, other, *mine}


def test_files_that_are_written_together_replace_what_kills_left(tmp_path: Path) -> None:
    (tmp_path / part(10**30)).write_bytes(b"half")
    (tmp_path / ".model.safetensors.another-machine.1.part").write_bytes(b"half")
    write_together({tmp_path / "a": b"1"})
    assert contents(tmp_path).keys() == {"a", ".model.safetensors.another-machine.1.part"}


def test_a_save_that_was_killed_between_two_files_is_repeated(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, model, real = tmp_path / "out", load_model(copy), Path.replace

    def killed(path: Path, to: Path) -> Any:
        if to.name == "README.md":
            raise Killed
        return real(path, to)

    monkeypatch.setattr("pathlib.Path.replace", killed)
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, missing_ok=False: None)  # a kill tidies nothing up
    with pytest.raises(Killed):
        save_model(model, out, "card")
    monkeypatch.undo()
    assert {"model.safetensors", part(os.getpid(), "config.json")} <= contents(out).keys()
    save_pretrained(model, "toy", out)
    assert load_model(out).config.targets.keys() == {"quality"}
    (out / "config.json").unlink()  # no temporary file tells of a kill
    with pytest.raises(UsageError, match=r"which holds model\.safetensors of something else"):
        save_pretrained(model, "toy", out)


def test_training_removes_what_kills_left(rated: RatedSet, copy: Path) -> None:
    (copy / part(10**30, "checkpoint.pt")).write_bytes(b"half")
    before = contents(copy).keys()
    train(job(rated, copy))
    assert contents(copy).keys() == before - {part(10**30, "checkpoint.pt")}


def test_a_model_that_another_process_saves_meanwhile_is_not_replaced(rated: RatedSet, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done: list[bytes] = []

    def other(_: object) -> None:
        if not done:
            done.append((out / "checkpoint.pt").read_bytes())
            (out / "checkpoint.pt").unlink()  # the other process began before there was one
            train(job(rated, out, "prompt", "correspondence"))

    with pytest.raises(UsageError, match=r"^Expected .*model as it was when this training began, got a model that an"):
        build(job(rated, out), ImageEncoder(FakePair()), no_bar, other)
    assert set(load_model(out).config.targets) == {"correspondence"}
    train(job(rated, out))
    assert set(load_model(out).config.targets) == {"quality", "correspondence"}


def test_an_edited_card_is_kept_under_another_name(rated: RatedSet, copy: Path) -> None:
    card = (copy / "README.md").read_text()
    train(job(rated, copy))
    assert not (copy / "README.old.md").exists()
    edited = card.replace("license: unknown", "license: mit") + "\nOur own words: café.\n"
    assert edited.count("license: mit") == 1
    (copy / "README.md").write_text(edited, encoding="utf-8")
    train(job(rated, copy, "prompt", "correspondence"))
    assert (copy / "README.old.md").read_text(encoding="utf-8") == edited
    assert "## correspondence" in (copy / "README.md").read_text()
    (copy / "README.old.md").unlink()
    train(job(rated, copy))
    assert not (copy / "README.old.md").exists()


def test_a_card_that_is_edited_while_the_training_runs_is_kept_and_named(
    rated: RatedSet, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(words: str) -> None:
        (copy / "README.md").write_text(words)

    def measured(*arguments: Any) -> Any:
        edited("Edited while the test part is scored.")
        return measure(*arguments)

    kept: list[Path] = []
    monkeypatch.setattr("mst_clipiqa.train.build.measure", measured)
    encoder, words = ImageEncoder(FakePair()), "Edited between two epochs."
    build(job(rated, copy), encoder, no_bar, lambda _: edited(words), kept.append)
    assert kept == [copy / "README.old.md", copy / "README.old2.md"]
    assert [path.read_text() for path in kept] == [words, "Edited while the test part is scored."]
    assert "## quality" in (copy / "README.md").read_text()


def test_a_calibration_of_older_weights_goes(rated: RatedSet, copy: Path) -> None:
    (copy / "granularity.safetensors").write_bytes(b"of older weights")
    train(job(rated, copy, "prompt", "correspondence"))
    assert not (copy / "granularity.safetensors").exists()


def test_a_reference_of_an_older_model_goes(model: Path, tmp_path: Path) -> None:
    assert load_model(model).reference is None
    save_pretrained(load_model(model), "fake", tmp_path)
    (tmp_path / "reference.safetensors").write_bytes(b"of an older model")
    save_pretrained(load_model(model), "fake", tmp_path)
    assert not (tmp_path / "reference.safetensors").exists()


def test_a_saved_model_does_not_read_the_encoders_or_calibration_of_an_older_one(model: Path, tmp_path: Path) -> None:
    Scorer.load("mini").save_pretrained(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    (tmp_path / "split.json").write_text("{}")
    (tmp_path / "correspondence.png").write_bytes(b"a curve")
    for name in ("notes.txt", "encoders/notes.txt"):
        (tmp_path / name).write_text("mine")
    save_pretrained(load_model(model), "fake", tmp_path)
    fresh = tmp_path / "fresh"
    save_pretrained(load_model(model), "fake", fresh)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    new = {path.name for path in fresh.iterdir()}
    assert left == {"notes.txt", "encoders/notes.txt", *new, *(f"fresh/{name}" for name in new)}


def test_a_model_saved_onto_itself_keeps_what_describes_it(copy: Path) -> None:
    before = contents(copy)
    save_pretrained(load_model(copy), "fake", copy)
    assert contents(copy) == before
