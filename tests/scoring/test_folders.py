"""Where the encoders of a model folder are found."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mst_clipiqa.errors import UsageError
from mst_clipiqa.scoring import saving
from mst_clipiqa.scoring.folders import encoder_source, load_folder
from mst_clipiqa.scoring.saving import save_pretrained
from tests.small_models import save_small_model


def named(source: str) -> Any:
    """Return what ``encoder_source`` reads of a model."""
    return SimpleNamespace(config=SimpleNamespace(encoders=SimpleNamespace(source=source)))


def test_encoders_named_by_relative_paths_are_found_here_or_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    for folder in ("encs/c", "encs/f", "model"):
        (home / folder).mkdir(parents=True)
    away.mkdir()
    monkeypatch.chdir(home)
    assert encoder_source(Path("model"), named("encs/c,encs/f")) == "encs/c,encs/f"
    monkeypatch.chdir(away)
    there = f"{home / 'encs/c'},{home / 'encs/f'}"
    assert encoder_source(Path("../home/model"), named("encs/c,encs/f")) == there
    assert encoder_source(home / "model", named("encs\\c,encs\\f")) == there  # named on Windows
    assert encoder_source(home / "model", named("some/hub,encs/f")) == f"some/hub,{home / 'encs/f'}"


def test_a_folder_with_the_name_of_a_pair_is_not_taken_for_it(tmp_path: Path) -> None:
    for folder in ("model", "openai"):
        (tmp_path / folder).mkdir()
    assert encoder_source(tmp_path / "model", named("openai")) == "openai"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("brings", [True, False], ids=["small encoders", "encoders named only"])
def test_a_link_in_place_of_the_encoders_is_replaced_and_its_target_stays(
    tmp_path: Path, small_encoders: Path, brings: bool
) -> None:
    out, linked = tmp_path / "out", tmp_path / "linked"
    model = load_folder(save_small_model(out, small_encoders))
    shutil.copytree(small_encoders, linked)
    (linked / "config.json").write_text("of others")
    (linked / "diary.txt").write_text("of others too")
    before = contents(linked)
    shutil.rmtree(out / "encoders", ignore_errors=True)
    (out / "encoders").symlink_to(linked)
    source = str(small_encoders) if brings else "me/large"
    save_pretrained(dataclasses.replace(model, folder=None), source, out)
    assert contents(linked) == before
    assert not (out / "encoders").is_symlink()
    saved = contents(out / "encoders") if brings else {}
    assert saved.keys() == ({*contents(small_encoders), "trained_on.json"} if brings else set())
    assert all(data == saved[name] for name, data in contents(small_encoders).items() if brings)
    assert (out / "encoders").exists() == brings


def test_a_link_to_encoders_that_are_gone_is_replaced(tmp_path: Path, small_encoders: Path) -> None:
    model = load_folder(save_small_model(tmp_path / "out", small_encoders))
    shutil.rmtree(tmp_path / "out" / "encoders", ignore_errors=True)
    (tmp_path / "out" / "encoders").symlink_to(tmp_path / "gone")
    save_pretrained(dataclasses.replace(model, folder=None), str(small_encoders), tmp_path / "out")
    assert (tmp_path / "out" / "encoders" / "config.json").is_file()
    assert not (tmp_path / "gone").exists()


def test_a_save_that_fails_keeps_the_linked_encoders_in_use(
    tmp_path: Path, small_encoders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out, linked = tmp_path / "out", tmp_path / "linked"
    model = load_folder(save_small_model(out, small_encoders))
    shutil.copytree(small_encoders, linked)
    shutil.rmtree(out / "encoders", ignore_errors=True)
    (out / "encoders").symlink_to(linked)
    monkeypatch.setattr(saving, "save_model", full)
    with pytest.raises(UsageError, match="No space left on device"):
        save_pretrained(dataclasses.replace(model, folder=None), str(small_encoders), out)
    assert contents(out / "encoders") == contents(linked)
    shutil.rmtree(out / "encoders")
    (out / "encoders").symlink_to(linked)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UsageError, match="No space left on device"):
        save_pretrained(dataclasses.replace(model, folder=None), str(small_encoders), out)
    assert (out / "encoders").is_symlink()
    assert not list(out.glob("tmp*"))
