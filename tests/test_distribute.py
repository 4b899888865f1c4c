"""Scoring on a cluster: the plan needs no ray and is tested anywhere; the run is tested where ray is installed."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_clipiqa import cli
from mst_clipiqa.distribute import MANIFEST, Job, run
from mst_clipiqa.distribute.plan import Part, Source, parts, row_key, sources
from mst_clipiqa.distribute.worker import Work, Worker
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.tables import TableWriter, read_table

HAS_RAY = find_spec("ray") is not None
WORK = Work("", "mini", None, "cpu", "fp32", 8, 1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        draw(i, i / 6, size=40).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no picture")
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
    first = [Source(file, file, prompt) for file, prompt in files]
    begun = list(parts(first, size, Counter()))
    assert [source for part in begun for source in part.sources] == first
    assert begun == list(parts(first, size, Counter()))  # the same sources, the same names
    kept = [part for i, part in enumerate(begun) if i not in dead]
    done = Counter(source.key for part in kept for source in part.sources)
    all_of_them = first + [Source(file, file, prompt) for file, prompt in more]
    again = list(parts(all_of_them, size, done))
    rows = Counter(source.key for part in [*kept, *again] for source in part.sources)
    assert rows == Counter(source.key for source in all_of_them)


def test_keys_are_of_file_and_prompt_and_the_same_everywhere() -> None:
    keys = [row_key(*pair) for pair in (("a", None), ("a", ""), ("a", "x"), ("ax", None), ("\udce9", "\ud800"))]
    assert len(set(keys)) == 5
    assert row_key("a", "x") == 184547133723414059614124502592855433891


def test_a_part_travels_as_text() -> None:
    part = Part(
        "p", (Source("a\udce9", "/a\udce9", "x", None, (512, 7)), Source("b", None, problem="gone", is_url=True))
    )
    assert Part.from_json(part.to_json()) == part


def test_folders_lists_and_parquet_name_the_same_files(folder: Path, tmp_path: Path) -> None:
    named = list(sources(str(folder)))
    assert [Path(source.file).name for source in named] == [*(f"{i}.png" for i in range(6)), "bad.png"]
    (tmp_path / "list.csv").write_text("file,prompt\nin/0.png,a ball\n")
    with TableWriter(tmp_path / "list.parquet", ["image", "text"]) as table:
        table.append({"image": "in/0.png", "text": "a ball"})
        table.append({"image": None})
    (listed,) = sources(str(tmp_path / "list.csv"))
    one, none = sources(str(tmp_path / "list.parquet"))
    assert one.prompt == listed.prompt == "a ball"
    assert Path(str(one.path)).samefile(str(listed.path))
    assert none.problem == "Expected a file in each row, got none."


def test_tar_shards_give_pictures_their_prompts(folder: Path, tmp_path: Path) -> None:
    picture = (folder / "0.png").read_bytes()
    members = {"x/1.png": picture, "x/1.txt": b"a ball\n", "2.json": b'{"caption": "a fox"}', "2.png": picture}
    tar_of(tmp_path / "s-0.tar", members)
    tar_of(tmp_path / "s-1.tar", {"3.png": picture, "3.cls": b"7", "../../4.png": b"bad"})
    (tmp_path / "s-2.tar").write_bytes(b"no tar" * 200)
    found = list(sources(str(tmp_path / "s-*.tar")))
    assert [(Path(s.file).name, s.prompt) for s in found[:4]] == [
        *[("1.png", "a ball"), ("2.png", "a fox"), ("3.png", None), ("4.png", None)]
    ]
    assert found[4].problem is not None and "Expected a whole tar file" in found[4].problem
    at, length = found[0].at or (0, 0)
    assert (tmp_path / "s-0.tar").read_bytes()[at : at + length] == picture
    with pytest.raises(UsageError, match="got none: check the pattern"):
        sources(str(tmp_path / "t-*.tar"))


def test_urls_are_listed_through_fsspec(folder: Path) -> None:
    found = list(sources(f"file://{folder}"))
    assert len(found) == 7
    assert all(source.is_url and source.path for source in found)


# --- one actor, without a cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker() -> Worker:
    from mst_clipiqa.distribute.worker import load, sha256

    return Worker(replace(WORK, sha256=sha256(load(WORK))))


def test_an_actor_commits_a_part_once_and_as_score_would(worker: Worker, folder: Path, tmp_path: Path) -> None:
    picture = (folder / "0.png").read_bytes()
    tar = tar_of(tmp_path / "s.tar", {"0.png": picture})
    output = tmp_path / "out"
    output.mkdir()
    worker.work = replace(worker.work, output=str(output))
    gone = Source("gone", f"file://{folder}/gone.png", is_url=True)
    both = (*sources(str(folder)), *sources(str(tar)), *sources(f"file://{folder}/0.png"), gone)
    batch = {"part": [Part("part-1.parquet", both).to_json()]}
    assert worker(batch)["rows"] == [len(both)]
    assert [path.name for path in output.iterdir()] == ["part-1.parquet"]
    rows = read_table(output / "part-1.parquet")
    args = ["score", str(folder), "--quiet", "--device", "cpu", "--precision", "fp32", "-o", str(tmp_path / "s.csv")]
    assert CliRunner().invoke(cli.group, args).exit_code == 1
    for row, other in zip(rows[:7], read_table(tmp_path / "s.csv"), strict=True):
        assert row["file"] == other["file"] and row["reason"] == other["reason"]
        assert row["quality"] == pytest.approx(other["quality"], abs=1e-4)
    assert [row["quality"] for row in rows[7:9]] == pytest.approx([rows[0]["quality"]] * 2, abs=1e-4)
    assert "it cannot be read (No such file or directory)" in str(rows[9]["reason"])
    before = (output / "part-1.parquet").stat().st_mtime_ns
    assert worker(batch)["rows"] == [len(both)]
    assert (output / "part-1.parquet").stat().st_mtime_ns == before


def test_an_actor_with_another_model_does_not_start() -> None:
    with pytest.raises(ModelError, match="Expected the model aaa on every machine, got"):
        Worker(replace(WORK, sha256="aaa"))


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


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'mst-clipiqa[ray]'")
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_a_rerun_does_what_is_missing_and_refuses_another_model(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    job = Job(str(folder), output, replace(WORK, output=str(output)), part=3)
    first = run(job)
    assert (first.rows, first.failed, first.scored, first.parts) == (7, 1, 7, 3)
    next(output.glob("*.parquet")).unlink()
    again = run(job)
    assert again.rows == 7 and 0 < again.scored <= 3
    assert run(job).scored == 0
    manifest = json.loads((output / MANIFEST).read_text())
    assert manifest["state"] == "complete" and manifest["rows"] == 7 and len(manifest["runs"]) == 3
    with pytest.raises(UsageError, match=r"Expected precision 'fp32' as in .*, got 'bf16'"):
        run(replace(job, work=replace(job.work, precision="bf16")))
