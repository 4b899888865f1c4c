"""Runs tests on a mutant, in a fork of a process that has the libraries loaded: a start costs seconds otherwise."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mutation.parts import SLOW

if TYPE_CHECKING:
    from mutation.places import Mutant

CPU_SECONDS = 240  # of one run; what takes longer is stopped, and counts as noticed
_MEMORY = 2**34
_LIBRARIES = (
    *("numpy", "scipy.stats", "torch", "tokenizers", "safetensors.torch", "PIL.Image", "click"),
    "transformers.models.clip.modeling_clip",
    *(
        "pyarrow.parquet",
        "openpyxl",
        "sqlite3",
        "jaxtyping",
        "beartype",
        "beartype.door",
        "hypothesis",
        "anyio",
        "xdist",
    ),
)
_QUIET = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins whose libraries are loaded already


def copy(root: Path, to: Path) -> None:
    """Copy the files that git knows, as they are in the working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    for name in names.split("\0"):
        if name and (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def load_libraries(root: Path) -> None:
    """Import what tests import, but nothing of ours, and let imports of ours come from ``root``."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(root)
    sys.path.insert(0, str(root))
    for name in _LIBRARIES:
        importlib.import_module(name)


@contextlib.contextmanager
def applied(mutant: Mutant, root: Path, number: int) -> Iterator[None]:
    """Put a mutant in place of its file; each has a time of its own, so that no compiled file is taken for it."""
    path = root / mutant.file
    before, times = path.read_bytes(), path.stat()
    path.write_text(mutant.source, encoding="utf-8")
    os.utime(path, (times.st_atime, 1_000_000_000 + 2 * number))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, (times.st_atime, times.st_mtime))


def run(tests: Sequence[str], log: Path) -> tuple[str, str]:
    """Run tests until one fails.

    Args:
        tests: files and folders.
        log: what pytest prints.

    Returns:
        "survived", "killed" or "stopped" (no time or memory left), and the test that failed.
    """
    child = os.fork()
    if not child:
        _be_the_child(tests, log)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever the tests left running
    return verdict(os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace"))


def verdict(code: int, text: str) -> tuple[str, str]:
    """Return what ``run`` does, from pytest's exit code and what it printed.

    Raises:
        SystemExit: no test ran, for another reason than the fault.
    """
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    # From 2 on a test file or conftest cannot be imported; 4 is also the code of a missing file.
    if code in (0, 1, 2, 3) or (code == 4 and "while loading conftest" in text):
        return "killed" if code else "survived", failed[0] if failed else ""
    if code < 0:
        return "stopped", ""
    raise SystemExit(f"Expected pytest to run, got exit code {code}:\n{text}")


def _be_the_child(tests: Sequence[str], log: Path) -> None:
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.alarm(20 * CPU_SECONDS)
        options = [
            "-x",
            "-q",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "-W",
            _QUIET,
            "-o",
            f"filterwarnings=error\n{_QUIET}",
        ]
        options += [f"--deselect={test}" for test in SLOW]
        code = int(pytest.main([*options, *tests]))
    except BaseException:  # noqa: BLE001 - the log says it, and the parent stops
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def seconds_of_children() -> float:
    """Return the CPU time of all runs so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
