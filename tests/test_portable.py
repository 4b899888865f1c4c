"""What Windows lacks is not needed for a score: the tests hide it, since they mostly run elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mst_clipiqa import cli
from mst_clipiqa.analysis import transfer

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty"}
OF_OS = set(
    re.findall(
        r"\w+",
        """
        O_CLOEXEC O_DIRECTORY O_DSYNC O_NOFOLLOW O_NONBLOCK O_SYNC chown chroot ctermid fchdir fchmod fchown fork
        forkpty getegid geteuid getgid getgroups getloadavg getpgid getpriority getuid initgroups killpg lchown lockf
        major mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate posix_spawn pread preadv pwrite
        pwritev register_at_fork sched_getaffinity sched_yield sendfile setegid seteuid setgid setpriority setsid setuid
        statvfs sync sysconf tcgetpgrp uname wait wait3 wait4
        """,
    )
)
OF_SIGNAL = set(
    re.findall(r"\w+", "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pthread_sigmask")
)


def unguarded(source: str) -> list[str]:
    """Return imports and attributes that only POSIX has, unless ``hasattr`` asks for the attribute in the same file."""
    tree, found = ast.parse(source), []
    asked = {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr" and isinstance(node.args[1], ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if alias.name in MODULES]
            case ast.ImportFrom(module=str(module)) if module in MODULES:
                found.append(module)
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in OF_OS - asked:
                found.append(f"os.{name}")
            case ast.Attribute(value=ast.Name(id="signal"), attr=name) if name in OF_SIGNAL - asked:
                found.append(f"signal.{name}")
    return found


def test_no_file_of_the_package_needs_what_only_posix_has() -> None:
    files = sorted((ROOT / "mst_clipiqa").rglob("*.py"))
    found = {path.name: unguarded(path.read_text(encoding="utf-8")) for path in files}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("source", ["import fcntl", "from pwd import getpwnam", "os.fork()", "signal.SIGKILL"])
def test_what_only_posix_has_is_noticed(source: str) -> None:
    assert unguarded(source)


def test_score_works_where_all_of_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, out = ROOT / "examples", tmp_path / "new" / "scores.jsonl"
    score = ["score", str(images / "red_ball.png"), "-o", str(out)]
    assert CliRunner().invoke(cli.group, score).exit_code == 0  # imports what other packages import only on Linux
    for name in MODULES - {"posix"}:  # pathlib itself needs that one here
        monkeypatch.setitem(sys.modules, name, None)
    for name in OF_OS:
        monkeypatch.delattr(os, name, raising=False)
    for name in OF_SIGNAL:
        monkeypatch.delattr(signal, name, raising=False)
    for more in ([], ["--resume"]):
        done = CliRunner().invoke(cli.group, [*score, *more])
        assert done.exit_code == 0, done.output
    (row,) = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    assert row["status"] == "ok"


def test_filter_moves_images_where_links_take_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path, **options: bool) -> None:
        if options:
            raise NotImplementedError("follow_symlinks unavailable on this platform")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(transfer, "_LINK_OPTIONS", {})
    source, target = tmp_path / "a.png", tmp_path / "good" / "a.png"
    source.write_bytes(b"image")
    assert transfer.place(source, target, move=True) == target
    assert target.read_bytes() == b"image"
    assert not source.exists()


def test_files_have_the_same_bytes_on_every_system() -> None:
    """A model is recognised by the hash of its files, so neither git nor Python may give them other line ends."""
    if (ROOT / ".git").exists():
        files = sorted((ROOT / "mst_clipiqa" / "weights").rglob("*.json"))
        command = ["git", "-c", "core.autocrlf=true", "check-attr", "eol", "--", *map(str, files)]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines()
        assert [line.rpartition(" ")[2] for line in found] == ["lf"] * len(files)
    calls = [
        (path.name, ast.unparse(node))
        for path in sorted((ROOT / "mst_clipiqa").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".write_text")
    ]
    assert [call for call in calls if "newline=" not in call[1]] == []
    assert calls
