"""What is different on Windows, macOS and ARM, acted out where the tests run."""

from __future__ import annotations

import errno
import io
import ntpath
import os
import stat
import tarfile
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mst_clipiqa import Scorer, cli
from mst_clipiqa.analysis import transfer
from mst_clipiqa.analysis.filter import plan
from mst_clipiqa.analysis.pairing import folders_of, names_in
from mst_clipiqa.analysis.rows import find_image, with_generator
from mst_clipiqa.analysis.settings import with_names
from mst_clipiqa.cli.commands import rank
from mst_clipiqa.encoders import int8_weights
from mst_clipiqa.errors import UsageError
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.folders import walk
from mst_clipiqa.report import data
from mst_clipiqa.tables import table

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let paths have backslashes and drives, as far as Linux can be made to believe it."""
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(os.path, "isabs", ntpath.isabs)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the images in/day/a.png and in/day/b.png."""
    (tmp_path / "in" / "day").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / "day" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("windows")
def test_tables_have_slashes(here: Path) -> None:
    (here / "in" / "list.csv").write_text("file\nday\\a.png\nC:\\shots\\a.png\nC:/shots/b.png\n", encoding="utf-8")
    with tarfile.open(here / "in" / "shard.tar", "w") as tar:
        tar.add(here / "in" / "day" / "a.png", "x/a.png")
    wanted = ["in/day/a.png", "in/day/b.png"]
    assert [item.file for item in expand("in\\day")] == wanted
    assert [item.file for item in expand("in\\", recursive=True)] == wanted
    assert [item.file for item in expand("in\\list.csv")] == ["in/day/a.png", "C:/shots/a.png", "C:/shots/b.png"]
    assert [item.file for item in expand("in\\shard.tar")] == ["in/shard.tar/x/a.png"]


@pytest.mark.skipif(os.name == "nt", reason="no name has backslashes there")
def test_names_keep_their_backslashes_elsewhere(here: Path) -> None:
    (here / "in" / "a\\b.png").write_bytes(b"")
    assert [item.file for item in expand("in")] == ["in/a\\b.png"]


def test_a_list_and_a_table_from_windows_are_read_elsewhere(here: Path) -> None:
    (here / "list.txt").write_text("in\\day\\a.png\r\n", encoding="utf-8", newline="")
    assert [item.path for item in expand("list.txt")] == ["in/day/a.png"]
    file = "in\\day\\a.png"
    assert find_image(file, [Path()]) == Path("in/day/a.png")
    assert with_generator([{"file": file}], "folder")[0]["generator"] == "day"
    assert with_names([{"file": "in\\sd_low_003.png"}])[0]["generator"] == "sd"


def test_a_drive_is_listed_from_its_root(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def scandir(path: str) -> None:
        asked.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    list(walk("C:/", recursive=False))
    assert asked == ["C:/"]  # "C:" is the current folder of the drive


def test_folders_without_numbers_are_told_apart(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def without_number(path: Path, **how: bool) -> os.stat_result:
        values = list(stat(path, **how))
        return os.stat_result([values[0], 0, *values[2:]])

    monkeypatch.setattr(Path, "stat", without_number)
    assert [folder.path for folder in walk("in", recursive=True)] == ["in", "in/day"]


def test_tables_are_paired_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"file": "out/day/a.png"}, {"file": "out/day/b/c.png"}]
    with monkeypatch.context() as windows:
        windows.setattr(os, "path", ntpath)
        top, _ = folders_of(rows, rows)
        of_two_drives, _ = folders_of([{"file": "C:/a/1.png"}, {"file": "D:/a/1.png"}], rows)
    assert (top, of_two_drives) == ("out/day", "")
    assert names_in(rows, top) == ["a.png", "b/c.png"]


def test_names_are_paired_whose_accents_macos_took_apart() -> None:
    names = [unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png") for form in ("NFC", "NFD")]
    assert len({*names_in([{"file": name} for name in names], "")}) == 1


def test_images_on_two_drives_keep_their_folders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_two_drives(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", on_two_drives)
    monkeypatch.setattr(os.path, "relpath", on_two_drives)
    rows = [{"file": str(here / "in" / "day" / "a.png")}]
    (move,) = plan(rows, rows, [Path()], Path("good")).moves
    assert move[2] == Path("good", *(here / "in" / "day" / "a.png").parts[1:])


def test_a_page_links_to_no_other_drive_and_names_no_folder_above(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_two_drives(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", on_two_drives)
    assert data._link(Path("a.png"), Path()) is None
    for files in (["C:/Users/me/in/a.png", "C:/Users/me/in/b.png"], ["C:/a.png", "C:/b.png"]):
        names = data._names(files)
        assert (names["file"], names["prefix"]) == (["a.png", "b.png"], "")
        assert "Users" not in names["folder"]


def test_read_only_images_are_copied_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, unlink = tmp_path / "a.png", Path.unlink
    source.write_bytes(b"image")
    source.chmod(0o444)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and not path.stat().st_mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, "Access is denied")
        unlink(path, missing_ok=missing_ok)

    def no_link(*_: object, **how: bool) -> None:
        raise OSError(errno.EINVAL, "Incorrect function")

    monkeypatch.setattr(Path, "unlink", refuse)
    target = tmp_path / "good" / "a.png"
    assert transfer.place(source, target, move=False) == target
    monkeypatch.setattr(os, "link", no_link)  # exFAT
    assert transfer.place(source, target.with_name("b.png"), move=False).read_bytes() == b"image"
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.png", "b.png"]
    assert not target.stat().st_mode & stat.S_IWUSR
    monkeypatch.setattr(transfer, "_KEEPS_READ_ONLY", True)
    assert transfer.place(source, target.with_name("c.png"), move=True).is_file()
    assert not source.exists()


@pytest.mark.parametrize(("system", "code"), [("nt", 141), ("posix", 2)])
def test_a_reader_that_goes_away(system: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **how: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(cli, "_forget_stdout", lambda: None)
    monkeypatch.setattr(cli, "os", SimpleNamespace(name=system))
    monkeypatch.setattr(rank.command, "invoke", fail)
    assert CliRunner().invoke(cli.group, ["rank", "scores.csv"]).exit_code == code


def test_a_table_that_another_program_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, _: Path) -> None:
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(Path, "replace", denied)
    for system, advice in (("nt", "close the table in other programs"), ("posix", "make its folder writable")):
        monkeypatch.setattr(table, "os", SimpleNamespace(name=system))
        with pytest.raises(UsageError, match=advice):
            table.write_table(tmp_path / "a.csv", ["file"], [])


def test_prompts_in_a_tar_from_macos(tmp_path: Path) -> None:
    members = ["1.png", "._1.txt", "1.txt", "x/._2.png", "x/2.png"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("._1.png", *members):
            content = b"a ball" if name == "1.txt" else b"\0\5\x16\7"
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    found = [(item.file.rpartition("a.tar/")[2], item.prompt) for item in expand(tmp_path / "a.tar")]
    assert found == [("1.png", "a ball"), ("x/2.png", None)]


def test_operators_that_a_build_of_torch_only_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: int) -> bool:
        raise NotImplementedError("Could not run 'onednn::qconv2d_pointwise'")

    monkeypatch.setattr(int8_weights, "_is_exact", absent)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert int8_weights.sum_bits.__wrapped__() is None


@pytest.mark.parametrize("capability", ["SVE256", "DEFAULT"])
def test_mini_on_an_arm_cpu(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without oneDNN, as on a Mac, scores are those of fp32 elsewhere."""
    image = ROOT / "examples" / "red_ball.png"
    wanted = Scorer.load("mini", device="cpu", precision="fp32")(image, "a red ball")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    int8_weights.sum_bits.cache_clear()
    try:
        scorer = Scorer.load("mini", device="cpu")
        assert scorer.encoder.encoders.precision == "fp32"
        assert scorer(image, "a red ball").targets == pytest.approx(wanted.targets, abs=1e-4)
        with pytest.raises(UsageError, match="Expected a CPU with AVX2"):
            Scorer.load("mini", device="cpu", precision="int8")
    finally:
        int8_weights.sum_bits.cache_clear()
