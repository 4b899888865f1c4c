"""The commands over scores as a person calls them: tables, pipes, folders, exit codes, nothing without --yes."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mst_clipiqa import cli
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.scoring import score_rows as rows_module
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.scoring.score_rows import ScoreRow, to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.reading import read_table
from mst_clipiqa.tables.table import TableWriter

COLUMNS = [
    "file",
    "prompt",
    "quality",
    "correspondence",
    "gate",
    "familiarity",
    "status",
    "reason",
    "width",
    "height",
    "model",
]
SCORES = {"quality": 2.3456, "correspondence": 3.4567}
ROWS = [
    ("in/a.png", "cat", 2.0, 4.0, "ok", None),
    ("in/b.png", "cat", 3.0, 1.0, "ok", None),
    ("in/ü.png", "dog", 3.5, 3.0, "ok", None),
    ("in/broken.png", "dog", None, None, "error", "Expected an image, got an empty file: make it again."),
]


def call(*args: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(cli.group, [str(arg) for arg in args], input=stdin)


def table(path: Path, rows: Iterable[tuple[Any, ...]] = ROWS, **more: Any) -> Path:
    with TableWriter(path, list(dict.fromkeys([*COLUMNS, *more]))) as writer:
        for file, prompt, quality, correspondence, status, reason in rows:
            scores = {"file": file, "prompt": prompt, "quality": quality, "correspondence": correspondence}
            rest = {"status": status, "reason": reason, "width": 8, "height": 8, "model": "mini"}
            writer.append({**scores, **rest, **more})
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for file, *_ in ROWS:
        Path(file).write_bytes(file.encode())
    table(tmp_path / "scores.csv")
    return tmp_path


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def csv_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_of_each_kind_go_in_and_out(here: Path, suffix: str) -> None:
    source, output = table(here / f"in.{suffix}"), here / f"out.{suffix}"
    result = call("rank", source, "-o", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert [(row["file"], row["rank"]) for row in read_table(output)] == [
        ("in/ü.png", 1),
        ("in/b.png", 2),
        ("in/a.png", 3),
    ]
    assert list(read_table(output)[0]) == [*COLUMNS, "rank"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("command", ["rank", "pick", "filter"])
def test_a_table_without_rows_keeps_its_columns(here: Path, command: str, suffix: str) -> None:
    source = table(here / f"in.{'csv' if suffix == 'tsv' else suffix}", rows=[], seed=1)
    source = source.rename(source.with_suffix(f".{suffix}"))
    result = call(command, source, "--left-out", "left.csv")
    assert (result.exit_code, result.stdout) == (0, ",".join([*COLUMNS, "seed"]) + "\n")
    assert Path("left.csv").read_text() == ",".join([*COLUMNS, "seed", "left_out"]) + "\n"
    assert call(command, "-", stdin=source.read_bytes()).stdout == result.stdout
    assert call(command, source, "-o", "out.parquet").exit_code == 0
    assert read_table("out.parquet").head == [*COLUMNS, "seed"]


def test_a_folder_of_parts_without_rows_keeps_its_columns(here: Path) -> None:
    (here / "parts").mkdir()
    table(here / "parts" / "part-0.parquet", rows=[])
    assert call("rank", "parts").stdout == ",".join(COLUMNS) + "\n"


def test_settings_of_a_table_without_scored_rows(here: Path) -> None:
    for rows, count in (([], "0 rows"), ([ROWS[3]], "1 row")):
        source = table(here / "in.csv", rows=rows, setting="a")
        result = call("compare-settings", source, "--baseline", "a")
        said = f"Expected scored rows with a prompt and a setting, got none in {count}: score images that can be read."
        assert (result.exit_code, said in result.stderr) == (2, True)


def test_settings_of_a_table_without_prompts(here: Path) -> None:
    source = table(here / "in.csv", rows=[(file, "", *rest) for file, _, *rest in ROWS[:2]], setting="a")
    result = call("compare-settings", source, "--baseline", "a")
    said = "Expected scored rows with a prompt and a setting, got none in 2 rows: fill in these columns."
    assert (result.exit_code, said in result.stderr) == (2, True)


def test_the_failed_row_is_said_and_can_be_kept(here: Path) -> None:
    result = call("rank", "scores.csv", "--left-out", "left.csv")
    assert result.exit_code == 1
    assert result.stderr == (
        "1 row is left out:\n  1 x Expected an image, got an empty file: make it again. ('in/broken.png')\n"
        "Wrote left.csv: 1 row.\n"
    )
    (left,) = read_table("left.csv")
    assert (left["file"], left["left_out"]) == ("in/broken.png", ROWS[3][5])


def test_without_a_failed_row_all_is_well(here: Path) -> None:
    result = call("rank", table(here / "good.csv", ROWS[:3]))
    assert (result.exit_code, result.stderr) == (0, "")


def test_stdout_is_csv_with_whole_numbers_whole(here: Path) -> None:
    rows = csv_of(call("rank", "scores.csv", "--top", "1").stdout)
    assert rows == [
        {**dict.fromkeys(COLUMNS, ""), "file": "in/ü.png", "prompt": "dog", "quality": "3.5", "correspondence": "3.0"}
        | {"status": "ok", "width": "8", "height": "8", "model": "mini", "rank": "1"}
    ]


def test_stdout_may_be_json(here: Path) -> None:
    lines = call("pick", "scores.csv", "--json").stdout.splitlines()
    assert [(json.loads(line)["file"], json.loads(line)["rank"]) for line in lines] == [
        ("in/b.png", 1),
        ("in/ü.png", 1),
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_stdin_may_be_each_kind_of_table(here: Path, suffix: str) -> None:
    content = table(here / f"in.{suffix}").read_bytes()
    assert [row["file"] for row in csv_of(call("rank", "-", "-k", "2", stdin=content).stdout)] == [
        "in/ü.png",
        "in/b.png",
    ]


def test_a_bad_table_on_stdin_is_called_stdin(here: Path) -> None:
    result = call("rank", "-", stdin=b"file,quality\na.png,1,2\n")
    assert result.exit_code == 2
    assert "Expected 2 cells in line 2 of stdin, got 3" in result.stderr


def test_commands_pipe_into_each_other(here: Path) -> None:
    picked = call("pick", "scores.csv", "--by", "correspondence").stdout_bytes
    result = call("filter", "-", "--copy-to", "best", "--yes", stdin=picked)
    assert (result.exit_code, sorted(path.name for path in Path("best").iterdir())) == (0, ["a.png", "ü.png"])


def test_of_commands_that_are_piped_only_the_last_notes_unfamiliar_images(tmp_path: Path) -> None:
    source = table(tmp_path / "scores.csv", [("a.png", "a cat", 3.5, 2.5, "ok", None)], familiarity=0.01)
    output = tmp_path / "kept.csv"
    command = [sys.executable, "-m", "mst_clipiqa"]
    picked = subprocess.run([*command, "pick", source], capture_output=True, check=True)
    with output.open("wb") as file:
        kept = subprocess.run(
            [*command, "filter", "-"], input=picked.stdout, stdout=file, stderr=subprocess.PIPE, check=True
        )
    assert picked.stderr == b""
    assert kept.stderr.splitlines()[1:] == [
        b"Note: 1 of 1 images is unlike those that the model was trained on, so its scores are less certain: 'a.png'."
    ]
    assert b"a.png" in output.read_bytes()


def test_rank_by_weights_and_per_prompt(here: Path) -> None:
    rows = csv_of(call("rank", "scores.csv", "--by", "quality=1,correspondence=1", "--per-prompt").stdout)
    # cat: a (2+4)/2 = 3, b (3+1)/2 = 2; dog: 3.25
    assert [(r["file"], r["rank"], r["weighted"]) for r in rows] == [
        ("in/a.png", "1", "3.0"),
        ("in/b.png", "2", "2.0"),
        ("in/ü.png", "1", "3.25"),
    ]


@pytest.mark.parametrize("how", ["--copy-to", "--move-to"])
def test_filter_touches_nothing_without_yes(here: Path, how: str) -> None:
    before = tree()
    result = call("filter", "scores.csv", "--min-quality", "3", how, "out")
    assert tree() == before
    assert not Path("out").exists()
    command = "copied" if how == "--copy-to" else "moved"
    assert f"2 rows kept, 1 not. 2 images would be {command}; nothing was touched: add --yes to do it." in result.stderr
    assert [row["to"] for row in csv_of(result.stdout)] == ["out/b.png", "out/ü.png"]


def test_filter_moves_with_yes_and_never_a_failed_row(here: Path) -> None:
    before = tree()
    result = call("filter", "scores.csv", "--min-quality", "3", "--invert", "--move-to", "rejects", "--yes")
    assert result.exit_code == 1  # for the row that failed, not for the move
    after = tree()
    assert after.pop("rejects/a.png") == before.pop("in/a.png")
    assert after == before
    assert "1 image moved." in result.stderr


def test_filter_counts_one_row_as_one(here: Path) -> None:
    assert "1 row kept, 2 not." in call("filter", "scores.csv", "--min-quality", "3.5").stderr


@pytest.mark.parametrize("flag", ["--min-quality", "--min-correspondence"])
def test_no_image_is_above_or_below_a_limit_that_is_no_number(here: Path, flag: str) -> None:
    result = call("filter", "scores.csv", flag, "nan", "--invert", "--move-to", "rejects", "--yes")
    assert (result.exit_code, Path("rejects").exists()) == (2, False)
    assert "nan is not a number." in result.stderr


def test_ctrl_c_stops_a_move_after_the_image_and_writes_where_it_went(here: Path) -> None:
    from mst_clipiqa.analysis import transfer

    place = transfer.place

    def interrupted(*args: Any, **how: Any) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return place(*args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "place", interrupted)
        stopped = call("filter", "scores.csv", "--move-to", "out", "--yes")
    assert (stopped.exit_code, [row["to"] for row in csv_of(stopped.stdout)]) == (130, ["out/a.png"])
    assert "1 image moved.\nStopped. 2 images not moved: repeat the command to go on.\n" in stopped.stderr
    assert set(tree()) >= {"out/a.png", "in/b.png", "in/ü.png"} and "in/a.png" not in tree()
    again = call("filter", "scores.csv", "--move-to", "out", "--yes")
    assert [row["to"] for row in csv_of(again.stdout)] == ["out/b.png", "out/ü.png"]


def test_filter_that_keeps_nothing_is_a_table_for_the_next_command(here: Path) -> None:
    nothing = call("filter", table(here / "scores.csv"), "--min-quality", "99")
    assert nothing.stdout == ",".join(COLUMNS) + "\n"
    assert call("rank", "-", stdin=nothing.stdout_bytes).exit_code == 0


def test_filter_lists(here: Path) -> None:
    before = tree()
    result = call("filter", "scores.csv", "--min-correspondence", "3", "--list")
    assert [row["file"] for row in csv_of(result.stdout)] == ["in/a.png", "in/ü.png"]
    assert tree() == before


def test_filter_says_which_image_is_gone(here: Path) -> None:
    Path("in/b.png").unlink()
    result = call("filter", "scores.csv", "--min-quality", "3", "--move-to", "out", "--yes")
    assert result.exit_code == 1
    assert "1 x its image is not found ('in/b.png')" in result.stderr
    assert [row["to"] for row in csv_of(result.stdout)] == ["out/ü.png"]


def test_filter_moves_no_other_file_of_the_same_name(here: Path) -> None:
    first = ROWS[0][0]
    Path(first).rename(Path(first).name)
    result = call("filter", "scores.csv", "--min-quality", "1", "--move-to", "out", "--yes")
    assert "its image is not found" in result.stderr
    assert Path(Path(first).name).is_file()
    again = call("filter", "scores.csv", "--min-quality", "1", "--images", ".", "--copy-to", "found", "--yes")
    assert "its image is not found" not in again.stderr or first not in again.stderr


@pytest.mark.parametrize("other", ["x.csv", "X.csv"])  # on most disks of macOS and Windows one file
def test_two_outputs_of_one_name_are_refused(here: Path, other: str) -> None:
    result = call("filter", "scores.csv", "-o", "x.csv", "--left-out", other)
    assert (result.exit_code, Path("x.csv").exists()) == (2, False)
    assert "Expected two outputs, got 'x.csv' for both: name another for --left-out." in result.stderr


def two_models() -> None:
    rows = [dict(row) for row in read_table("scores.csv")]
    with TableWriter("mixed.csv", COLUMNS) as writer:
        for row, model in zip(rows, ("mini", "ours", None, "third"), strict=True):
            writer.append({**row, "model": model})


@pytest.mark.parametrize(
    "args",
    [
        ["rank", "mixed.csv"],
        ["pick", "mixed.csv"],
        ["filter", "mixed.csv", "--min-quality", "1"],
        ["gate", "mixed.csv", "--min-mean", "quality=1"],
        ["gate", "scores.csv", "--not-worse-than", "mixed.csv"],
        ["compare", "a.png", "b.png", "--scores", "mixed.csv"],
        ["compare-settings", "mixed.csv", "--by", "file", "--baseline", "in/a.png"],
    ],
)
def test_scores_of_two_models_are_not_mixed(here: Path, args: list[str]) -> None:
    two_models()
    before = tree()
    result = call(*args)
    assert (result.exit_code, result.stdout, tree()) == (2, "", before)
    assert result.stderr == (
        "Error: Expected rows scored by one model, got 'mini', 'ours': score all images with the same one, or keep the "
        "rows of one.\n"
    )


def test_what_compares_no_scores_takes_those_of_two_models(here: Path) -> None:
    two_models()
    assert call("gate", "mixed.csv", "--min-count", "3").exit_code == 0
    assert len(csv_of(call("filter", "mixed.csv").stdout)) == 3


@pytest.mark.parametrize(
    "args",
    [
        ["score", "in", "-o", "in/metadata.csv"],
        ["score", "in", "-o", "link/metadata.csv"],
        ["score", "in", "-o", "metadata.jsonl"],
        ["score", ".", "--recursive", "-o", "in/metadata.csv"],
        ["rank", "in", "-o", "in/metadata.csv"],
    ],
)
def test_no_output_replaces_prompts_that_are_read_without_being_named(here: Path, args: list[str]) -> None:
    Path("in/metadata.csv").write_text("file_name,prompt\na.png,a cat\n", encoding="utf-8")
    Path("metadata.jsonl").write_text('{"file_name": "in/b.png", "prompt": "a cat"}\n', encoding="utf-8")
    Path("link").symlink_to("in")
    before = tree()
    result = call(*args)
    assert (result.exit_code, result.stdout, tree()) == (2, "", before)
    assert "Expected an output other than the input for -o" in result.stderr


@pytest.mark.parametrize("args", [["rank"], ["pick"], ["filter", "--min-quality", "3", "--copy-to", "good", "--yes"]])
def test_a_familiarity_that_is_text_stops_nothing_that_is_done(here: Path, args: list[str]) -> None:
    rows = read_table(table(here / "t.csv", ROWS[:3]))
    with TableWriter("t.csv", COLUMNS) as writer:
        for row in rows:
            writer.append({**row, "familiarity": "high"})
    result = call(args[0], "t.csv", *args[1:])
    assert (result.exit_code, "Error" in result.stderr) == (0, False)
    assert result.stdout.count(",high,") >= 2


@pytest.mark.parametrize(
    "args",
    [
        ["score", "scores.csv", "-o", "scores.csv"],
        ["score", "in", "--prompts", "scores.csv", "-o", "scores.csv"],
        ["score", "scores.csv", "-o", "scores.csv", "--resume"],
        ["rank", "scores.csv", "-o", "link.csv"],
        ["rank", "scores.csv", "--left-out", "scores.csv"],
        ["rank", "link.csv", "-o", "./in/../scores.csv"],
        ["pick", "scores.csv", "-o", "scores.csv"],
        ["filter", "scores.csv", "-o", "scores.csv"],
        ["compare", "a.png", "b.png", "--scores", "scores.csv", "-o", "scores.csv"],
        ["drift", "scores.csv", "other.csv", "-o", "scores.csv"],
        ["drift", "other.csv", "scores.csv", "-o", "scores.csv"],
        ["gate", "other.csv", "--not-worse-than", "scores.csv", "-o", "scores.csv"],
        ["compare-settings", "scores.csv", "--baseline", "x", "-o", "scores.csv"],
        ["report", "scores.csv", "-o", "link.html"],
    ],
)
def test_no_output_replaces_an_input(here: Path, args: list[str]) -> None:
    table(here / "other.csv", ROWS[:3])
    for name in ("link.csv", "link.html"):
        Path(name).symlink_to("scores.csv")
    before = tree()
    result = call(*args)
    assert (result.exit_code, result.stdout, tree()) == (2, "", before)
    flag = "--left-out" if "--left-out" in args else "-o"
    assert re.fullmatch(
        rf"Error: Expected an output other than the input for {flag}, got '.*': name a new one\.\n", result.stderr
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_full_disk_is_said_without_flags_that_the_command_lacks(
    here: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = tree()
    monkeypatch.setattr(os, "fsync", full)
    result = call("rank", "scores.csv", "-o", f"ranked.{suffix}")
    assert (result.exit_code, tree()) == (2, before)
    assert result.stderr == (
        f"Error: Expected to be able to write 'ranked.{suffix}', got No space left on device: free some space, or "
        "choose another output.\n"
    )


@pytest.mark.parametrize("args", [["rank"], ["drift", "scores.csv"], ["compare", "a.png", "b.png", "--scores"]])
@pytest.mark.parametrize("huge", [1e308, -1e300])
def test_numbers_that_are_no_scores_are_refused(here: Path, args: list[str], huge: float) -> None:
    table(here / "huge.csv", [(f, p, q and huge, c, s, r) for f, p, q, c, s, r in ROWS])
    result = call(*args, "huge.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Expected a number in column 'quality', got '{huge}' for 'in/a.png'" in result.stderr


@pytest.mark.parametrize("name", ["scores.csv", "in/a.png", "page"])
def test_a_report_replaces_no_table_and_no_image(here: Path, name: str) -> None:
    before = tree()
    result = call("report", "scores.csv", "-o", name)
    assert (result.exit_code, tree()) == (2, before)
    assert f"Expected a page whose name ends in .html, got '{name}'" in result.stderr


def test_an_output_without_a_name_is_refused(here: Path) -> None:
    for command in (["rank", "scores.csv"], ["score", "in"], ["report", "scores.csv"]):
        result = call(*command, "-o", "")
        assert result.exit_code == 2
        assert "expected a name, got an empty one" in result.stderr


def test_filter_finds_images_beside_a_table_that_was_taken_along(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    result = call("filter", "../scores.csv", "--min-quality", "3.2", "--copy-to", "out", "--yes")
    assert Path("out/ü.png").read_bytes() == "in/ü.png".encode(), result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["filter", "scores.csv", "--copy-to", "x", "--move-to", "y"],
            "Expected one of --list, --copy-to and --move-to",
        ),
        (["rank", "nowhere.csv"], "Expected a table of scores (.csv, .jsonl, .parquet), a folder of images"),
        (["rank", "in/a.png"], "got another kind of file: 'in/a.png'"),
        (["rank", "-"], "Expected a table of scores on stdin, got nothing"),
        (["rank", "scores.csv", "--by", "sharpness"], "Expected a column 'sharpness' in the table"),
        (["rank", "scores.csv", "--by", "prompt"], "Expected a number in column 'prompt', got 'cat'"),
        (["rank", "scores.csv", "-o", "out.xls"], "Expected a table to end in .csv, .jsonl or .parquet"),
        (["rank", "half.csv"], "Expected 2 cells in line 2 of 'half.csv', got 3: quote cells that hold semicolons."),
        (["rank", "in", "--prompt", "half.csv"], "Expected words in --prompt, got the name of a file, 'half.csv': use"),
        (["compare", "a.png", "z.png", "--scores", "scores.csv"], "Expected one row of the table to be 'z.png', got 0"),
    ],
)
def test_wrong_usage_is_one_sentence(here: Path, args: list[str], message: str) -> None:
    Path("half.csv").write_text("file;quality\na.png;1,5;7\n")
    result = call(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_compare_from_a_table(here: Path) -> None:
    result = call("compare", "a.png", "b.png", "--scores", "scores.csv")
    doubt = "; there is no probability, because the table has no intervals: score with --intervals."
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            f"Quality: b.png is ahead of a.png by 1.00 (3.00 against 2.00){doubt}",
            f"Correspondence: a.png is ahead of b.png by 3.00 (4.00 against 1.00){doubt}",
        ],
    )


class Stub:
    """Stands for a scorer: the score of an image is the length of its file's name."""

    model = SimpleNamespace(config=SimpleNamespace(caution=""))

    def stream(self, requests: Iterable[ScoreRequest[None]]) -> Iterator[tuple[ScoreRequest[None], Score]]:
        for request in requests:
            if "broken" in str(request.image):
                yield request, Score(error="image", reason="Expected an image.")
                continue
            quality = float(len(Path(request.image).name))
            intervals = {"quality": (quality - 0.5, quality + 0.5)}
            yield request, Score(quality=quality, targets={"quality": quality}, intervals=intervals, model="stub")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scorer, "load", lambda *args, **options: Stub())


@pytest.mark.usefixtures("stub")
def test_compare_scores_images(here: Path) -> None:
    Path("in/long.png").touch()
    result = call("compare", "in/a.png", "in/long.png", "--json")
    row = json.loads(result.stdout)
    assert (row["target"], row["a"], row["b"], row["verdict"]) == ("quality", 5.0, 8.0, "B")
    with_prompt = call("compare", "in/a.png", "in/long.png", "--prompt", "cat").stdout.splitlines()
    assert with_prompt[1] == "Correspondence: not compared, neither has a score."
    assert call("compare", "in/a.png", "in/broken.png").stderr == "Error: 'in/broken.png': Expected an image.\n"


@pytest.mark.usefixtures("stub")
def test_a_folder_is_scored(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score_rows(
        scorer: Stub, items: Iterable[Item], *, intervals: bool, more: Callable[[Item], ScoreRow]
    ) -> Iterator[ScoreRow]:
        for item in items:
            _, score = next(scorer.stream([ScoreRequest(item.path)]))
            yield to_row(item.file, item.prompt, score, intervals=intervals)

    monkeypatch.setattr(rows_module, "score_rows", score_rows)
    monkeypatch.setattr(rows_module, "columns", lambda *_, **__: rows_module.COLUMNS)
    result = call("rank", "in", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["file"], row["quality"]) for row in rows] == [("in/a.png", 5.0), ("in/b.png", 5.0), ("in/ü.png", 5.0)]
    assert result.exit_code == 1
    assert "in/broken.png" in result.stderr


def test_drift_says_it_in_a_sentence(here: Path) -> None:
    new = [(f, p, None if q is None else q + 1, c, s, r) for f, p, q, c, s, r in ROWS]
    table(here / "new.csv", [*new, ("c.png", "fox", 1.0, 1.0, "ok", None)])
    result = call("drift", "scores.csv", "new.csv")
    assert result.stdout.splitlines() == [
        "The new images do not differ measurably from the old in quality: 1.00 (95 % -2.54 to 3.20) over 2 prompts.",
        "The new images do not differ measurably from the old in correspondence: 0.00 (95 % 0.00 to 0.00) over "
        "2 prompts.",
    ]
    assert "1 prompt is only in the new table and left out: 'fox'" in result.stderr
    assert "2 rows are left out:" in result.stderr
    assert result.exit_code == 1


def test_drift_by_generator_as_a_table(here: Path) -> None:
    for name, shift in (("old", 0.0), ("new", 1.0)):
        table(here / f"{name}.csv", [(f"sd_{p}.png", p, 1 + shift, 1.0, "ok", None) for p in ("a", "b")])
    result = call("drift", "old.csv", "new.csv", "--generator-from", "name", "-o", "out.jsonl")
    assert (result.exit_code, result.stdout) == (0, "")
    found = [(row["target"], row["group"], row["difference"]) for row in read_table("out.jsonl")]
    assert found == [
        ("quality", None, 1),
        ("correspondence", None, 0),
        ("quality", "sd", 1),
        ("correspondence", "sd", 0),
    ]


def test_drift_says_once_what_holds_for_the_only_generator(here: Path) -> None:
    rows = [(f"{maker}_{p}.png", p, 1.0, 1.0, "ok", None) for p in ("a", "b") for maker in ("sd", "mj")]
    one, two = table(here / "one.csv", rows[::2]), table(here / "two.csv", rows)
    said = call("drift", one, one, "--generator-from", "name").stdout.splitlines()
    assert len(said) == 2  # quality and correspondence
    assert not any(line.startswith("sd: ") for line in said)
    assert len(call("drift", two, two, "--generator-from", "name").stdout.splitlines()) == 6
    assert len(call("drift", one, two, "--generator-from", "name").stdout.splitlines()) == 4  # mj is only in one


def test_images_are_looked_for_only_where_the_flag_says(here: Path) -> None:
    Path("empty").mkdir()
    result = call("filter", "scores.csv", "--images", "empty", "--move-to", "out", "--yes")
    assert "3 x its image is not found" in result.stderr
    assert Path("in/a.png").exists()
    page = call("report", "scores.csv", "--images", "empty", "-o", "r.html", "--explain", "0")
    assert page.exit_code == 1
    assert page.stderr.splitlines()[1:] == [
        "4 rows are shown without an image or an explanation:",
        "  4 x its image is not found ('in/ü.png', 'in/b.png', 'in/a.png', ...)",
        "Name the folder that the images are in with --images.",
    ]
    assert result.stderr.endswith("Name the folder that the images are in with --images.\n")
    found = call("filter", "scores.csv", "--images", "in", "--copy-to", "out", "--yes")
    assert "its image is not found" not in found.stderr
    assert len(list(Path("out").rglob("*.png"))) == 3


def test_drift_warns_of_two_models(here: Path) -> None:
    rows = [dict(row) for row in read_table("scores.csv")]
    with TableWriter("other.csv", COLUMNS) as writer:
        for row in rows:
            writer.append({**row, "model": "ours"})
    assert (
        "Warning: the scores come from different models ('mini', 'ours')"
        in call("drift", "scores.csv", "other.csv").stderr
    )
    with TableWriter("both.csv", COLUMNS) as writer:
        for row in (rows[0], {**rows[1], "model": "ours"}):
            writer.append(row)
    said = call("report", "both.csv", "--no-images", "-o", "r.html").stderr
    assert "Warning: the scores come from different models ('mini', 'ours')" in said


def test_a_screen_gets_a_table_that_cannot_steer_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from mst_clipiqa.cli.commands import _deliver

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    _deliver.write_rows(
        [{"file": "[red]a\x1b[2J.png", "quality": 2.0, "quality_low": 1.0, "rank": 1}], None, as_json=False
    )
    out = capsys.readouterr().out
    assert "[red]a�[2J.png" in out
    assert "2.000" in out
    assert "quality_low" not in out  # a screen is narrow


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any, width: int) -> None:
    from mst_clipiqa.cli.commands import _deliver

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    names = [f"out/a-painting-of-a-house-in-the-snow_{i}.png" for i in range(3)]
    rows = [{"file": name, "quality": 2.5, "correspondence": 3.5, "generator": "sdxl" * 5, "rank": 1} for name in names]
    _deliver.write_rows(rows, None, as_json=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert len([line for line in lines if ".png" in line]) == 3  # no name is broken into two lines
    assert ("generator" in lines[1]) is (width > 60)
    assert (lines[-1] == "Not shown: generator; -o FILE keeps all columns.") is (width == 60)


@pytest.mark.parametrize(
    ("width", "shown"),
    [(20, ["file", "quality", "rank"]), (40, ["file", "quality", "rank"]), (50, ["file", *SCORES, "rank"])],
)
def test_no_number_is_cut_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, width: int, shown: list[str]
) -> None:
    from mst_clipiqa.cli.commands import _deliver

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    rows = [{"file": f"a-painting-of-a-house-in-the-snow_{i}.png", **SCORES, "rank": 1000 + i} for i in range(3)]
    _deliver.write_rows(rows, None, as_json=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert lines[0].split() == shown
    numbers = ["2.346", "3.457"][: len(shown) - 2]
    assert [line.split()[1:] for line in lines[1:4]] == [[*numbers, str(1000 + i)] for i in range(3)]
    assert (lines[4:] == ["Not shown: correspondence; -o FILE keeps all columns."]) is ("correspondence" not in shown)
    assert max(map(len, lines[:4])) <= max(width, 27)


@pytest.mark.parametrize("width", [80, 160])
def test_filter_shows_where_images_would_go_on_any_terminal(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, width: int
) -> None:
    from mst_clipiqa.cli.commands import _deliver

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    names = [f"a-painting-of-a-house-in-the-snow_{i}.png" for i in range(3)]
    scores = {"quality": 2.5, "correspondence": 3.5}
    rows: list[dict[str, Any]] = [{"file": f"out/{name}", **scores, "to": f"good/{name}"} for name in names]
    _deliver.write_rows(rows, None, as_json=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert lines[:2] == ["In out/", "To good/"] and lines[2].split()[-1] == "to"
    assert len({line.split()[-1] for line in lines[3:6]}) == 3 and len(lines) == 6
    assert max(map(len, lines)) <= width
    _deliver.write_rows([], None, as_json=False)
    assert capsys.readouterr().out == ""  # no row is no table


def test_the_folder_of_a_cluster_is_a_table(here: Path) -> None:
    parts = here / "sc.parquet"
    for number, rows in enumerate((ROWS[:2], ROWS[2:])):
        table(parts / f"part-{number}.parquet", rows)
    (parts / "_manifest.json").write_text('{"state": "complete"}')
    for command, *flags in (["rank"], ["pick"], ["filter", "--min-quality", "1"]):
        result, wanted = (call(command, source, *flags) for source in (parts, here / "scores.csv"))
        assert (result.exit_code, result.stdout) == (wanted.exit_code, wanted.stdout)
    assert call("drift", parts, parts).stdout == call("drift", here / "scores.csv", here / "scores.csv").stdout
    assert "r.html: 4 rows" in call("report", parts, "--no-images", "-o", here / "r.html").stderr
    (here / "mos.csv").write_text("file,prompt,mos\n" + "".join(f"{f},{p},{q or 1}\n" for f, p, q, *_ in ROWS))
    evaluated = call("evaluate", parts, here / "mos.csv")
    assert evaluated.exit_code == 0, evaluated.stderr
    (parts / "_manifest.json").write_text('{"state": "running"}')
    assert "Expected the parts of a finished run in" in call("rank", parts).stderr
    (parts / "_manifest.json").write_text("{}")
    assert "Expected the state of a run in" in call("rank", parts).stderr


def test_a_folder_is_scored_with_one_prompt_or_columns_of_other_names(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def fake(scorer: object, items: Iterable[Item], **_: object) -> Iterator[ScoreRow]:
        for item in items:
            seen.append(item.prompt)
            yield to_row(item.file, item.prompt, Score(quality=5.0, targets={"quality": 5.0}))

    monkeypatch.setattr("mst_clipiqa.scoring.scorer.Scorer.load", lambda *_, **__: Stub())
    monkeypatch.setattr(rows_module, "score_rows", fake)
    monkeypatch.setattr(rows_module, "columns", lambda *_, **__: rows_module.COLUMNS)
    assert call("gate", "in", "--min-mean", "quality=5", "--prompt", "a red ball").exit_code == 0
    assert set(seen) == {"a red ball"}
    Path("words.csv").write_text("img_id,description\na.png,a cat\n")
    seen.clear()
    columns = ["--file-column", "img_id", "--prompt-column", "description"]
    assert call("rank", "in", "--prompts", "words.csv", *columns).exit_code == 0
    assert seen[0] == "a cat"


def test_gate_answers_with_one_line_and_a_code(here: Path) -> None:
    result = call("gate", "scores.csv", "--min-mean", "quality=2.8", "--max-failed", "1", "--min-count", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "Passed: mean quality is 2.83 (95 % -3.16 to 8.95 over 2 prompts), at least 2.8; 1 of 4 rows failed, at most 1 "
        "allowed; 3 rows have a value of quality, at least 3 required.\n"
    )
    result = call("gate", "scores.csv", "--min-mean", "quality=2.8", "--max-failed", "0", "--min-share", "quality:3=1")
    assert result.exit_code == 3
    assert result.stdout == (
        "Failed: 66.67 % of the images reach quality 3 (95 % 0 % to 100 % over 2 prompts), below 100 %; 1 of 4 rows "
        "failed, at most 0 allowed.\n"
    )


def test_gate_and_drift_fail_where_the_new_scores_are_worse(here: Path) -> None:
    loss = {"cat": 1 + 1 / 128, "dog": 1 - 1 / 128}  # not the same for both, which would say little over two prompts
    table(here / "worse.csv", [(f, p, (q or 0.0) - loss[p], c, s, r) for f, p, q, c, s, r in ROWS[:3]])
    result = call("gate", "worse.csv", "--not-worse-than", "scores.csv", "--json")
    assert result.exit_code == 3
    assert result.stderr == "Failed: quality is worse than in scores.csv by 1.00 (95 % 0.90 to 1.10) over 2 prompts.\n"
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["condition"], row["passed"], row["value"]) for row in found] == [
        ("--not-worse-than", False, -1.0),
        ("--not-worse-than", True, 0.0),
    ]
    call("gate", "worse.csv", "--not-worse-than", "scores.csv", "-o", "gate.csv")
    assert [row["passed"] for row in csv_of(Path("gate.csv").read_text())] == ["false", "true"]
    assert call("gate", "scores.csv", "--not-worse-than", "worse.csv").exit_code == 0
    assert call("drift", "scores.csv", "worse.csv", "--fail-if-worse").exit_code == 3
    assert call("drift", "worse.csv", "scores.csv", "--fail-if-worse").exit_code == 1  # only a failed row


def test_drift_does_not_fail_for_a_group_alone(here: Path) -> None:
    for name, gain in (("old.csv", 0.0), ("new.csv", 1.0)):
        rows = [f"{i}.png,prompt {i},{3 + gain * (i < 9 or -1):g},{'ab'[i // 9]}" for i in range(10)]
        Path(name).write_text("\n".join(["file,prompt,quality,generator", *rows]) + "\n")
    result = call("drift", "old.csv", "new.csv", "--fail-if-worse")
    assert result.exit_code == 0
    assert (
        "b: the difference in quality, new minus old, is -1.00 over 1 prompt, too few for an interval." in result.stdout
    )


def test_drift_compares_no_generators_that_only_one_table_names(here: Path) -> None:
    Path("old.csv").write_text("prompt,quality\na cat,3\na dog,4\n")
    Path("new.csv").write_text("prompt,quality,generator\na cat,3,x\na dog,4,x\n")
    assert call("drift", "old.csv", "new.csv").exit_code == 0


def test_gate_and_drift_fail_where_a_score_is_no_longer_there(here: Path) -> None:
    table(here / "less.csv", [(f, p, q, None, s, r) for f, p, q, _, s, r in ROWS[:3]])
    table(here / "more.csv", ROWS[:3])
    assert call("gate", "less.csv", "--not-worse-than", "more.csv").exit_code == 3
    result = call("drift", "more.csv", "less.csv", "--fail-if-worse")
    assert result.exit_code == 3
    assert result.stderr == (
        "Warning: nothing in the new table can be compared with the correspondence in the old one.\n"
    )
    assert call("drift", "more.csv", "less.csv").exit_code == 0
    for command in (["gate", "more.csv", "--not-worse-than", "less.csv"], ["drift", "less.csv", "more.csv"]):
        assert call(*command).exit_code == 0  # nothing to be worse than


def test_drift_fails_where_every_new_image_failed_and_says_why(here: Path) -> None:
    why = "Expected an image, got an empty file: make it again."
    table(here / "bad.csv", [(f, p, None, None, "error", why) for f, p, *_ in ROWS])
    result = call("drift", "scores.csv", "bad.csv", "--fail-if-worse", "-o", "drift.csv", "--left-out", "left.csv")
    assert result.exit_code == 3
    assert f"5 rows are left out:\n  5 x {why}" in result.stderr
    for target in ("quality", "correspondence"):
        assert f"nothing in the new table can be compared with the {target} in the old one" in result.stderr
    assert Path("drift.csv").read_text().startswith("target,group,paired_by,")  # and no older table is left there
    assert [row["left_out"] for row in csv_of(Path("left.csv").read_text())] == [why] * 5

    result = call("drift", "scores.csv", "bad.csv", "--left-out", "left.csv")
    assert result.exit_code == 2
    assert f"  5 x {why}" in result.stderr
    assert result.stderr.endswith(
        "Error: Expected a scored row in the new table, got none: score images that can be read.\n"
    )


def test_drift_says_why_images_failed_even_if_it_cannot_compare(here: Path) -> None:
    table(here / "new.csv", [("in/c.png", "horse", 1.0, 2.0, "ok", None), ROWS[3]])
    result = call("drift", "scores.csv", "new.csv", "--fail-if-worse", "--left-out", "left.csv")
    assert result.exit_code == 2
    assert "  2 x Expected an image, got an empty file: make it again." in result.stderr
    assert "prompts and none in both" in result.stderr
    assert len(csv_of(Path("left.csv").read_text())) == 2


def test_drift_says_how_many_groups_differ_by_chance(here: Path) -> None:
    rows = [(f"in/{maker}_{i}.png", f"p{i}", float(i), 1.0, "ok", "") for maker in "abc" for i in range(4)]
    table(here / "many.csv", rows)
    result = call("drift", "many.csv", "many.csv", "--generator-from", "name")
    assert result.stderr == (
        "Of 6 comparisons of groups at 95 %, about 0.3 would come out better or worse by chance if nothing had "
        "changed.\n"
    )
    table(here / "two.csv", [(*row[:3], None, *row[4:]) for row in rows[:8]])
    result = call("drift", "two.csv", "two.csv", "--generator-from", "name")
    assert result.stderr.startswith(
        "Of 2 comparisons of groups at 95 %, about 0.1 would come out better or worse by chance"
    )


def test_drift_warns_of_no_comparisons_of_groups_if_all_images_are_of_one(here: Path) -> None:
    table(here / "one.csv", [(f"in/a_{i}.png", f"p{i}", float(i), 1.0, "ok", "") for i in range(4)])
    for more in ([], ["--json"]):
        result = call("drift", "one.csv", "one.csv", "--generator-from", "name", *more)
        assert (result.exit_code, result.stderr) == (0, "")


def test_drift_and_gate_say_which_rows_lack_a_score_that_others_have(here: Path) -> None:
    rows = [(f"in/a{i}.png", f"p{i}", float(i), 1.0, "ok", "") for i in range(4)]
    table(here / "some.csv", [(*rows[0][:3], None, *rows[0][4:]), *rows[1:]])
    table(here / "all.csv", rows)
    result = call("drift", "some.csv", "all.csv")
    assert result.exit_code == 0
    assert "in quality: 0.00 (95 % 0.00 to 0.00) over 4 prompts" in result.stdout
    assert "in correspondence: 0.00 (95 % 0.00 to 0.00) over 3 prompts" in result.stdout
    assert (
        result.stderr
        == "1 row of the old table is compared without correspondence, as there is no value: 'in/a0.png'\n"
    )
    gated = call("gate", "some.csv", "--not-worse-than", "all.csv")
    assert (gated.exit_code, gated.stderr) == (0, result.stderr.replace("old", "new"))


def test_drift_leaves_out_a_row_that_lacks_every_score_and_the_exit_code_tells(here: Path) -> None:
    rows = [(f"in/a{i}.png", f"p{i}", float(i), 1.0, "ok", "") for i in range(4)]
    table(here / "all.csv", rows)
    for none in ((*rows[0][:2], None, None, *rows[0][4:]), (rows[0][0], None, None, None, *rows[0][4:])):
        table(here / "some.csv", [none, *rows[1:]])
        result = call("drift", "all.csv", "some.csv", "--left-out", "left.csv")
        assert result.exit_code == 1
        said = "no prompt" if none[1] is None else "no score to compare"
        assert f"1 row is left out:\n  1 x {said} (" in result.stderr
        assert "compared without" not in result.stderr
        assert [(row["file"], row["left_out"]) for row in read_table(here / "left.csv")] == [("in/a0.png", said)]


def test_gate_names_no_row_for_a_score_that_no_row_has(here: Path) -> None:
    name = table(here / "s.csv", [(f"in/a{i}.png", f"p{i}", float(i), None, "ok", "") for i in range(4)])
    assert call("gate", name, "--not-worse-than", name).stderr == ""


def test_drift_without_common_prompts_needs_unpaired(here: Path) -> None:
    table(here / "new.csv", [(f, f"a {p}", q, c, s, r) for f, p, q, c, s, r in ROWS[:3]])
    assert "compare the means with --unpaired." in call("drift", "scores.csv", "new.csv").stderr
    result = call("drift", "scores.csv", "new.csv", "--unpaired")
    assert result.stdout.startswith(
        "The new images do not differ measurably from the old in quality: 0.00 (95 % -3.10 to 3.10) over 2 "
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Expected a condition, got none: give one such as --min-mean quality=2.8, or --not-worse-than OLD."),
        (["--max-failed", "0", "--margin", "1"], "--margin needs --not-worse-than: name the older scores, or omit it."),
    ],
)
def test_gate_without_a_condition_is_refused(here: Path, args: list[str], message: str) -> None:
    result = call("gate", "scores.csv", *args)
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")


def seeded(path: Path, *cells: tuple[str, int, float]) -> Path:
    lines = ["prompt,seed,quality", *(",".join(map(str, cell)) for cell in cells)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("flag", ["--margin", "--level"])
def test_a_limit_that_is_no_number_is_refused(here: Path, flag: str) -> None:
    found = call("gate", table(here / "s.csv"), "--not-worse-than", here / "s.csv", flag, "nan")
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"Invalid value for '{flag}': nan is not a number." in found.stderr


def test_drift_and_gate_pair_by_a_column_as_compare_settings_does(tmp_path: Path) -> None:
    old = seeded(tmp_path / "old.csv", ("cat", 1, 2.0), ("cat", 2, 5.0), ("dog", 1, 3.0))
    new = seeded(tmp_path / "new.csv", ("cat", 1, 2.5), ("dog", 1, 3.5), ("dog", 7, 0.0))
    result = call("drift", old, new, "--pair-by", "seed")
    assert (
        "differ measurably from the old in quality: 0.50 (95 % -1.27 to 1.60) over 2 prompts, paired by seed."
        in result.stdout
    )
    assert "1 combination of prompt and seed is only in the old table and left out: 'cat, seed 2'" in result.stderr
    result = call("gate", new, "--not-worse-than", old, "--pair-by", "seed")
    assert result.exit_code == 0 and "over 2 prompts, paired by seed" in result.stdout
    assert ": -1.12 (95 %" in call("gate", new, "--not-worse-than", old).stdout  # other seeds
    result = call("gate", new, "--min-count", "1", "--pair-by", "seed")
    assert "--pair-by needs --not-worse-than: name the older scores, or omit it." in result.stderr
    result = call("drift", old, new, "--pair-by", "seed", "--unpaired")
    assert (result.exit_code, "drop one" in result.stderr) == (2, True)


def test_a_group_cannot_steer_the_screen(here: Path) -> None:
    for name in ("old.csv", "new.csv"):
        table(here / name, [(f"{i}.png", f"p{i}", 2.0 + i, 1.0, "ok", None) for i in range(3)], generator="x\x1b[2J\ny")
    printed = call("drift", "old.csv", "new.csv", "--by", "generator", "--by", "model").stdout
    assert "x\ufffd[2J\ufffdy: the new images do not differ measurably from the old in quality" in printed


@pytest.mark.parametrize("size", ["nan", "inf", "-1"])
def test_the_size_of_a_page_is_a_number(here: Path, size: str) -> None:
    result = call("report", "scores.csv", "--max-mb", size)
    assert (result.exit_code, "Invalid value for '--max-mb'" in result.stderr) == (2, True)


def test_gate_says_why_images_of_a_folder_failed(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"broken")
    result = call("gate", tmp_path, "--max-failed", "0")
    assert (result.exit_code, result.stdout) == (3, "Failed: 1 of 1 rows failed, at most 0 allowed.\n")
    assert "  1 x expected an image (PNG, " in result.stderr


def test_a_prompt_that_an_old_locale_took_apart_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = "eine Kätze 猫".encode().decode("ascii", errors="surrogateescape")
    asked: list[str | None] = []

    def scored(_: tuple[str, str], prompt: str | None, __: object) -> tuple[Score, Score]:
        asked.append(prompt)
        return Score(), Score()

    monkeypatch.setattr("mst_clipiqa.cli.commands.compare._scored", scored)
    call("compare", "in/a.png", "in/b.png", "--prompt", apart)
    assert asked == ["eine Kätze 猫"]


@pytest.mark.parametrize("command", ["rank", "score"])
def test_without_a_folder_for_temporary_files_stdin_is_refused_in_a_sentence(
    command: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.mkdtemp", none)
    result = call(command, "-", stdin=Path("scores.csv").read_bytes())
    assert result.exit_code == 2
    assert "found none that can be written: set TMPDIR to one, or name a file in place of -.\n" in result.stderr


def test_a_disk_that_is_read_only_is_not_said_to_be_full(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", read_only)
    assert "got Read-only file system: make the disk writable, or choose another output." in (
        call("rank", "scores.csv", "-o", "ranked.csv").stderr
    )
