"""How many threads torch computes with in a thread of ours, and which threads work for whom."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from mst_clipiqa.encoders.threads import (
    batches_at_once,
    map_in_parallel,
    map_on_single_cores,
    return_freed_memory,
)
from mst_clipiqa.encoders.torch_threads import set_torch_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    set_torch_threads(4)
    yield
    set_torch_threads(before)


def test_tasks_share_the_cores_whatever_other_threads_set_for_themselves() -> None:
    other = threading.Thread(target=set_torch_threads, args=(3,))
    other.start()
    other.join()
    assert map_in_parallel(CPU, lambda _: torch.get_num_threads(), range(8), most=2) == [2] * 8
    assert map_on_single_cores(CPU, lambda _: torch.get_num_threads(), range(8)) == [1] * 8
    assert torch.get_num_threads() == 4


def test_threads_are_kept_and_rows_do_not_wait_for_chunks() -> None:
    began, go_on = threading.Barrier(5, timeout=20), threading.Event()

    def chunk(_: int) -> str:
        began.wait()
        go_on.wait(20)
        return threading.current_thread().name

    names: list[str] = []
    batch = threading.Thread(target=lambda: names.extend(map_in_parallel(CPU, chunk, range(4), most=4)))
    set_torch_threads(4)
    batch.start()
    began.wait()  # all four threads for chunks are busy
    rows = map_on_single_cores(CPU, lambda i: (i, threading.current_thread().name), range(3))
    go_on.set()
    batch.join()
    assert [i for i, _ in rows] == [0, 1, 2]
    assert not {name for _, name in rows} & set(names)
    kept = {thread.name for thread in threading.enumerate()}
    assert set(names) <= kept
    assert set(map_in_parallel(CPU, lambda _: threading.current_thread().name, range(9), most=4)) <= set(names)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert map_in_parallel(CPU, abs, [-1, -2], most=2) == [1, 2]
    child = os.fork()
    if not child:
        os._exit(map_in_parallel(CPU, abs, [-1, -2], most=2) != [1, 2])
    assert os.waitpid(child, 0)[1] == 0


def test_two_batches_at_once_need_two_cores() -> None:
    assert batches_at_once(CPU) == 2
    assert batches_at_once(torch.device("cuda")) == 1
    set_torch_threads(1)
    assert batches_at_once(CPU) == 1


RETURNS = """
from pathlib import Path
from mst_clipiqa.encoders.threads import return_freed_memory, reuse_freed_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def work():
    blocks = [b'x' * (2**20 + i) for i in range(200)]
    kept.append(bytearray(2**10))  # at the end of the heap, so that what lies before stays
    del blocks

kept = []
assert reuse_freed_memory()
work()
before = resident_mb()
assert return_freed_memory()
print(before - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_returned() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    result = subprocess.run([sys.executable, "-c", RETURNS], capture_output=True, text=True, check=True, env=env)
    assert float(result.stdout) > 150


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_keeps_its_memory(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def no_library(_: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert not return_freed_memory()
