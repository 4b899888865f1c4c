"""filter: what passes, where it goes, and that no file is ever lost on the way."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mst_clipiqa.analysis.filter import keep, plan
from mst_clipiqa.analysis.transfer import foresee, place, transfer
from mst_clipiqa.errors import UsageError

Patch = pytest.MonkeyPatch


def row(file: str, quality: float | None, correspondence: float | None = None, **more: Any) -> dict[str, Any]:
    return {"file": file, "quality": quality, "correspondence": correspondence, "status": "ok", **more}


TABLE = [
    row("a", 3.0, 1.0),
    row("b", 2.9, 5.0),
    row("c", 4.0, None),
    row("d", None, None, status="error", reason="cut off"),
    row("e", 3.5, 2.0),
]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three images, in folders and with names that are not ASCII."""
    for name in ("in/x/猫.png", "in/y/猫.png", "in/e\u0301 🐈.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def fails(code: int) -> Callable[..., Any]:
    def failing(*args: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return failing


def fails_where(where: Callable[[str], bool], code: int, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    def failing(source: Any, *args: Any, **options: Any) -> Any:
        if where(str(source)):
            raise OSError(code, os.strerror(code))
        return otherwise(source, *args, **options)

    return failing


def test_every_score_must_reach_its_minimum() -> None:
    found = keep(TABLE, {"quality": 3.0, "correspondence": 2.0})
    assert ([r["file"] for r in found.rows], found.rejected) == (["e"], 2)
    assert [(left.row["file"], left.why) for left in found.left_out] == [("d", "cut off"), ("c", "no correspondence")]


def test_the_minimum_itself_passes() -> None:
    assert [r["file"] for r in keep(TABLE, {"quality": 3.0}).rows] == ["a", "c", "e"]


def test_invert_takes_the_others_but_none_without_a_score() -> None:
    found = keep(TABLE, {"quality": 3.0, "correspondence": 2.0}, invert=True)
    assert ([r["file"] for r in found.rows], found.rejected) == (["a", "b"], 1)
    assert [left.row["file"] for left in found.left_out] == ["d", "c"]


def test_no_minimum_keeps_what_was_scored() -> None:
    assert [r["file"] for r in keep(TABLE, {}).rows] == ["a", "b", "c", "e"]


def test_images_keep_their_sub_folders(files: Path) -> None:
    rows = [row("in/x/猫.png", 3), row("in/y/猫.png", 3), row("in/e\u0301 🐈.png", 1)]
    planned = plan(rows[:2], rows, [files], files / "out")
    assert [target for _, _, target in planned.moves] == [files / "out/x/猫.png", files / "out/y/猫.png"]


def test_no_name_climbs_out_of_the_target(files: Path) -> None:
    rows = [row("in/x/../../in/y/猫.png", 3), row("in/x/猫.png", 3)]
    planned = plan(rows, rows, [files], files / "out")
    assert [target for _, _, target in planned.moves] == [files / "out/y/猫.png", files / "out/x/猫.png"]


def test_an_image_of_two_rows_goes_once_and_a_lost_one_is_told(files: Path) -> None:
    rows = [row("in/x/猫.png", 3, prompt="a"), row("in/x/猫.png", 3, prompt="b"), row("gone.png", 3), row("", 3)]
    planned = plan(rows, rows, [files], files / "out")
    assert [moved["prompt"] for moved, _, _ in planned.moves] == ["a"]
    assert [left.why for left in planned.left_out] == ["its image is not found", "the row names no file"]


def test_a_target_that_is_a_file_is_refused(files: Path) -> None:
    with pytest.raises(UsageError, match="Expected a folder to put images in, got the file"):
        plan([], [], [], files / "in/x/猫.png")


@pytest.mark.parametrize("move", [True, False])
def test_a_file_arrives_whole(files: Path, move: bool) -> None:
    source = files / "in/x/猫.png"
    os.utime(source, (1, 1_000_000_000))
    put = place(source, files / "out/x/猫.png", move=move)
    assert put.read_bytes() == "in/x/猫.png".encode()
    assert put.stat().st_mtime == 1_000_000_000
    assert source.exists() is not move


@pytest.mark.parametrize("move", [True, False])
def test_a_clash_overwrites_nothing(files: Path, move: bool) -> None:
    (files / "out").mkdir()
    (files / "out/猫.png").write_bytes(b"was here first")
    pairs = [(files / "in/x/猫.png", files / "out/猫.png"), (files / "in/y/猫.png", files / "out/猫.png")]
    foreseen = list(foresee(pairs, move=move))
    done = [outcome.to for outcome in transfer(pairs, move=move)]
    assert done == foreseen == [files / "out/猫-2.png", files / "out/猫-3.png"]
    assert tree(files / "out") == {
        "猫.png": b"was here first",
        "猫-2.png": "in/x/猫.png".encode(),
        "猫-3.png": "in/y/猫.png".encode(),
    }


def test_copying_twice_makes_no_second_copy(files: Path) -> None:
    pairs = [(files / "in/x/猫.png", files / "out/猫.png")]
    for _ in range(2):
        assert [o.to for o in transfer(pairs, move=False)] == [files / "out/猫.png"]
    assert list(tree(files / "out")) == ["猫.png"]
    assert list(foresee(pairs, move=False)) == [files / "out/猫.png"]


def test_moving_beside_an_equal_file_loses_neither(files: Path) -> None:
    (files / "out").mkdir()
    shutil.copy(files / "in/x/猫.png", files / "out/猫.png")
    assert place(files / "in/x/猫.png", files / "out/猫.png", move=True) == files / "out/猫-2.png"


@pytest.mark.parametrize("move", [True, False])
def test_a_file_moved_onto_itself_stays(files: Path, move: bool) -> None:
    source = files / "in/x/猫.png"
    assert place(source, files / "in/y/../x/猫.png", move=move).samefile(source)
    assert source.read_bytes() == "in/x/猫.png".encode()


def test_a_move_across_disks_copies_then_removes(files: Path, monkeypatch: Patch) -> None:
    across = fails_where(lambda source: not source.endswith(".part"), errno.EXDEV, os.link)
    monkeypatch.setattr(os, "link", across)
    source = files / "in/x/猫.png"
    assert place(source, files / "out/猫.png", move=True) == files / "out/猫.png"
    assert tree(files / "out") == {"猫.png": "in/x/猫.png".encode()}
    assert not source.exists()


@pytest.mark.parametrize("move", [True, False])
def test_a_disk_without_links_never_overwrites_either(files: Path, monkeypatch: Patch, move: bool) -> None:
    monkeypatch.setattr(os, "link", fails(errno.EPERM))
    (files / "out").mkdir()
    (files / "out/猫.png").write_bytes(b"was here first")
    assert place(files / "in/x/猫.png", files / "out/猫.png", move=move) == files / "out/猫-2.png"
    assert tree(files / "out") == {"猫.png": b"was here first", "猫-2.png": "in/x/猫.png".encode()}


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("where", ["while writing", "while syncing", "while renaming"])
def test_a_full_disk_loses_nothing(files: Path, monkeypatch: Patch, move: bool, where: str) -> None:
    before = tree(files / "in")
    across = fails_where(lambda source: not source.endswith(".part"), errno.EXDEV, os.link)
    monkeypatch.setattr(os, "link", across)

    def full(read: Any, written: Any, size: int) -> None:
        written.write(read.read(3))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "while writing":
        monkeypatch.setattr(shutil, "copyfileobj", full)
    elif where == "while syncing":
        monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    else:
        elsewhere = fails_where(lambda source: source.endswith(".part"), errno.ENOSPC, across)
        monkeypatch.setattr(os, "link", elsewhere)
    pairs = [(path, files / "out" / path.name) for path in sorted((files / "in").rglob("*.png"))]
    outcomes = list(transfer(pairs, move=move))
    assert [o.to for o in outcomes] == [None] * 3
    assert outcomes[0].reason == os.strerror(errno.ENOSPC)
    why = f"not tried, because the target is unusable: {os.strerror(errno.ENOSPC)}"
    assert {o.reason for o in outcomes[1:]} == {why}
    monkeypatch.undo()
    assert tree(files / "in") == before
    assert tree(files / "out") == {}


def test_a_read_only_disk_loses_nothing(files: Path, monkeypatch: Patch) -> None:
    before = tree(files)
    monkeypatch.setattr(os, "link", fails(errno.EROFS))
    outcomes = list(transfer([(files / "in/x/猫.png", files / "in/z.png")] * 2, move=True))
    assert outcomes[0].reason == os.strerror(errno.EROFS)
    assert outcomes[1].reason.startswith("not tried")
    assert tree(files) == before


def test_a_target_folder_that_cannot_be_made_loses_nothing(files: Path) -> None:
    before = tree(files)
    pairs = [(files / "in/x/猫.png", files / "in/y/猫.png/below/a file.png")]
    assert [(o.to, o.reason) for o in transfer(pairs, move=True)] == [(None, os.strerror(errno.ENOTDIR))]
    assert tree(files) == before


def test_one_file_that_is_gone_does_not_stop_the_others(files: Path) -> None:
    pairs = [(files / "gone.png", files / "out/gone.png"), (files / "in/x/猫.png", files / "out/猫.png")]
    for move in (False, True):
        outcomes = list(transfer(pairs, move=move))
        assert (outcomes[0].to, outcomes[0].reason) == (None, os.strerror(errno.ENOENT))
        assert outcomes[1].to is not None


def test_a_file_that_cannot_be_read_leaves_no_handle_open(files: Path, monkeypatch: Patch) -> None:
    handles = []

    def noted(*args: Any, **options: Any) -> tuple[int, str]:
        handles.append(mkstemp(*args, **options)[0])
        return handles[0], str(files / "out/noted.part")

    mkstemp = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", noted)
    (outcome,) = transfer([(files / "gone.png", files / "out/gone.png")], move=False)
    assert outcome.reason == os.strerror(errno.ENOENT)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(handles[0])


@pytest.mark.parametrize("linked", [True, False])
def test_a_source_that_cannot_be_removed_is_not_doubled(files: Path, monkeypatch: Patch, linked: bool) -> None:
    before = tree(files)
    source = files / "in/x/猫.png"
    if not linked:
        across = fails_where(lambda source: not source.endswith(".part"), errno.EXDEV, os.link)
        monkeypatch.setattr(os, "link", across)
    monkeypatch.setattr(Path, "unlink", fails_where(lambda path: path == str(source), errno.EACCES, Path.unlink))
    assert [o.reason for o in transfer([(source, files / "out/猫.png")], move=True)] == [os.strerror(errno.EACCES)]
    assert tree(files) == before


@pytest.mark.parametrize("linked", [True, False])
def test_a_move_keeps_the_copy_if_another_program_removes_the_source_meanwhile(
    files: Path, monkeypatch: Patch, linked: bool
) -> None:
    source, link = files / "in/x/猫.png", os.link

    def removed_since(name: Any, *args: Any, **options: Any) -> None:
        if not (linked or str(name).endswith(".part")):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        link(name, *args, **options)
        source.unlink()

    monkeypatch.setattr(os, "link", removed_since)
    (outcome,) = transfer([(source, files / "out/猫.png")], move=True)
    assert outcome.to is not None and outcome.to.read_bytes() == "in/x/猫.png".encode()


def test_a_link_is_moved_as_the_image_it_points_to(files: Path) -> None:
    link = files / "in/link.png"
    link.symlink_to(files / "in/x/猫.png")
    put = place(link, files / "out/link.png", move=True)
    assert put.read_bytes() == "in/x/猫.png".encode()
    assert not put.is_symlink() and not link.is_symlink()
    assert (files / "in/x/猫.png").exists()
