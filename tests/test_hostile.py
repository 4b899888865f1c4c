"""What enemies and accidents send: no traceback, no code run, nothing read or written that was not named."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from fuzz import http, models
from fuzz.harness import Counts, Surface, dumped, loaded, run
from fuzz.requests import TOKEN
from mst_clipiqa import cli
from mst_clipiqa.cli.commands import score as command
from mst_clipiqa.encoders.mini.folder import load_mini_pair
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.reading import read_table
from tests.fakes import FakePair, draw

ROOT = Path(__file__).resolve().parent.parent
PEAK_MB = 1500  # of all that a surface does; torch alone is a third of it


@pytest.mark.parametrize(
    ("name", "count"),
    [("images", 400), ("metadata", 300), ("prompts", 60), ("tables", 150), ("models", 40), ("http", 300)],
)
def test_a_bounded_run_of_every_surface(name: str, count: int, tmp_path: Path) -> None:
    counts = run(importlib.import_module(f"fuzz.{name}").SURFACE, count, 500_000, tmp_path)
    assert (counts.cases, counts.tracebacks, counts.hangs) == (count, 0, 0), list(tmp_path.iterdir())
    assert counts.taken
    assert counts.refused or name == "prompts"
    assert counts.peak_mb - counts.first_peak_mb < PEAK_MB
    assert json.loads(counts.line())["cases"] == count


def test_the_harness_notices_what_it_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def feed(case: dict[str, bytes]) -> None:
        kind = case["n"][0] % 4
        if kind == 1:
            raise KeyError("broken")
        if kind == 2:
            raise UsageError("A message\x1b[31m with an escape.")
        if kind == 3:
            raise UsageError("A good message.")

    counts: Counts = run(Surface("toy", lambda dice: {"n": bytes([dice.randrange(4)])}, feed), 60, 0, tmp_path)
    assert counts.taken and counts.tracebacks > 10 and counts.refused > counts.taken / 2
    assert "KeyError: 'broken'" in capsys.readouterr().out
    kept = [loaded(path.read_text()) for path in tmp_path.glob("toy-*.json")]
    assert sorted(case["n"][0] % 4 for case in kept) == [1, 2]
    assert loaded(dumped({"a": b"\xff"})) == {"a": b"\xff"}


# --- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headers": {"content-length": "9" * 5000}}, "Expected a body of at most"),
        ({"headers": {"content-type": "multipart/form-data; boundary=x; charset=idna"}}, "got the charset 'idna'"),
        ({"headers": {"content-type": "multipart/form-data; boundary=x; charset=a\0b"}}, "got the charset 'a"),
        ({"query": "\xff", "path": "/nothing"}, "Expected a query in ASCII"),
        ({"query": "\xff", "path": "/static", "method": "GET"}, "Expected a query in ASCII"),
        ({"query": "\xff", "path": "/v1/score/"}, "Expected a query in ASCII"),
        ({"headers": {"host": "[", "authorization": f"Bearer {TOKEN}"}, "path": "/nothing"}, "Expected one of the"),
    ],
)
def test_heads_that_lie(changes: dict[str, Any], words: str) -> None:
    head = {"method": "POST", "path": "/v1/score", "query": "", "headers": {}, "cuts": [], "end": "whole"} | changes
    with pytest.raises(UsageError, match="Expected") as caught:
        http.feed(
            {"head": json.dumps(head).encode(), "body": b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n'}
        )
    assert words in str(caught.value)


# --- model folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in models.seeds().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    ("part", "field", "value", "words"),
    [
        ("coarse", "blocks", [8], "Expected blocks to be int"),
        ("coarse", "blocks", 2**16, "Expected sizes that make small encoders"),
        ("coarse", "blocks", -1, "Expected sizes that make small encoders"),
        ("coarse", "blocks", 3, "Expected the weight coarse."),
        ("fine", "dim", 0.5, "Expected dim to be int, got 0.5"),
        ("text", "width", "8", "Expected width to be int, got '8'"),
        ("text", "inner", 2**16, "Expected text.blocks.0.up.weight of shape"),
        ("view", "fine", "a" * 5000, "Expected fine to be 'same', 'native' or 'own', got 'aaa"),
        ("text", "heads", 0, "Expected sizes that make small encoders"),
        ("text", "heads", 3, "Expected sizes that make small encoders"),
        ("text", "layers", 2**16, "Expected sizes that make small encoders"),
        ("text", "words", 2**16, "Expected text.words.weight of shape"),
        ("view", "size", 32.5, "Expected size to be int, got 32.5"),
        ("view", "size", 0, "Expected sizes of at least 1"),
        ("view", "mean", [], "Expected mean to be tuple"),
    ],
)
def test_encoders_whose_config_lies(folder: Path, part: str, field: str, value: Any, words: str) -> None:
    path = folder / "encoders" / "config.json"
    config = json.loads(path.read_text())
    config[part][field] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="Expected") as caught:
        load_mini_pair(folder / "encoders")
    assert words in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("change", "words"), [("[UNK]", "Missing [UNK] token"), ("a", "tokens in"), (None, "tokens in")]
)
def test_a_tokenizer_that_does_not_fit(folder: Path, change: str | None, words: str) -> None:
    path = folder / "encoders" / "tokenizer.json"
    tree = json.loads(path.read_text())
    vocabulary = tree["model"]["vocab"]
    if change == "[UNK]":
        vocabulary["x"] = vocabulary.pop("[UNK]")
    else:
        vocabulary[change or "new"] = 2**20
    path.write_text(json.dumps(tree))
    with pytest.raises(ModelError, match="Expected") as caught:
        load_mini_pair(folder / "encoders")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "encoders/model.safetensors"])
def test_a_pickle_in_the_clothes_of_safetensors_is_not_run(folder: Path, name: str, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (mark,)

    for data in (pickle.dumps(Bomb()), _saved_by_torch(Bomb(), tmp_path / "saved.pt")):
        (folder / name).write_bytes(data)
        args = ["score", str(ROOT / "examples" / "cat.jpg"), "--model", str(folder)]
        result = CliRunner().invoke(cli.group, [*args, "--encoders", str(folder / "encoders")])
        assert result.exit_code == 2
        assert "Expected safetensors in" in result.stderr
    assert not mark.exists()


def _saved_by_torch(value: object, path: Path) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


# --- names, links, pipes ------------------------------------------------------------------------------------------

NAMES = [
    *(b"new\nline.png", b"quo'te\".png", b"-o.png", b"--json.png", b"=cmd|' C calc'!A1.png", b"@x.png", b"+1.png"),
    *(b"latin\xe9.png", b"\xff\xfe.png", b"\x1b[31mred.png", b"a,b.png", b" .png", b"$(touch was-run).png", b"%s.png"),
    *("\u202egnp.exe.png".encode(), b"x" * 251 + b".png", b"*.png", b"..png", b";id;.png", b"<script>.png"),
]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePair:
    pair = FakePair()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=8))
    monkeypatch.setattr(command, "load_scorer", lambda flags: scorer)
    return pair


def score(*args: str) -> Result:
    result = CliRunner().invoke(cli.group, ["score", *args, "--quiet"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_names_that_nobody_would_choose(kind: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "in")
    Path(os.fsdecode(folder)).mkdir()
    image = Path(os.fsdecode(folder)) / "plain.png"
    draw(0, 0.3, size=20).save(image)
    for name in NAMES:
        os.link(image, folder + b"/" + name)
    output = tmp_path / f"out.{kind}"
    assert score(str(tmp_path / "in"), "-o", str(output)).exit_code == 0
    rows = read_table(output)
    shown = sum(not name.startswith(b".") for name in NAMES) + 1  # a hidden file is left out
    assert len(rows) == shown
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["file"] for row in rows}) == shown
    if kind == "csv":
        cells = [line.split(",")[0] for line in output.read_text().splitlines()]
        assert not any(cell.lstrip('"').startswith(("=", "+", "@", "-")) for cell in cells)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", output.name]


@pytest.mark.usefixtures("fake")
def test_links_in_circles_pipes_devices_and_what_a_list_may_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    draw(0, 0.3, size=20).save(folder / "good.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    (folder / "list.csv").write_text("file\n/dev/zero\n../../../../../../../etc/passwd\n/proc/self/environ\nin\n\0\n")
    assert score(str(folder), "--recursive", "-o", str(tmp_path / "out.csv")).exit_code == 1
    rows = {Path(str(row["file"])).name: row for row in read_table(tmp_path / "out.csv")}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"good.png"}
    assert set(rows) == {"good.png", "loop.png", "zero.png", "pipe.png"}
    assert score(str(folder / "list.csv"), "-o", str(tmp_path / "list-out.csv")).exit_code == 1
    text = (tmp_path / "list-out.csv").read_text()
    assert "root:" not in text and "PATH=" not in text  # a reason names a kind of file, never what is in it
    assert len(read_table(tmp_path / "list-out.csv")) == 5


# --- what a run touches -------------------------------------------------------------------------------------------

WATCHED = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from click.testing import CliRunner
from tests.fakes import FakePair
from mst_clipiqa import cli
from mst_clipiqa.cli.commands import score as command
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
pair = FakePair()
scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=8))
command.load_scorer = lambda flags: scorer
args = ["score", sys.argv[1], "--quiet", "-o"]
CliRunner().invoke(cli.group, [*args, sys.argv[2]])  # all that is imported late is imported now
seen = []
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        writes = bool((args[2] or 0) & flags) or any(c in (args[1] or "") for c in "wax+")
        seen.append(["write" if writes else "read", os.fsdecode(args[0])])
    elif event in ("exec", "os.system", "subprocess.Popen", "os.exec", "socket.connect", "pickle.find_class"):
        seen.append([event, repr(args)[:200]])
    elif event in ("os.remove", "os.rename", "os.mkdir", "shutil.rmtree", "os.symlink", "os.chmod"):
        seen.append([event, os.fsdecode(args[0])])
sys.addaudithook(hook)
result = CliRunner().invoke(cli.group, [*args, sys.argv[3]])
print(json.dumps([result.exit_code, seen]))
"""


def test_a_run_reads_what_was_named_and_writes_its_output(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        draw(i, 0.3, size=20).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(pickle.dumps([1]))
    (folder / "metadata.csv").write_text("file_name,prompt\n0.png,$(touch x)\n1.png,=1+1\n")
    args = [str(folder), str(tmp_path / "first.csv"), str(tmp_path / "out.csv"), str(ROOT / "tests")]
    done = subprocess.run([sys.executable, "-c", WATCHED, *args], cwd=ROOT, capture_output=True, text=True, check=True)
    code, seen = json.loads(done.stdout)
    assert code == 1
    assert {event for event, _ in seen} <= {"read", "write", "os.remove", "os.rename", "os.mkdir"}
    outputs = {str(tmp_path / name) for name in ("out.csv", "out.csv.part", "out.csv.new")}
    assert {name for event, name in seen if event != "read"} <= outputs | {str(tmp_path)}  # their folder, if missing
    reads = {name for event, name in seen if event == "read" and not name.startswith((sys.prefix, sys.base_prefix))}
    beside = {name for name in reads if not name.startswith(str(tmp_path))} - {"/dev/null"}
    assert {name for name in beside if not name.endswith((".py", ".pyc"))} == set()
