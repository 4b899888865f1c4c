"""Models on the Hugging Face hub: which commit is scored with, what is downloaded, and what is said without a network.

The hub is a folder in its cache's own layout, or a function in place of ``huggingface_hub``'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mst_clipiqa.cli import group
from mst_clipiqa.encoders import hub
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import load_trained_on
from mst_clipiqa.scoring import folders, saving
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.reloading import LoadedFrom
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair, draw
from tests.small_models import put_in_hub_cache, save_small_model

OLD, NEW = "a" * 40, "b" * 40
IMAGE = draw(1, 0.3, size=96)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, small_encoders: Path) -> tuple[Path, Path]:
    """Return an older and a newer model."""
    root = tmp_path_factory.mktemp("models")
    old, new = (save_small_model(root / name, small_encoders, f"{name}.") for name in ("old", "new"))
    return old, new


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens


@pytest.fixture
def both(cache: Path, models: tuple[Path, Path]) -> None:
    put_in_hub_cache(cache, "me/small", OLD, models[0], "v1")
    put_in_hub_cache(cache, "me/small", NEW, models[1])


class FakeHub:
    """Serves one folder as one commit, as ``snapshot_download`` would, and remembers how it was asked."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.asked: list[dict[str, Any]] = []

    def __call__(self, repo: str, *, local_files_only: bool = False, **named: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("nothing is cached")
        self.asked.append({"repo": repo, **named})
        files = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        into = self.cache / ("models--" + repo.replace("/", "--")) / "snapshots" / NEW
        for file in (f for f in files if any(fnmatch(f, pattern) for pattern in named["allow_patterns"])):
            (into / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / file, into / file)
        return str(into)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def serve(download: Any) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "answers", lambda endpoint: True)
        monkeypatch.setattr(saving, "answers", lambda endpoint: True)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    return serve


@pytest.mark.usefixtures("both")
def test_every_score_names_the_commit_and_the_name_loads_it_again() -> None:
    newest = Scorer.load("me/small")(IMAGE, "a red fox")
    assert newest.model == f"me/small@{NEW}"
    for name, revision in (("me/small@v1", None), ("me/small", "v1"), ("me/small", OLD), (f"me/small@{OLD}", None)):
        older = Scorer.from_pretrained(name, revision=revision)(IMAGE, "a red fox")
        assert older.model == f"me/small@{OLD}"
        assert older.quality != newest.quality
    assert Scorer.load(older.model)(IMAGE, "a red fox") == older


@pytest.mark.usefixtures("both")
def test_the_command_takes_a_hub_id_and_writes_its_commit(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "1.png")
    result = CliRunner().invoke(
        group, ["score", str(tmp_path / "1.png"), "--model", "me/small@v1", "--device", "cpu", "--json"]
    )
    assert result.exit_code == 0, result.stderr
    assert f'"me/small@{OLD}"' in result.stdout


@pytest.mark.usefixtures("cache", "unreachable")
def test_without_a_network_one_sentence_and_no_noise(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, local_files_only: bool = False, **named: object) -> str:
        assert local_files_only, "the library retries for half a minute and warns"
        raise LocalEntryNotFoundError("nothing is cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    with pytest.raises(ModelError) as caught:
        Scorer.from_pretrained("me/small", revision="v2")
    assert str(caught.value) == (
        "Expected a folder, or a hub id in the local cache or a network to fetch it, got 'me/small' at v2: "
        "check the path, or connect once."
    )
    assert capfd.readouterr() == ("", "")
    assert hub.HUB_SECONDS <= 2


@pytest.mark.usefixtures("both", "unreachable")
def test_without_a_network_the_cache_is_used() -> None:
    assert Scorer.load("me/small").model.config.name == f"me/small@{NEW}"
    with pytest.raises(ModelError, match="or a network to fetch it"):
        Scorer.from_pretrained("me/small", force_download=True)


@pytest.mark.usefixtures("both")
def test_a_cached_commit_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "answers", asked.append)
    Scorer.load(f"me/small@{OLD}")
    assert asked == []
    Scorer.from_pretrained("me/small", local_files_only=True)
    assert asked == []
    Scorer.load("me/small")  # a branch may have moved
    assert len(asked) == 1


def test_only_a_models_own_files_are_downloaded_and_nothing_pickled(
    cache: Path, models: tuple[Path, Path], tmp_path: Path, online: Callable[[Any], None]
) -> None:
    repo = shutil.copytree(models[1], tmp_path / "repo")
    for name in ("pytorch_model.bin", "run.py", "encoders/model.bin", "data.pkl"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_bytes(b"\x80\x04.")
    served = FakeHub(repo, cache)
    online(served)
    scorer = Scorer.from_pretrained("me/small", revision="dev", token="secret", cache_dir=cache, force_download=True)
    assert scorer.model.config.name == f"me/small@{NEW}"
    asked = served.asked[0]
    assert (asked["repo"], asked["revision"], asked["token"]) == ("me/small", "dev", "secret")
    assert (asked["cache_dir"], asked["force_download"]) == (cache, True)
    assert scorer.model.folder is not None
    assert sorted(path.name for path in scorer.model.folder.rglob("*") if path.is_file()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "trained_on.json",
    ]


def refusing(kind: Any) -> Callable[..., str]:
    def download(*args: object, local_files_only: bool = False, **named: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("nothing is cached")
        if kind is ConnectionResetError:
            raise ConnectionResetError("reset\nby peer")
        raise kind("404", response=SimpleNamespace(headers={}, request=None))

    return download


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "Expected a hub id that is open to you, got 'me/small': ask for access and log in."),
        (RepositoryNotFoundError, "Expected a folder or a hub id that exists, got 'me/small': check the path,"),
        (RevisionNotFoundError, "Expected a revision of me/small, got 'v9', which it does not have: check the name."),
        (ConnectionResetError, r"Expected me/small to be downloaded from the hub, got 'reset\\nby peer': try again."),
    ],
)
@pytest.mark.usefixtures("cache")
def test_what_the_hub_refuses_is_one_sentence(kind: Any, message: str, online: Callable[[Any], None]) -> None:
    online(refusing(kind))
    with pytest.raises(ModelError, match=message):
        Scorer.load("me/small@v9")


def test_a_repository_of_something_else_is_refused(cache: Path, tmp_path: Path, online: Callable[[Any], None]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    online(FakeHub(tmp_path / "other", cache))
    with pytest.raises(
        ModelError, match=r"Expected a model of mst-clipiqa at me/other, which lacks model\.safetensors"
    ):
        Scorer.load("me/other")


@pytest.mark.usefixtures("both")
def test_names_that_are_no_hub_ids(models: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="Expected a folder or a hub id, got 'me/small--2', which is neither"):
        Scorer.load("me/small--2")
    with pytest.raises(UsageError, match="Expected a revision once, and only of a hub id, got 'v1' beside 'mini'"):
        Scorer.from_pretrained("mini", revision="v1")
    with pytest.raises(UsageError, match="Expected a revision once"):
        Scorer.from_pretrained("me/small@v1", revision="v1")
    assert Scorer.from_pretrained(models[0]).model.config.name == "small"


def test_a_saved_model_needs_no_other_file(models: tuple[Path, Path], small_encoders: Path, tmp_path: Path) -> None:
    first = shutil.copytree(models[0], tmp_path / "first")
    (first / "README.md").write_text("# mine\n\n![training curve](quality.png)\n")
    (first / "quality.png").write_bytes(b"png")
    elsewhere = shutil.copytree(small_encoders, tmp_path / "encoders")
    scorer = Scorer.load(first, encoders=str(elsewhere))
    want = scorer(IMAGE, "a red fox")
    scorer.save_pretrained(tmp_path / "saved")
    shutil.rmtree(elsewhere)
    again = Scorer.load(tmp_path / "saved")
    assert again.encoder.encoders.source == str(tmp_path / "saved" / "encoders")
    assert again(IMAGE, "a red fox") == want
    assert (tmp_path / "saved" / "README.md").read_text() == "# mine\n\n![training curve](quality.png)\n"
    assert (tmp_path / "saved" / "quality.png").read_bytes() == b"png"
    again.save_pretrained(tmp_path / "saved")  # onto itself
    assert Scorer.load(tmp_path / "saved")(IMAGE, "a red fox") == want


@pytest.mark.usefixtures("both")
def test_a_copy_of_a_hub_model_keeps_its_revision(tmp_path: Path) -> None:
    Scorer.load("me/small@v1").save_pretrained(tmp_path / "copy")
    assert Scorer.load(tmp_path / "copy").model.config.name == f"me/small@{OLD}"


def test_mini_is_saved_whole(tmp_path: Path) -> None:
    mini = Scorer.load("mini", device="cpu")
    mini.save_pretrained(tmp_path / "saved")
    saved = Scorer.load(tmp_path / "saved", device="cpu")
    assert saved.encoder.encoders.precision == mini.encoder.encoders.precision  # int8, where the CPU has it
    assert {path.name for path in (tmp_path / "saved" / "encoders").iterdir()} >= {
        path.name for path in (folders.MINI_MODEL / "encoders").iterdir()
    }
    assert load_trained_on(tmp_path / "saved" / "encoders") == mini.model.trained_on


def test_zero_shot_has_nothing_to_save(tmp_path: Path) -> None:
    pair = FakePair()
    with pytest.raises(UsageError, match="Expected a trained model to save, got zero-shot"):
        Scorer(zero_shot_model(pair), ImageEncoder(pair)).save_pretrained(tmp_path)


class FakeApi:
    """Keeps what ``HfApi`` is asked to upload."""

    uploaded: Path
    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, **named: Any) -> None:
        self.calls.append(("init", named))

    def create_repo(self, repo: str, **named: Any) -> Any:
        self.calls.append((repo, named))
        return SimpleNamespace(repo_id=repo)

    def upload_folder(self, *, folder_path: str, **named: Any) -> Any:
        if named["repo_id"] == "not/mine":
            raise PermissionError("403: no write access")
        self.calls.append(("upload", named))
        shutil.copytree(folder_path, self.uploaded)
        return SimpleNamespace(commit_url=f"https://hub/me/new/commit/{NEW}", pr_url=None)


def test_a_pushed_model_is_scored_with_by_others(
    cache: Path,
    models: tuple[Path, Path],
    tmp_path: Path,
    online: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online(FakeHub(tmp_path / "uploaded", cache))
    monkeypatch.setattr(FakeApi, "uploaded", tmp_path / "uploaded", raising=False)
    monkeypatch.setattr(FakeApi, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    scorer = Scorer.load(models[0])
    where = scorer.push_to_hub("me/new", private=True, token="secret", create_pr=False)
    assert where == f"https://hub/me/new/commit/{NEW}"
    assert FakeApi.calls[0] == ("init", {"token": "secret", "library_name": "mst-clipiqa"})
    assert FakeApi.calls[1] == ("me/new", {"private": True, "exist_ok": True})
    assert FakeApi.calls[2][1] == {
        "repo_id": "me/new",
        "commit_message": "Upload small with mst-clipiqa",
        "create_pr": False,
    }
    theirs = Scorer.from_pretrained("me/new")
    assert theirs.encoder.encoders.source.endswith(f"{NEW}/encoders")
    assert theirs(IMAGE, "a red fox").targets == scorer(IMAGE, "a red fox").targets
    with pytest.raises(UsageError, match=r"Expected to upload to not/mine, got '403: no write access': log in"):
        scorer.push_to_hub("not/mine")


def test_what_nobody_else_could_load_is_not_pushed(models: tuple[Path, Path], tmp_path: Path) -> None:
    scorer = Scorer.load(models[0])
    with pytest.raises(UsageError, match="Expected encoders that others can load, got the folder"):
        saving.push_to_hub(scorer.model, f"{tmp_path},{tmp_path}", "me/new", saving.HubUpload())
    with pytest.raises(UsageError, match="Expected a network to upload me/new to the hub, got none"):
        scorer.push_to_hub("me/new")  # HF_HUB_OFFLINE


class MovingPair(FakePair):
    def to(self, device: Any, precision: str) -> MovingPair:
        self.device, self.precision = device, precision
        return self


def test_a_moved_scorer_does_not_mix_features_of_two_devices(tmp_path: Path) -> None:
    import torch

    pair = MovingPair()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, cache=Cache(tmp_path)))
    before = scorer.encoder.cache
    assert scorer.to(torch.device("cuda")) is scorer
    assert (pair.device.type, pair.precision) == ("cuda", "fp32")
    assert before and scorer.encoder.cache
    assert scorer.encoder.cache.name != before.name
    assert scorer.predictor.prompts.cache is scorer.encoder.cache
    with pytest.raises(UsageError, match="Expected a device"):
        scorer.to("cuda:99")


def test_a_moved_scorer_is_loaded_elsewhere_in_the_precision_that_it_has_kept() -> None:
    import torch

    pair = MovingPair()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    scorer._source = LoadedFrom(Scorer, "zero-shot:fake", ScoreOptions())
    for device, precision in (("cpu", "auto"), ("cuda", "fp32")):  # on a card, auto is another precision
        _, (source, _) = scorer.to(torch.device(device)).__reduce__()
        assert (source.options.device, source.options.precision) == (device, precision)


def test_exported_encoders_do_not_move() -> None:
    pair = FakePair()
    with pytest.raises(UsageError, match="Expected encoders that torch computes, got exported ones"):
        Scorer(zero_shot_model(pair), ImageEncoder(pair)).to("cpu")


def test_a_scorer_says_what_it_is(models: tuple[Path, Path], small_encoders: Path) -> None:
    scorer = Scorer.load(models[0], device="cpu", precision="fp32")
    assert repr(scorer) == f"Scorer('small', quality, correspondence; {small_encoders} on cpu, fp32)"
