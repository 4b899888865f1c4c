"""Features on disk: found again, never mixed up, whole after anything."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mst_clipiqa import cli
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.cache import Cache, CacheSpace
from mst_clipiqa.features.cache_place import cache_folder
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import AlreadyScored, Failed
from mst_clipiqa.features.prompt_encoder import PromptEncoder
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.model.preprocess import ViewSpec
from speed import kill_cache
from tests.commands import run_score
from tests.fakes import FakePair, draw
from tests.features.elsewhere import encode_slowly
from tests.forked import answer, started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(7):
        draw(i, i / 7).save(tmp_path / f"{i}.png")
    return tmp_path


def encode(
    pair: FakePair, cache: Cache | None, files: list[Path], opening: OpenOptions | None = None
) -> list[Encoded | Failed | AlreadyScored]:
    encoder = ImageEncoder(pair, batch_size=3, cache=cache, opening=opening)
    return [one for batch in encoder.batches(files, encoder.open) for _, one in batch]


def test_an_image_is_encoded_once_and_stays_the_same(folder: Path) -> None:
    files, pair = sorted(folder.glob("*.png")), FakePair()
    plain = encode(pair, None, files)
    for _ in range(2):
        with Cache(folder / "cache") as cache:
            for one, want in zip(encode(pair, cache, files), plain, strict=True):
                assert isinstance(one, Encoded)
                assert isinstance(want, Encoded)
                assert torch.equal(one.f_c, want.f_c)
                assert torch.equal(one.f_f, want.f_f)
                assert (one.width, one.height) == (want.width, want.height)
    assert pair.images == 2 * len(files)  # once without a cache, once with


def test_the_key_is_the_images_bytes_not_its_name(folder: Path) -> None:
    pair = FakePair()
    with Cache(folder / "cache") as cache:
        encode(pair, cache, [folder / "1.png"])
        (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
        encode(pair, cache, [folder / "copy.png"])
        assert pair.images == 1
        (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
        encode(pair, cache, [folder / "1.png"])
        assert pair.images == 2


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"precision": "bf16"}, {"view": {"size": 112}}])
def test_other_weights_precision_or_views_are_other_features(folder: Path, change: dict[str, object]) -> None:
    if "view" in change:
        change = {"view": dataclasses.replace(FakePair().view, size=112)}
    with Cache(folder / "cache") as cache:
        encode(FakePair(), cache, [folder / "1.png"])
        other = dataclasses.replace(FakePair(), **change)  # type: ignore[arg-type]
        encode(other, cache, [folder / "1.png"])
        assert other.images == 1
        assert len(cache.info()) == 2
        renamed = dataclasses.replace(FakePair(), source="the same under another name")
        encode(renamed, cache, [folder / "1.png"])
        assert renamed.images == 0


@pytest.mark.parametrize("first", [OpenOptions(reduce_to=64), OpenOptions(color="as-stored")])
def test_images_that_were_opened_otherwise_have_features_of_their_own(folder: Path, first: OpenOptions) -> None:
    draw(3, 0.5, size=512).save(folder / "large.jpg")
    pair, files = FakePair(), [folder / "large.jpg"]
    (full,) = encode(pair, None, files)
    with Cache(folder / "cache") as cache:
        ImageEncoder(pair, cache=cache, opening=first).encode(files)
        images = pair.images
        (found,) = encode(pair, cache, files)
    assert pair.images == images + 1
    assert isinstance(found, Encoded) and isinstance(full, Encoded)
    assert torch.equal(found.f_c, full.f_c) and torch.equal(found.f_f, full.f_f)


def test_prompts_are_kept_too(folder: Path) -> None:
    pair = FakePair()
    prompts = ["a fox", "a very long red fox", "zzz", "w " * 90, "a fox", "lone \ud800"]
    with Cache(folder / "cache") as cache:
        first = PromptEncoder(pair, cache.space(pair)).encode(prompts)
        assert pair.prompts == 5
        again = PromptEncoder(pair, cache.space(pair)).encode(prompts)
        assert pair.prompts == 5
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.tokens, two.tokens)
        assert (one.truncated, one.in_vocabulary) == (two.truncated, two.in_vocabulary)
    assert [p.truncated for p in again] == [False, False, False, True, False, False]
    assert [p.in_vocabulary for p in again] == [True, True, False, True, True, True]


def test_a_bad_image_is_a_reason_and_is_not_kept(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"not an image")
    pair = FakePair()
    with Cache(folder / "cache") as cache:
        good, bad = encode(pair, cache, [folder / "1.png", folder / "bad.png"])
        assert isinstance(good, Encoded)
        assert isinstance(bad, Failed)
        assert "expected" in bad.reason
        assert cache.info()[0].images == 1


def test_damage_is_seen_mended_and_said(folder: Path) -> None:
    files, pair = sorted(folder.glob("*.png")), FakePair()
    with Cache(folder / "cache") as cache:
        before = encode(pair, cache, files)
    with closing(sqlite3.connect(folder / "cache" / "features.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE images SET f_c = zeroblob(256) WHERE key = (SELECT key FROM images LIMIT 1)")
    with Cache(folder / "cache") as cache:
        again = encode(pair, cache, files)
        assert pair.images == len(files) + 1
        assert all(torch.equal(a.f_c, b.f_c) for a, b in zip(again, before, strict=True))  # type: ignore[union-attr]
        assert cache.verify() == (7, 0)
    with closing(sqlite3.connect(folder / "cache" / "features.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE images SET f_f = zeroblob(256) WHERE key = (SELECT key FROM images LIMIT 1)")
    with Cache(folder / "cache") as cache:
        assert cache.verify() == (7, 1)
        assert cache.verify() == (6, 0)
        assert cache.clear() == 6
        assert cache.info() == []


def test_a_cache_that_nobody_closes_is_closed_when_it_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    db = cache._db
    del cache
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        db.execute("SELECT 1")


@pytest.mark.parametrize("at", [0, 4096, 8192, 12288, 16384])
def test_a_damaged_file_is_one_sentence(folder: Path, at: int) -> None:
    file = folder / "cache" / "features.sqlite"
    with Cache(folder / "cache") as cache:
        encode(FakePair(), cache, sorted(folder.glob("*.png")))
    data = bytearray(file.read_bytes())
    data[at : at + 3000] = b"\xff" * 3000
    file.write_bytes(data)
    result = CliRunner().invoke(cli.group, ["cache", "verify", str(folder / "cache")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: Expected a ")
    assert ("delete " in result.stderr, result.stderr.count("\n")) == (True, 1)
    info = CliRunner().invoke(cli.group, ["cache", "info", str(folder / "cache")])
    assert info.exit_code in (0, 2), info.exception
    assert isinstance(info.exception, SystemExit | None)


def test_a_description_that_is_damaged_is_one_sentence(folder: Path) -> None:
    with Cache(folder / "cache") as cache:
        encode(FakePair(), cache, sorted(folder.glob("*.png")))
        with cache.writing() as db:
            db.execute("UPDATE spaces SET description = '{'")
        with pytest.raises(UsageError, match=r"Expected a whole cache, got a damaged one .*: delete '.*', and"):
            cache.info()


def test_a_cached_image_is_as_large_as_a_new_one(folder: Path) -> None:
    files, pair = sorted(folder.glob("*.png")), FakePair()
    small = OpenOptions(max_pixels=100)
    with Cache(folder / "cache") as cache:
        new = encode(pair, None, files, small)
        encode(pair, cache, files)
        assert encode(pair, cache, files, small) == new
        assert all("expected at most 100 pixels" in one.reason for one in new if isinstance(one, Failed))
        assert all(isinstance(one, Failed) for one in new)


def test_a_folder_that_cannot_be_a_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="Expected a folder for the cache that can be written"):
        Cache(tmp_path / "file" / "cache")
    (tmp_path / "features.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(UsageError, match=r"delete features\.sqlite in it if it is damaged"):
        Cache(tmp_path)


def test_nothing_is_kept_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MST_CLIPIQA_CACHE", raising=False)
    assert cache_folder(None) is None
    monkeypatch.setenv("MST_CLIPIQA_CACHE", "here")
    assert cache_folder(None) == Path("here")
    assert cache_folder("there") == Path("there")


def test_kill_at_any_moment_loses_nothing_that_was_encoded(tmp_path: Path) -> None:
    for i in range(40):
        draw(i, i / 40, size=16).save(tmp_path / f"{i:02d}.png")
    kept = 0
    for after in (1, 7, 12):
        process, done = started(encode_slowly, tmp_path)
        for _ in range(kept + after):
            assert done.recv() == "done"
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with Cache(tmp_path / "cache") as cache:
            now = cache.info()[0].images
            assert cache.verify() == (now, 0)
        assert now >= kept + after - 2  # what was reported as done is there, but for a batch in flight
        kept = now
    pair = FakePair()
    files = sorted(tmp_path.glob("*.png"))
    with Cache(tmp_path / "cache") as cache:
        final = encode(pair, cache, files)
    assert pair.images == 40 - kept  # only what was missing
    for one, want in zip(final, encode(FakePair(), None, files), strict=True):
        assert torch.equal(one.f_c, want.f_c)  # type: ignore[union-attr]


def test_the_shipped_encoders_go_on_after_kills() -> None:
    code, said = answer(kill_cache.main, "--kills", "2", "--images", "24", "--seed", "21")
    assert code == 0, said
    found = json.loads(said)
    assert (found["kills"], found["damaged_rows"], found["equal"]) == (2, 0, True)
    assert found["encoded_by_the_last_run"] == 24 - found["kept_at_last_kill"] > 0


def test_several_processes_share_one_cache(tmp_path: Path) -> None:
    for i in range(12):
        draw(i, i / 12, size=16).save(tmp_path / f"{i:02d}.png")
    workers = [started(encode_slowly, tmp_path) for _ in range(2)]
    for process, done in workers:
        assert [done.recv() for _ in range(12)] == ["done"] * 12
        process.join(120)
    assert [process.exitcode for process, _ in workers] == [0, 0]
    with Cache(tmp_path / "cache") as cache:
        assert cache.verify() == (12, 0)


def test_a_full_disk_is_one_sentence_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    large = Encoded(torch.zeros(100_000), torch.zeros(100_000), 1, 1)
    with Cache(tmp_path) as cache:
        space = cache.space(FakePair())
        cache._db.execute("PRAGMA max_page_count = 1")
        for _ in range(2):
            space.put([("a", large)])
            assert space.get("a") is None
    (said,) = caplog.messages
    assert re.match(r"Expected a cache that can be used at .*full: free some space", said)
    assert said.endswith(" Until the next start, features are not cached.")


@pytest.mark.parametrize(
    "damage", [*(f"DROP TABLE IF EXISTS {table}" for table in ("images", "prompts")), "PRAGMA query_only = 1"]
)
def test_score_goes_on_without_a_cache_that_fails(
    damage: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        draw(i, i / 3, size=16).save(file)
    asked = [*files, "--model", small_model, "--prompt", "a fox", "--precision", "fp32"]
    run_score(*asked, "-o", tmp_path / "want.csv")
    get = CacheSpace.get

    def failing(space: CacheSpace, key: str) -> Encoded | None:
        with space.cache._lock:
            space.cache._db.execute(damage)
        return get(space, key)

    monkeypatch.setattr(CacheSpace, "get", failing)
    run_score(*asked, "-o", tmp_path / "found.csv", "--cache", tmp_path / "cache")
    assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "want.csv").read_bytes()
    (said,) = caplog.messages
    assert said.endswith(" Until the next start, features are not cached.")


def test_a_closed_cache_is_not_called_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Cache(tmp_path) as cache:
        space = cache.space(FakePair())
    assert space.get("a") is None
    (said,) = caplog.messages
    assert said.startswith(f"Expected an open cache, got '{cache.path}' closed: close it after use. Until")


def test_tables_of_another_program_are_one_sentence(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        cache._db.execute("DROP TABLE spaces")
        cache._db.execute("CREATE TABLE spaces (name)")
        with pytest.raises(UsageError, match=r"got a damaged one \(table spaces has 1 columns .*\): delete "):
            cache.space(FakePair())


def test_features_of_a_gpu_are_kept_apart(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        devices = ("cpu", "cuda", "mps", "cuda:1")
        names = [cache.space(FakePair(device=torch.device(device))).name for device in devices]
    assert len(set(names)) == 3
    assert names[1] == names[3]  # cards of one machine count as one


def test_a_view_that_older_versions_had_keeps_its_place(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        spaces = [cache.space(FakePair(view=view)).name for view in (ViewSpec(), ViewSpec(squash=True))]
        usual, squashed = sorted((json.loads(one.description)["view"] for one in cache.info()), key=len)
    assert spaces[0] != spaces[1]
    assert list(usual) == ["size", "mean", "std", "fine", "crops", "crop_size", "native_side", "gap"]
    assert squashed == usual | {"squash": True}
