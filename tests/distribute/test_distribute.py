"""Scoring on a cluster: the plan needs no ray and is tested anywhere; the run is tested where ray is installed."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import tarfile
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_clipiqa import cli
from mst_clipiqa.analysis.read import read_scores
from mst_clipiqa.distribute import RUN_MANIFEST, ClusterJob, Listing, run
from mst_clipiqa.distribute.listing import listed
from mst_clipiqa.distribute.on_ray import Actor, Pool, connected, lacking, need_ray
from mst_clipiqa.distribute.plan import Partition, item_key, items_in, partitions, row_key
from mst_clipiqa.distribute.worker import Work, Worker, load_scorer
from mst_clipiqa.errors import DataError, ModelError, UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.inputs.item import Item, RemoteImage
from mst_clipiqa.inputs.list_columns import ListColumns
from mst_clipiqa.model_folder import ModelConfig
from mst_clipiqa.scoring.controls import ControlSources
from mst_clipiqa.scoring.loading import ScoreOptions
from mst_clipiqa.scoring.reloading import scorer_sha256
from mst_clipiqa.tables.parquet_images import ParquetImage
from mst_clipiqa.tables.reading import read_table
from mst_clipiqa.tables.table import TableWriter
from mst_clipiqa.tables.tars import TarImage
from tests.fakes import draw

HAS_RAY = find_spec("ray") is not None
FP32 = ["--quiet", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def plain(small_model: Path) -> Work:
    """Return what actors do here, with encoders so small that most of the time goes into what is tested."""
    options = ScoreOptions(device="cpu", precision="fp32", batch_size=8, workers=1)
    return Work("", str(small_model), options, threads=1)


def on_no_gpu(work: Work) -> Work:
    return replace(work, options=replace(work.options, device="cuda:99"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        draw(i, i / 6, size=40).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


# --- the plan -----------------------------------------------------------------------------------------------------

FILES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([None, "x", ""])), max_size=20)


@settings(max_examples=60, deadline=None)
@given(files=FILES, more=FILES, size=st.integers(1, 5), dead=st.sets(st.integers(0, 20)))
def test_parts_hold_each_row_once_whatever_was_done_before(files: Any, more: Any, size: int, dead: set[int]) -> None:
    first = [Item(file, file, prompt) for file, prompt in files]
    begun = list(partitions(first, size, Counter()))
    assert [item for part in begun for item in part.items] == first
    assert begun == list(partitions(first, size, Counter()))  # the same items, the same names
    kept = [part for i, part in enumerate(begun) if i not in dead]
    done = Counter(item_key(item) for part in kept for item in part.items)
    all_of_them = first + [Item(file, file, prompt) for file, prompt in more]
    again = list(partitions(all_of_them, size, done, {part.name for part in kept}))
    rows = Counter(item_key(item) for part in [*kept, *again] for item in part.items)
    assert rows == Counter(item_key(item) for item in all_of_them)
    assert len({part.name for part in [*kept, *again]}) == len(kept) + len(again)  # equal rows, but no equal names


def test_an_image_that_is_newer_than_its_row_is_refused(folder: Path) -> None:
    found = list(items_in(str(folder)))
    done = Counter(map(item_key, found[1:]))
    written = 10**18 + 1
    for item in found:
        os.utime(str(item.path), ns=(written, written))
    (todo,) = partitions(found, 2, done, (), written)
    assert todo.items == (found[0],)
    os.utime(str(found[0].path), ns=(written, written + 1))  # has no row yet
    assert list(partitions(found, 2, done, (), written)) == [todo]
    os.utime(str(found[2].path), ns=(written, written + 1))
    with pytest.raises(UsageError, match=r"older than their rows in the output, got a newer one, '.*2\.png': name"):
        list(partitions(found, 2, done, (), written))
    os.utime(str(found[2].path), ns=(written, written - 1))  # of a disk that counts whole seconds
    with pytest.raises(UsageError, match=r"got a newer one, '.*2\.png': name another output"):
        list(partitions(found, 2, done, (), written))
    os.utime(str(found[2].path), ns=(written, time.time_ns() + 3600 * 10**9))
    with pytest.raises(UsageError, match=r"2\.png': correct its time, which is in the future, or name another output"):
        list(partitions(found, 2, done, (), written))


def test_keys_are_of_file_and_prompt_and_the_same_everywhere() -> None:
    keys = [row_key(*pair) for pair in (("a", None), ("a", ""), ("a", "x"), ("ax", None), ("\udce9", "\ud800"))]
    assert len(set(keys)) == 5
    assert row_key("a", "x") == 184547133723414059614124502592855433891


def test_a_part_travels_as_text() -> None:
    tar, parquet = TarImage("/a\udce9", "a", 512, 7, 1), ParquetImage("/i.parquet", "b", "image", 0, 2, 1)
    stored = (tar, parquet, RemoteImage("x://c"))
    whole = Item("a\udce9", "/a\udce9", "x", frame=2, more={"seed": 7, "by": "sd"})
    part = Partition("p", (whole, Item("b", None, problem="gone"), *(Item("c", None, stored=one) for one in stored)))
    assert Partition.from_json(part.to_json()) == part


def test_folders_lists_and_parquet_name_the_same_files(folder: Path, tmp_path: Path) -> None:
    named = list(items_in(str(folder)))
    assert [Path(source.file).name for source in named] == [*(f"{i}.png" for i in range(6)), "bad.png"]
    (tmp_path / "list.csv").write_text("file,prompt\nin/0.png,a ball\n")
    with TableWriter(tmp_path / "list.parquet", ["image", "text"]) as table:
        table.append({"image": "in/0.png", "text": "a ball"})
        table.append({"image": None})
    (listed,) = items_in(str(tmp_path / "list.csv"))
    one, none = items_in(str(tmp_path / "list.parquet"))
    assert one.prompt == listed.prompt == "a ball"
    assert Path(str(one.path)).samefile(str(listed.path))
    assert str(none.problem).startswith("Expected a file in each row, but ")


def test_parquet_that_holds_its_images_is_read_by_any_machine(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [b"one", b"two", b"three"]
    table = pa.table({"image": images, "text": ["a fox", None, "a cat"], "seed": [1, 2, 3]})
    pq.write_table(table, tmp_path / "i.parquet", row_group_size=2)
    found, columns, _ = listed(str(tmp_path / "i.parquet"), Listing())
    given = list(found)
    assert [source.prompt for source in given] == ["a fox", None, "a cat"]
    assert (list(columns), [source.more["seed"] for source in given]) == (["seed"], [1, 2, 3])
    there = Partition.from_json(Partition("p", tuple(given)).to_json()).items
    assert [source.stored.read_bytes() for source in there if source.stored] == images
    (tmp_path / "i.parquet").unlink()
    assert there[2].stored is not None
    with pytest.raises(OSError, match=r"i\.parquet"):
        there[2].stored.read_bytes()
    pq.write_table(table, tmp_path / "i.parquet")
    with pytest.raises(UsageError, match="--frames all needs"):
        listed(str(tmp_path / "i.parquet"), Listing(each_frame=True))


def test_tar_shards_give_images_their_prompts(folder: Path, tmp_path: Path) -> None:
    image = (folder / "0.png").read_bytes()
    members = {"x/1.png": image, "x/1.txt": b"a ball\n", "2.json": b'{"caption": "a fox"}', "2.png": image}
    tar_of(tmp_path / "s-0.tar", members)
    tar_of(tmp_path / "s-1.tar", {"3.png": image, "3.cls": b"7", "../../4.png": b"bad"})
    (tmp_path / "s-2.tar").write_bytes(b"no tar" * 200)
    found = list(items_in(str(tmp_path / "s-*.tar")))
    assert [(Path(s.file).name, s.prompt) for s in found[:4]] == [
        *[("1.png", "a ball"), ("2.png", "a fox"), ("3.png", None), ("4.png", None)]
    ]
    assert found[4].problem is not None and "Expected a whole tar file" in found[4].problem
    assert found[0].stored is not None and found[0].stored.read_bytes() == image
    with pytest.raises(UsageError, match="got none: check the pattern"):
        items_in(str(tmp_path / "t-*.tar"))


@pytest.mark.parametrize("block", [b"\xff" * 512, bytes(512), None], ids=["junk", "zeros", "cut"])
def test_a_shard_that_is_damaged_at_a_later_header_says_so(tmp_path: Path, block: bytes | None) -> None:
    tar = tar_of(tmp_path / "s.tar", {f"{i}.png": b"p" * 600 for i in range(4)})
    assert [source.problem for source in items_in(str(tar))] == [None] * 4
    data, at = tar.read_bytes(), 2 * (512 + 1024)
    tar.write_bytes(data[:at] if block is None else data[:at] + block + data[at + 512 :])
    *good, damage = items_in(str(tar))
    assert [Path(source.file).name for source in good] == ["0.png", "1.png"]
    assert str(damage.problem).startswith(f"Expected a whole tar file, but {str(tar)!r} is damaged (")
    assert "at byte 3,072" in str(damage.problem)


@pytest.mark.parametrize("cut", [512 + 300, 512 + 1024 + 512 + 300], ids=["image", "prompt"])
def test_a_shard_that_is_cut_in_data_gives_its_last_image_too(tmp_path: Path, cut: int) -> None:
    tar = tar_of(tmp_path / "s.tar", {"0.png": b"p" * 600, "1.png": b"p" * 600, "1.txt": b"t" * 600})
    tar.write_bytes(tar.read_bytes()[: 512 + 1024 + cut])
    *good, damage = items_in(str(tar))
    assert [Path(source.file).name for source in good] == ["0.png", "1.png"]
    assert "unexpected end of data" in str(damage.problem)


def test_a_shard_may_end_in_one_block_of_zeros_or_be_empty(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "s.tar", {"0.png": b"p"})
    tar.write_bytes(tar.read_bytes()[: 3 * 512])
    assert [source.problem for source in items_in(str(tar))] == [None]
    assert list(items_in(str(tar_of(tmp_path / "none.tar", {})))) == []


def test_a_pattern_may_stand_in_a_folders_name(tmp_path: Path) -> None:
    for name in ("shards-1", "shards-0", "others"):
        (tmp_path / name).mkdir()
        tar_of(tmp_path / name / "a.tar", {"0.png": b"p"})
    found = [Path(source.file).relative_to(tmp_path) for source in items_in(str(tmp_path / "shards-*/a.tar"))]
    assert found == [Path("shards-0/a.tar/0.png"), Path("shards-1/a.tar/0.png")]


class Refused(Exception):
    """As storages' packages raise them: no OSError."""


def refuse(*args: Any, **options: Any) -> Any:
    raise Refused("403, message='Forbidden'")


def test_a_url_that_its_storage_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(DataError, match=r"Expected images at 'https://x/', but it cannot be listed .*403"):
        list(items_in("https://x/"))


def test_urls_are_listed_through_fsspec(folder: Path) -> None:
    found = list(items_in(f"file://{folder}"))
    assert len(found) == 7
    assert all(source.stored == RemoteImage(source.file) for source in found)


# --- one actor, without a cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(plain: Work) -> Worker:
    return Worker(replace(plain, sha256=scorer_sha256(load_scorer(plain))))


def test_an_actor_commits_a_part_once_and_as_score_would(worker: Worker, folder: Path, tmp_path: Path) -> None:
    image = (folder / "0.png").read_bytes()
    tar = tar_of(tmp_path / "s.tar", {"0.png": image})
    output = tmp_path / "out"
    output.mkdir()
    worker.work = replace(worker.work, output=str(output))
    gone = Item("gone", None, stored=RemoteImage(f"file://{folder}/gone.png"))
    both = (*items_in(str(folder)), *items_in(str(tar)), *items_in(f"file://{folder}/0.png"), gone)
    part = Partition.from_json(Partition("part-1.parquet", both).to_json())
    assert worker.score(part) == len(both)
    assert [path.name for path in output.iterdir()] == ["part-1.parquet"]
    rows = read_table(output / "part-1.parquet")
    args = ["score", str(folder), "--model", worker.work.model, *FP32, "-o", str(tmp_path / "s.csv")]
    assert CliRunner().invoke(cli.group, args).exit_code == 1
    for row, other in zip(rows[:7], read_table(tmp_path / "s.csv"), strict=True):
        assert row["file"] == other["file"] and row["reason"] == other["reason"]
        assert row["quality"] == pytest.approx(other["quality"], abs=2e-6)
    assert [row["quality"] for row in rows[7:9]] == pytest.approx([rows[0]["quality"]] * 2, abs=2e-6)
    assert "the file cannot be read (No such file or directory)" in str(rows[9]["reason"])
    before = (output / "part-1.parquet").stat().st_mtime_ns
    assert worker.score(part) == len(both)
    assert (output / "part-1.parquet").stat().st_mtime_ns == before


def test_an_actor_answers_controls_as_score_does(
    plain: Work, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "list.csv").write_text(
        "file,prompt,avoid,like\n0.png,a red fox,a bad photo,2.png\n1.png,a red fox,,none.png\n"
    )
    monkeypatch.chdir(folder)
    flags = ["--negative-from", "avoid", "--reference", "like", "--control", "edges:3.png"]
    args = ["score", "list.csv", "--model", plain.model, *FP32, "-o", str(tmp_path / "s.csv")]
    assert CliRunner().invoke(cli.group, [*args, *flags]).exit_code == 0
    found, names, _ = listed(str(folder / "list.csv"), Listing())
    part = Partition("part.parquet", tuple(found))
    controls = ControlSources(None, "avoid", "like", "edges:3.png", (Path(),)).with_full_names(names)
    work = replace(plain, output=str(tmp_path), controls=controls, listed=tuple(names))
    monkeypatch.chdir(tmp_path)  # as on another machine
    scorer = load_scorer(work)
    worker = Worker(replace(work, sha256=scorer_sha256(scorer), more=(("avoid", "text"), ("like", "text"))))
    assert worker.score(part) == 2
    answers = ["negative_prompt", "negative_match", "reference_coarse", "reference_fine", "edge_agreement"]
    want = read_table(tmp_path / "s.csv")
    for row, other in zip(read_table(tmp_path / "part.parquet"), want, strict=True):
        assert {name: row[name] for name in ("avoid", "like", *answers)} == {
            name: other[name] for name in ("avoid", "like", *answers)
        }
        assert row["reason"] == other["reason"]
        assert Path(str(row["control"])) == folder / "3.png"
    assert all(isinstance(want[0][name], float) for name in ("negative_match", "reference_fine"))
    assert "reference cannot be read" in str(want[1]["reason"])


def test_the_command_gives_controls_to_its_actors(
    small_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch, None)
    monkeypatch.chdir(folder)
    args = ["score-cluster", ".", "--model", str(small_model), "-o", str(tmp_path / "out.parquet"), *FP32]
    asked = ["--negative", "a bad photo", "--reference", "3.png"]
    result = CliRunner().invoke(cli.group, [*args, *asked])
    assert result.exit_code == 1, result.output + repr(result.exception)
    no_prompt, failed = result.stderr.splitlines()
    assert no_prompt.startswith("The 6 scored images have no prompt") and failed.startswith("1 row could not be scored")
    rows = [row for path in (tmp_path / "out.parquet").glob("*.parquet") for row in read_table(path)]
    assert len(rows) == 7
    for row in rows:
        assert (row["negative_prompt"], row["reference"]) == ("a bad photo", str(folder / "3.png"))
        assert isinstance(row["negative_match"], float) == isinstance(row["reference_fine"], float)
    assert sum(isinstance(row["negative_match"], float) for row in rows) == 6
    again = CliRunner().invoke(cli.group, [*args, "--negative", "a cat", "--reference", "3.png"])
    assert again.exit_code == 2 and "Expected controls" in again.stderr
    other = ["score-cluster", ".", "-o", str(tmp_path / "other"), "--reference", "3.png", "--granularity", "coarse"]
    result = CliRunner().invoke(cli.group, other)
    assert result.exit_code == 2 and "Expected granularity fine beside a reference image" in result.stderr
    assert not (tmp_path / "other").exists()  # refused before any actor starts


def test_an_image_that_its_storage_refuses_is_a_row(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsspec.open", refuse)
    worker.work = replace(worker.work, output=str(tmp_path))
    item = Item("a", None, stored=RemoteImage("https://x/a.png"))
    assert worker.score(Partition("part-1.parquet", (item,))) == 1
    (row,) = read_table(tmp_path / "part-1.parquet")
    assert row["status"] == "error"
    assert "the file cannot be read (403, message='Forbidden')" in str(row["reason"])


def test_an_image_at_a_url_is_fetched_once(
    plain: Work, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    opened, real = list[str](), fsspec.open

    def counted(url: str, mode: str) -> Any:
        opened.append(url)
        return real(url, mode)

    monkeypatch.setattr("fsspec.open", counted)
    controls = ControlSources(negative_from="metadata")
    worker = Worker(replace(plain, sha256=scorer_sha256(load_scorer(plain)), controls=controls, output=str(tmp_path)))
    items = tuple(items_in(f"file://{folder}"))
    assert worker.score(Partition("part-1.parquet", items)) == len(items)
    readable = [row["file"] for row in read_table(tmp_path / "part-1.parquet") if row["status"] == "ok"]
    assert readable and all(opened.count(url) == 1 for url in readable)


def run_here(monkeypatch: pytest.MonkeyPatch, worker: Worker | None) -> None:
    """Let ``run`` do its parts in this process, one after the other, without ray."""
    module = import_module("mst_clipiqa.distribute.run")

    def deal(ray: None, work: Work, todo: list[Partition], pool: Pool, advance: Any, say: Any) -> None:
        actor = worker or Worker(work)
        actor.work = work
        for part in todo:
            actor.score(part)

    for name, instead in {
        "need_ray": lambda: None,
        "_versions": dict,
        "connected": lambda ray, address, pool: nullcontext(),
        "lacking": lambda ray, pool: "",
        "deal": deal,
    }.items():
        monkeypatch.setattr(module, name, instead)


def test_equal_rows_are_all_there_and_stay(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch, worker)
    (tmp_path / "list.csv").write_text("file\n" + "gone.png\n" * 2)
    output = tmp_path / "out"
    job = ClusterJob(str(tmp_path / "list.csv"), output, replace(worker.work, output=str(output)), part_size=1)
    assert (run(job).rows, run(job).scored) == (2, 0)
    (tmp_path / "list.csv").write_text("file\n" + "gone.png\n" * 4)
    longer = run(job)
    assert (longer.rows, longer.scored, longer.parts) == (4, 2, 4)
    next(output.glob("*-2.parquet")).unlink()
    assert (run(job).rows, run(job).scored) == (4, 0)


def test_a_run_says_that_its_model_is_uncalibrated(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch, worker)
    (tmp_path / "list.csv").write_text("file\ngone.png\n")
    job = ClusterJob(str(tmp_path / "list.csv"), tmp_path / "out", replace(worker.work, output=str(tmp_path / "out")))
    said: list[str] = []
    run(job, say=said.append)
    assert said == []
    monkeypatch.setattr(ModelConfig, "calibrated", False)
    run(job, say=said.append)
    assert said == ["the model is uncalibrated, so its scores only order images."]


def test_prompts_intervals_and_cache_as_for_score(
    worker: Worker, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.csv").write_text("file,prompt\n0.png,a red fox\n")
    output = tmp_path / "out"
    work = replace(worker.work, output=str(output), intervals=True, cache=str(tmp_path / "cache"))
    run_here(monkeypatch, worker)
    monkeypatch.setattr(worker, "work", work)
    run(ClusterJob(str(folder), output, work, listing=Listing(prompts=tmp_path / "p.csv")))
    found = {Path(str(row["file"])).name: row for part in output.glob("*.parquet") for row in read_table(part)}
    assert [found[name]["prompt"] for name in ("0.png", "1.png")] == ["a red fox", None]
    assert found["0.png"]["quality_low"] is not None and found["1.png"]["correspondence"] is None
    assert load_scorer(work).encoder.cache is not None
    (one, *_) = listed(str(folder), Listing(prompt="a dog")).items
    assert one.prompt == "a dog"
    tar = tar_of(tmp_path / "s.tar", {"0.png": b"image"})
    assert [source.prompt for source in listed(str(tar), Listing(prompt="a fox")).items] == ["a fox"]
    for named in (folder, tar):
        with pytest.raises(UsageError, match="Expected one of --prompt"):
            listed(str(named), Listing(prompt="a dog", prompts=tmp_path / "p.csv"))


def test_rows_of_the_future_are_not_resumed(
    worker: Worker, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    work = replace(worker.work, output=str(output))
    run_here(monkeypatch, worker)
    monkeypatch.setattr(worker, "work", work)
    run(job := ClusterJob(str(folder), output, work))
    later = time.time_ns() + 3600 * 10**9
    os.utime(next(output.glob("*.parquet")), ns=(later, later))
    with pytest.raises(UsageError, match="written in the past, got a time in the future: check the clock, and wait"):
        run(job)


def test_columns_frames_and_sources_of_prompts_as_for_score(
    worker: Worker, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [draw(seed, 0.2, size=40) for seed in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "list.csv").write_text("where,seed,generator\nin/0.png,7,sd\nin/moving.gif,8,\n")
    run_here(monkeypatch, worker)
    output = tmp_path / "out"
    listing = Listing(columns=ListColumns("where"), each_frame=True, prompts_from="name")
    job = ClusterJob(
        str(tmp_path / "list.csv"), output, replace(worker.work, output=str(output)), part_size=1, listing=listing
    )
    assert run(job).rows == 4
    rows = sorted(read_scores(output), key=lambda row: (row["seed"], row["frame"] or 0))
    assert [(row["seed"], row["frame"], row["generator"]) for row in rows] == [
        *[(7, None, "sd"), (8, 1, None), (8, 2, None), (8, 3, None)]
    ]
    assert [row["prompt"] for row in rows[:2]] == [None, "moving"]  # a number is no prompt
    next(output.glob("part-*.parquet")).unlink()
    assert (run(job).scored, run(job).rows) == (1, 4)  # only the row that is gone, whichever frame it was
    (tmp_path / "list.csv").write_text("where,seed,generator\nin/0.png,seven,sd\nin/1.png,eight,\n")
    with pytest.raises(
        UsageError, match=r"Expected values of column 'seed' as in the parts that exist \(whole\), got text"
    ):
        run(job)
    tar = tar_of(tmp_path / "s.tar", {"0.png": b"image"})
    with pytest.raises(UsageError, match="--prompts-from needs a folder, an image or a list, got"):
        listed(str(tar), Listing(prompts_from="name"))


def test_an_actor_with_another_model_does_not_start(plain: Work) -> None:
    with pytest.raises(ModelError, match="Expected the model aaa on every machine, got"):
        Worker(replace(plain, sha256="aaa"))


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_it_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.group, ["score-cluster", str(folder), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert 'pip install "mst-clipiqa[ray]"' in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_not_every_machine_sees_is_refused(folder: Path) -> None:
    result = CliRunner().invoke(cli.group, ["score-cluster", str(folder), "-o", "s3://bucket/out"])
    assert result.exit_code == 2
    assert "Expected a folder that every machine sees, got 's3://bucket/out'" in result.stderr


def test_what_stops_an_actor_reaches_the_driver_in_words(worker: Worker, folder: Path, tmp_path: Path) -> None:
    part = Partition("part-1.parquet", tuple(items_in(str(folder))))
    batch = {"part": [part.to_json()]}
    other = Actor(on_no_gpu(worker.work))
    told = f"On {platform.node()}: Expected a device that this machine has, got 'cuda:99': use --device auto."
    assert other(batch) == {"rows": [0], "problem": [told], "warning": [""]}
    actor = Actor(replace(worker.work, output=str(tmp_path / "gone")))
    (problem,) = actor(batch)["problem"]
    assert "Expected a folder that parts can be written to, got" in problem and "No such file" in problem
    (tmp_path / "gone").mkdir()
    assert actor(batch)["problem"] == [problem]  # it does not go on as if nothing had been
    assert Actor(replace(worker.work, output=str(tmp_path)))(batch) == {"rows": [7], "problem": [""], "warning": [""]}


def test_an_actor_goes_on_without_its_cache_and_says_so(worker: Worker, folder: Path, tmp_path: Path) -> None:
    part = Partition("part-1.parquet", tuple(items_in(str(folder))))
    actor = Actor(replace(worker.work, output=str(tmp_path), cache=str(tmp_path / "cache")))
    with Cache(tmp_path / "cache") as cache, cache.writing() as db:
        db.execute("DROP TABLE images")
    found = actor({"part": [part.to_json()]})
    assert (found["rows"], found["problem"]) == ([7], [""])
    (warning,) = found["warning"]
    assert warning.startswith(f"On {platform.node()}: Expected a whole cache, got a damaged one (no such table: images")
    assert warning.endswith(
        ": delete '%s', and its images will be encoded again. Until the next start, features are "
        "not cached." % (tmp_path / "cache" / "features.sqlite")
    )


@pytest.mark.parametrize("gpus", [math.nan, math.inf, -1.0, 1.5])
def test_gpus_that_ray_cannot_give_are_refused(gpus: float) -> None:
    with pytest.raises(UsageError, match="Expected a whole number of GPUs per actor, or a fraction of one, got"):
        Pool(1, gpus, 1)


class FakeRay:
    """A cluster, as far as ``connected`` and ``lacking`` look at it."""

    def __init__(self, *machines: dict[str, float]) -> None:
        self.machines = [{"Alive": True, "Resources": resources} for resources in machines]
        self.is_up = False
        self.nodes = lambda: self.machines
        self.is_initialized = lambda: self.is_up

    def init(self, **how: Any) -> None:
        if how["address"] == "nowhere":
            raise ConnectionError("nobody answers")
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False


def test_a_cluster_without_room_for_an_actor_is_named() -> None:
    ray = FakeRay({"CPU": 4}, {"CPU": 2, "GPU": 1})
    assert lacking(ray, Pool(9, 0.5, 0)) == "" and lacking(ray, Pool(9, 0, 4)) == ""
    assert lacking(ray, Pool(1, 2, 0)) == "2 GPUs" and lacking(ray, Pool(1, 0, 8)) == "8 CPUs"
    ray.machines[1]["Alive"] = False
    assert lacking(ray, Pool(1, 1, 0)) == "1 GPU"


def test_this_machine_is_refused_without_the_gpus_of_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = FakeRay({"CPU": 4})
    with connected(ray, "auto", Pool(1, 0.5, 0)):  # a machine with one may join
        assert ray.is_up
    for address, said in (
        ("local", r"Expected enough GPUs on this machine for an actor \(0.5\), got fewer"),
        ("nowhere", "Expected a Ray cluster at 'nowhere', got none .'nobody answers'.: check --address"),
    ):
        with pytest.raises(UsageError, match=said), connected(ray, address, Pool(1, 0.5, 0)):
            pytest.fail("no actor can start")
        assert not ray.is_up


def test_outputs_that_are_inputs_or_other_tables_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,prompt\n0.png,a ball\n")
    (tmp_path / "link").symlink_to(folder)
    for output, said in (
        (folder, "Expected an output other than the input for -o, got"),
        (tmp_path / "link", "Expected an output other than the input for -o, got"),
        (folder / "metadata.csv", "got the name of another kind of table, "),
        (tmp_path / "out.jsonl", "name it out.parquet."),
        ("", "expected a name, got an empty one"),
    ):
        result = CliRunner().invoke(cli.group, ["score-cluster", str(folder), "-o", str(output)])
        assert result.exit_code == 2 and said in result.stderr
    assert (folder / "metadata.csv").read_text() == "file_name,prompt\n0.png,a ball\n"
    assert not list(folder.glob("*.parquet")) and not (tmp_path / "out.jsonl").exists()


def test_the_command_notes_what_score_notes(
    small_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(monkeypatch, None)
    args = [str(folder), "--model", str(small_model), *FP32]
    for more in ([], ["--prompts", str(tmp_path / "p.csv")], ["--prompt", "a fox"]):
        (tmp_path / "p.csv").write_text("file,prompt\n0.png,a red fox\nnone.png,a cat\n")
        output = tmp_path / f"out{len(more)}{more[:1]}.parquet"
        wanted = CliRunner().invoke(cli.group, ["score", *args, *more, "-o", str(tmp_path / "s.csv")])
        found = CliRunner().invoke(cli.group, ["score-cluster", *args, *more, "-o", str(output)])
        assert (found.exit_code, found.stderr) == (wanted.exit_code, wanted.stderr)
        assert ("no prompt" in found.stderr) == ("--prompt" not in more)


def test_ctrl_c_says_how_to_go_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mst_clipiqa.distribute.run", interrupt)
    result = CliRunner().invoke(cli.group, ["score-cluster", str(folder), "-o", str(tmp_path / "out"), "--quiet"])
    assert result.exit_code == 130
    assert result.stderr == "Stopped. Repeat the command to continue: finished parts are kept.\n"


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_runs_on_ray_and_a_rerun_here(
    plain: Work, worker: Worker, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs share a cluster, and the rerun needs none: to start a cluster or an actor takes seconds."""
    ray, output = need_ray(), tmp_path / "out.parquet"
    job = ClusterJob(str(folder), output, replace(plain, output=str(output)), part_size=3)
    asked = list[tuple[str, Pool]]()

    def joined(ray: Any, address: str, pool: Pool) -> Any:
        asked.append((address, pool))
        return connected(ray, address, pool)

    with monkeypatch.context() as patch, connected(ray, "local", Pool(1, 0, 1)):
        patch.setattr(import_module("mst_clipiqa.distribute.run"), "connected", joined)
        with pytest.raises(UsageError, match="Expected a device that this machine has, got 'cuda:99'"):
            run(replace(job, work=on_no_gpu(job.work)))
        first = run(job)  # nothing binds it to the failed run
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert asked == [("local", Pool(1, 0, 1))] * 2
    assert (first.rows, first.failed, first.scored, first.parts) == (7, 1, 7, 3)

    run_here(monkeypatch, worker)
    next(output.glob("*.parquet")).unlink()
    again = run(job)
    assert again.rows == 7 and 0 < again.scored <= 3
    assert run(job).scored == 0
    manifest = json.loads((output / RUN_MANIFEST).read_text())
    assert manifest["state"] == "complete" and manifest["rows"] == 7 and len(manifest["runs"]) == 3
    # not "remove the file": parts without a manifest are refused
    with pytest.raises(UsageError, match=r"precision 'fp32' as in .*, got 'bf16': use the .*, or name another output"):
        run(replace(job, work=replace(job.work, options=replace(plain.options, precision="bf16"))))
