"""A file that is replaced is at every moment the old one or the new one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from mst_clipiqa.tables.atomic import atomic, sync_folder, write_atomically


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with atomic(path, sync=True) as file:
        file.write(b"n")
        file.flush()
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2
        file.write(b"ew")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def half_written(file: BinaryIO) -> None:
    file.write(b"half")
    raise KeyboardInterrupt


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as file:
        half_written(file)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_planted_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    elsewhere, beside = tmp_path / "elsewhere", tmp_path / "a.new"
    elsewhere.write_bytes(b"precious")
    beside.symlink_to(elsewhere)
    with atomic(tmp_path / "a", beside=beside) as file:
        file.write(b"new")
    assert elsewhere.read_bytes() == b"precious"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "a").is_symlink()


def test_a_file_that_only_its_owner_may_read_stays_private(tmp_path: Path) -> None:
    path, seen = tmp_path / "t", []
    path.touch()
    path.chmod(0o600)
    with atomic(path) as file:
        seen.append(os.fstat(file.fileno()).st_mode & 0o777)
    assert [*seen, path.stat().st_mode & 0o777] == [0o600, 0o600]


def test_sync_brings_the_file_and_its_name_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
    write_atomically(tmp_path / "a", b"")
    assert synced == []
    with atomic(tmp_path / "a", sync=True):
        pass
    assert synced == [False, True]


@pytest.mark.parametrize(("code", "is_fatal"), [(errno.EIO, True), (errno.EINVAL, False), (errno.ENOTSUP, False)])
def test_a_folder_that_cannot_be_synced(
    code: int, is_fatal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "fsync", fail)
    if is_fatal:
        with pytest.raises(OSError, match="no"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)
