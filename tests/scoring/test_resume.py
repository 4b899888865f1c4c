"""A long run that is stopped, killed or out of disk space resumes: every row once, none out of date."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import signal
import sqlite3
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from mst_clipiqa import cli
from mst_clipiqa.cli.commands import score as command
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.resume import STAMP, Earlier, refuse_unfinished
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.scoring.stop import Stop, Stopped
from mst_clipiqa.tables import journal as journal_module
from mst_clipiqa.tables.journal import Journal, has_rows, journal_of, origin_of
from mst_clipiqa.tables.reading import read_table
from mst_clipiqa.tables.stamps import stamp_of
from mst_clipiqa.tables.table import TableWriter
from speed import kill_score
from tests.fakes import FakePair, draw
from tests.forked import answer
from tests.serving import png
from tests.unfinished import unfinished_rows

BATCH = 4
FORMATS = ["csv", "jsonl", "parquet"]


class Watched(FakePair):
    """Calls a hook before it encodes a batch."""

    hook: Callable[[int], None] | None = None

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        if self.hook and stream == "coarse":
            self.hook(self.images)
        return super().encode_chunk(stream, views)


@pytest.fixture(autouse=True)
def cores(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 1))  # with one core, one batch at a time
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Watched:
    pair = Watched()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=BATCH))
    monkeypatch.setattr(command, "load_scorer", lambda flags: scorer)
    return pair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(22):
        draw(i, i / 22, size=33).save(folder / f"{i}.png")
    (folder / "5.png").write_bytes(b"no image")
    lines = [f"{i}.png,a thing number {i}\n" for i in range(22)]
    (folder / "metadata.csv").write_text("file_name,prompt\n" + "".join(lines))
    return folder


def run(folder: Path, output: Path, *flags: str) -> Result:
    args = ["score", str(folder), "-o", str(output), "--batch-size", str(BATCH), "--quiet", *flags]
    return CliRunner().invoke(cli.group, args)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def killed_at(pair: Watched, count: int) -> None:
    """Let the run end without a word once ``count`` images are encoded."""

    def hook(images: int) -> None:
        if images >= count:
            raise MemoryError

    pair.images, pair.hook = 0, hook


def change(folder: Path) -> None:
    """Add, remove and change files and prompts, as people do between two runs."""
    draw(99, 0.5).save(folder / "0a.png")
    draw(98, 0.5).save(folder / "99.png")
    (folder / "2.png").unlink()
    draw(97, 0.9, size=40).save(folder / "3.png")
    (folder / "metadata.csv").write_text((folder / "metadata.csv").read_text().replace("number 7", "of another kind"))


@pytest.mark.parametrize("kind", FORMATS)
def test_it_goes_on_though_the_files_have_changed(kind: str, pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / f"scores.{kind}"
    killed_at(pair, 11)
    assert isinstance(run(folder, output).exception, MemoryError)
    assert len(unfinished_rows(output)) == 3 * BATCH
    change(folder)
    pair.images, pair.hook = 0, None
    again = run(folder, output, "--resume")
    assert again.exit_code == 1  # one file is no image
    assert "Resuming after 12 rows of earlier runs." in again.stderr
    # 0, 0a, 1, 3 | 4, 5 (no image), 6, 7 | 8, 9, 10, 11 | 11 more: only the third batch is known as a whole.
    assert pair.images == 4 + 3 + 11
    assert names(tmp_path) == [output.name]
    whole = tmp_path / f"whole.{kind}"
    run(folder, whole)
    assert close(read_table(output), read_table(whole))


def close(some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> bool:
    """Whether two tables are equal but for what rounding does in batches of other images."""
    return len(some) == len(others) and all(
        value == pytest.approx(other[name], abs=2e-6) if isinstance(value, float) else value == other[name]
        for one, other in zip(some, others, strict=True)
        for name, value in one.items()
    )


def test_killed_again_and_again_at_any_row(
    pair: Watched, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path / "whole.csv")
    dice, output, append, kills = random.Random(7), tmp_path / "scores.csv", Journal.append, 0
    for _ in range(12):
        left = dice.randrange(30)

        def dying(self: Journal, row: Sequence[Any]) -> None:
            nonlocal left, kills
            if left == 0:
                kills += 1
                raise MemoryError
            left -= 1
            append(self, row)

        monkeypatch.setattr(Journal, "append", dying)  # also while earlier rows are copied
        result = run(folder, output, "--resume")
        assert isinstance(result.exception, MemoryError | SystemExit)
        if not isinstance(result.exception, MemoryError):
            assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
            output.unlink()
    monkeypatch.undo()
    assert kills > 5


def test_what_lay_there_before_is_replaced_only_by_a_whole_table(folder: Path, tmp_path: Path, pair: Watched) -> None:
    output = tmp_path / "scores.csv"
    output.write_text("the table before")
    killed_at(pair, 7)
    run(folder, output)
    assert output.read_text() == "the table before"


def test_another_model_or_option_is_refused_by_name(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    killed_at(pair, 7)
    run(folder, output)
    before = journal_of(output).read_bytes()
    pair.hook = None
    other = run(folder, output, "--resume", "--intervals")
    assert other.exit_code == 2
    assert f"Expected --intervals 'False' as in '{output}.part', got 'True'" in other.stderr
    smaller = run(folder, output, "--resume", "--max-megapixels", "0.5").stderr
    assert f"Expected --max-megapixels '178.957' as in '{output}.part', got '0.5'" in smaller
    assert "use the settings of that run, or remove the file to start anew." in other.stderr
    assert "Expected --fast-decode 'False' as in" in run(folder, output, "--resume", "--fast-decode").stderr
    pair.precision = "bf16"
    assert f"Expected precision 'fp32' as in '{output}.part', got 'bf16'" in run(folder, output, "--resume").stderr
    pair.precision, pair.sha256 = "fp32", "e" * 64
    assert "Expected encoders sha256 'ffff" in run(folder, output, "--resume").stderr
    pair.sha256 = "f" * 64
    assert journal_of(output).read_bytes() == before
    assert run(folder, output, "--resume").exit_code == 1


def test_a_finished_table_leaves_nothing_to_resume(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    run(folder, output)
    before, pair.images = output.read_bytes(), 0
    result = run(folder, output, "--resume")
    assert (result.exit_code, result.stderr) == (
        1,  # as a row failed
        f"Nothing is left to do: '{output}' is finished, with this model and these columns. Omit --resume to "
        "score its images again, as with other settings, which a table does not record.\n",
    )
    assert (output.read_bytes(), pair.images) == (before, 0)


@pytest.mark.parametrize(("broken", "code"), [(None, 0), ("0.png", 1)])
def test_a_finished_table_is_answered_as_its_run_was(
    broken: str | None, code: int, pair: Watched, folder: Path, tmp_path: Path
) -> None:
    draw(5, 0.2, size=33).save(folder / "5.png")
    if broken:
        (folder / broken).write_bytes(b"no image")
    output = tmp_path / "scores.csv"
    assert [run(folder, output, *flags).exit_code for flags in ([], ["--resume"])] == [code, code]


def test_a_table_without_models_is_no_run_to_resume(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    output.write_text("file,quality\n0.png,3\n")
    result = run(folder, output, "--resume")
    assert result.exit_code == 2
    assert f"Expected columns 'file, quality' as in '{output}'" in result.stderr


def test_a_finished_table_is_no_answer_for_images_made_since(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    run(folder, output)
    before, written = output.read_bytes(), output.stat().st_mtime_ns
    for name in ("3.png", "5.png"):  # the second has failed
        draw(9, 0.2).save(folder / name)
        os.utime(folder / name, ns=(written, written + 10**9))
    refused = run(folder, output, "--resume")
    assert refused.exit_code == 2
    assert f"Expected images older than '{output}', which is finished, got 2 newer ones (the first: " in refused.stderr
    assert "3.png'): omit --resume to score all of them." in refused.stderr
    assert output.read_bytes() == before


def test_images_added_to_a_finished_table_are_all_that_is_computed_if_a_cache_was_used(
    pair: Watched, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache(tmp_path / "cache") as cache:
        scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=BATCH, cache=cache))
        monkeypatch.setattr(command, "load_scorer", lambda flags: scorer)
        output = tmp_path / "scores.csv"
        run(folder, output)
        draw(99, 0.5).save(folder / "99.png")
        refused = run(folder, output, "--resume").stderr
        assert "99.png'): omit --resume to score all images; those in the --cache of earlier runs are" in refused
        pair.images = 0
        run(folder, output)
        assert (pair.images, len(read_table(output))) == (1, 23)


def test_an_image_of_the_second_in_which_its_table_was_written_may_be_newer(
    pair: Watched, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    run(folder, output)
    second = 10**9
    draw(9, 0.2).save(folder / "3.png")
    for changed, code in ((10 * second, 2), (10 * second + 1, 1), (8 * second, 1)):
        os.utime(output, ns=(0, 10 * second + second // 2))
        os.utime(folder / "3.png", ns=(0, changed))
        for path in folder.glob("*"):
            if path.name != "3.png":
                os.utime(path, ns=(0, 5 * second), follow_symlinks=False)
        assert run(folder, output, "--resume").exit_code == code


def test_times_in_the_future_are_no_answer_and_are_said(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    run(folder, output)
    later = time.time_ns() + 3600 * 10**9
    os.utime(folder / "3.png", ns=(later, later))
    refused = run(folder, output, "--resume")
    assert refused.exit_code == 2
    assert "3.png'): correct their times, of which one is in the future, and omit --resume to score" in refused.stderr
    os.utime(output, ns=(later + 1, later + 1))
    refused = run(folder, output, "--resume")
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"Error: Expected '{output}' to have been written in the past, got a time in the future: check the clock, and "
        "wait until then or omit --resume to score all images.\n",
    )


def test_an_unfinished_run_over_a_finished_table_goes_on(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    run(folder, output)
    killed_at(pair, 7)
    run(folder, output)
    pair.hook = None
    assert "Resuming after 8 rows of earlier runs." in run(folder, output, "--resume").stderr
    assert not journal_of(output).exists()


def test_rows_of_images_without_a_state_are_kept_only_if_they_failed(tmp_path: Path) -> None:
    states = [("a", "ok", None), ("b", "error", None), ("c", "ok", "1-2")]
    key = ("file", "prompt", STAMP)
    with TableWriter(tmp_path / "t.csv", ["file", "prompt", "status"], hidden=[STAMP], key=key) as table:
        for file, status, stamp in states:
            table.append({"file": file, "status": status, STAMP: stamp})
        earlier = Earlier(table)
        assert len(earlier) == 3
        found = [earlier.find(file, None, stamp) for file, _, stamp in (*states, ("c", "ok", None))]
        assert [row and row["file"] for row in found] == [None, "b", "c", None]


def test_a_file_of_the_same_size_has_another_state(tmp_path: Path) -> None:
    path, found = tmp_path / "a.png", set()
    for seconds in (1, 2):
        path.write_bytes(b"12")
        os.utime(path, (seconds, seconds))
        found.add(stamp_of(str(path)))
    assert len(found) == 2


def test_rows_of_the_runs_before_the_last_are_not_thrown_away(tmp_path: Path) -> None:
    with closing(Journal(part := journal_of(tmp_path / "t.csv"), ["file"], key=["file"])) as journal:
        assert journal.set_aside() == 0
        journal.append(["a"])
        assert journal.set_aside() == 1
    assert has_rows(part)
    with pytest.raises(UsageError, match=r"continue with --resume, or remove it to start anew"):
        refuse_unfinished(tmp_path / "t.csv")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_finished_table_of_other_settings_is_refused(
    kind: str, pair: Watched, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / f"scores.{kind}"
    (folder / "6.png").rename(folder / "=6\udce9'.png")  # a name that a table cannot hold as it is
    run(folder, output)
    before = output.read_bytes()
    assert run(folder, output, "--resume").exit_code == 1
    for flag in ("--intervals", "--keep-metadata"):
        assert "Error: Expected columns 'file, prompt, quality" in run(folder, output, "--resume", flag).stderr
    refused = run(folder, output, "--resume", "--prompt", "another")
    assert "got none for 22 (the first: " in refused.stderr
    change(folder)
    refused = run(folder, output, "--resume")
    assert (refused.exit_code, output.read_bytes()) == (2, before)
    assert "got none for 3 (the first: " in refused.stderr  # two more images and another prompt
    model = zero_shot_model(pair)
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, name="another"))
    monkeypatch.setattr(command, "load_scorer", lambda flags: Scorer(model, ImageEncoder(pair, batch_size=BATCH)))
    assert f"Expected model 'zero-shot:fake (uncalibrated)' as in '{output}', got 'another'" in (
        run(folder, output, "--resume").stderr
    )


def test_unfinished_rows_are_not_thrown_away(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    killed_at(pair, 7)
    run(folder, output)
    refused = run(folder, output)
    assert refused.exit_code == 2
    assert f"got '{output}.part': continue with --resume, or remove it to start anew." in refused.stderr
    with closing(Journal(journal_of(output), list(unfinished_rows(output)[0]), resume=True)) as journal:
        assert "got another run: wait" in run(folder, output).stderr
        assert "got another run: wait" in run(folder, output, "--resume").stderr
        assert journal.rows == 2 * BATCH
    journal_of(output).unlink()
    pair.hook = None
    assert run(folder, output).exit_code == 1


def test_what_failed_is_tried_again(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output, good = tmp_path / "scores.csv", (folder / "4.png").read_bytes()
    bad, info = folder / "5.png", (folder / "5.png").stat()
    bad.write_bytes(b"?" * len(good))
    os.utime(bad, ns=(info.st_atime_ns, info.st_mtime_ns))
    killed_at(pair, 11)
    run(folder, output)
    bad.write_bytes(good)
    os.utime(bad, ns=(info.st_atime_ns, info.st_mtime_ns))  # of the same size and time
    pair.hook = None
    assert run(folder, output, "--resume").exit_code == 0


def test_images_of_one_name_in_a_tar_keep_their_own_rows(pair: Watched, tmp_path: Path) -> None:
    path, output, whole = tmp_path / "s.tar", tmp_path / "scores.csv", tmp_path / "whole.csv"
    with tarfile.open(path, "w") as tar:
        for seed in range(2 * BATCH):
            info, data = tarfile.TarInfo("a.png"), png(seed, seed / 8)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    killed_at(pair, BATCH)
    assert isinstance(run(path, output).exception, MemoryError)
    assert len(unfinished_rows(output)) == BATCH
    pair.hook = None
    run(path, output, "--resume")
    run(path, whole)
    assert read_table(output) == read_table(whole)
    assert len({row["quality"] for row in read_table(whole)}) == 2 * BATCH


def test_a_file_named_twice_has_two_rows(pair: Watched, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file\n" + "images/1.png\n" * 9)
    output = tmp_path / "scores.csv"
    killed_at(pair, 4)
    run(tmp_path / "list.csv", output)
    pair.images, pair.hook = 0, None
    assert run(tmp_path / "list.csv", output, "--resume").exit_code == 0
    assert pair.images == 0
    assert len(output.read_text().splitlines()) == 10


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "words"), [(1, "1 row is written."), (2, "2 rows are written.")])
def test_a_stop_counts_the_rows(every: int, words: str) -> None:
    with pytest.raises(Stopped, match=re.escape(words)):
        list(Stop(asked=signal.SIGINT).between("abc", every))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_batch_finish(
    number: signal.Signals, code: int, pair: Watched, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores.csv"
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    pair.hook = lambda images: os.kill(os.getpid(), number) if images >= 7 else None
    stopped = run(folder, output)
    assert stopped.exit_code == code
    assert stopped.stderr == "Stopped. Repeat the command with --resume to continue. 12 rows are written.\n"
    assert len(unfinished_rows(output)) == 12
    assert signal.getsignal(signal.SIGINT) is before
    pair.hook = None
    assert run(folder, output, "--resume").exit_code == 1
    run(folder, tmp_path / "whole.csv")
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("cores", [2], indirect=True)
def test_what_two_batches_at_once_leave_is_resumed(pair: Watched, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"

    def once(images: int) -> None:
        if images >= 7:
            pair.hook = None
            os.kill(os.getpid(), signal.SIGINT)

    pair.hook = once
    assert run(folder, output).exit_code == 130
    written = [row["file"] for row in unfinished_rows(output)]
    run(folder, tmp_path / "whole.csv")
    whole = [row["file"] for row in read_table(tmp_path / "whole.csv")]
    assert 0 < len(written) < 22
    assert written == whole[: len(written)]
    pair.images = 0
    assert run(folder, output, "--resume").exit_code == 1
    assert pair.images <= 22 - len(written)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_second_signal_breaks_in(pair: Watched, folder: Path, tmp_path: Path) -> None:
    def twice(images: int) -> None:
        if images >= 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    pair.hook = twice
    stopped = run(folder, tmp_path / "scores.csv")
    assert stopped.exit_code == 130
    assert "Interrupted." in stopped.stderr
    assert len(unfinished_rows(tmp_path / "scores.csv")) == 8


# --- disks --------------------------------------------------------------------------------------------------------


journal_open = journal_module._open


def small(db: sqlite3.Connection) -> sqlite3.Connection:
    """Let a file grow to 24 KiB at most."""
    db.execute("PRAGMA max_page_count=6")
    return db


def test_a_full_disk_is_said_and_gone_on_from(
    pair: Watched, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_open", lambda path: small(journal_open(path)))
        stopped = run(folder, output)
    assert stopped.exit_code == 2
    assert "got database or disk is full: free some space" in stopped.stderr
    assert "kept for --resume" in stopped.stderr
    kept = len(unfinished_rows(output))
    assert kept > 3
    assert run(folder, output, "--resume").exit_code == 1
    run(folder, tmp_path / "whole.csv")
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_pipe_of_the_journals_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scores.csv.part")
    assert origin_of(tmp_path / "scores.csv.part") is None


@pytest.mark.usefixtures("pair")
def test_resume_needs_an_output_and_may_start_at_nothing(folder: Path, tmp_path: Path) -> None:
    nothing = CliRunner().invoke(cli.group, ["score", str(folder), "--resume"])
    assert nothing.exit_code == 2
    assert "--resume needs -o: name the file of the run to resume." in nothing.stderr
    assert run(folder, tmp_path / "scores.csv", "--resume").exit_code == 1


def test_sigkill_at_random_moments_of_the_real_command(small_model: Path, tmp_path: Path) -> None:
    size = ["--kills", "3", "--images", "40", "--formats", "csv"]
    code, said = answer(kill_score.main, *size, "--folder", str(tmp_path), "--model", str(small_model))
    assert code == 0, said
    (result,) = [json.loads(line) for line in said.splitlines()]
    assert result["kills"] == 3
    assert result["equal"] is True
    assert result["rows"] == 40
